//! Plain images to maps and back, on a GPU. (For the CPU's maps, [`crate::pack_nchw`] and [`crate::unpack_nchw`] are that.)

pub mod gpu;
