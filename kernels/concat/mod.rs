//! Concatenates channels on a GPU. (The CPU's maps are blocks of channels, which its backend copies whole.)

pub mod gpu;
