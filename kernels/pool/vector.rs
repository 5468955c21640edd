use super::*; use crate::simd::{Simd,Vector,Kernel};
impl Vector for AvgPool<'_> { unsafe fn vector<S: Simd>(self) { self.scalar(); } }
impl Vector for GlobalAvgPool<'_> { unsafe fn vector<S: Simd>(self) { self.scalar(); } }
impl Vector for MaxPoolTo<'_> { unsafe fn vector<S: Simd>(self) { self.scalar(); } }
