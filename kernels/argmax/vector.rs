use super::*; use crate::simd::{Simd,Vector,Kernel};
impl<T: ClassId> Vector for Argmax<'_, T> { unsafe fn vector<S: Simd>(self) { self.scalar(); } }
impl Vector for Upsample<'_> { unsafe fn vector<S: Simd>(self) { self.scalar(); } }
