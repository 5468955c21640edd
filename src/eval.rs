//! How good it is.
