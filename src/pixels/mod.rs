//! Photos in, pictures out.
