//! rtformer.
fn main() {}
