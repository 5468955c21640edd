use super::*; use crate::simd::{Simd,Vector,Kernel};
impl Vector for EaSoftmax<'_> { unsafe fn vector<S: Simd>(self) { self.scalar(); } }
impl Vector for EaGroupL1<'_> { unsafe fn vector<S: Simd>(self) { self.scalar(); } }
