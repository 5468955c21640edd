use super::*; use crate::simd::{Simd,Vector,Kernel};
impl Vector for ResizeAdd<'_> { unsafe fn vector<S: Simd>(self) { self.scalar(); } }
