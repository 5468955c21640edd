//! What the paper says.
mod config;
pub use config::Config;
