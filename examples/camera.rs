//! A stream of camera frames: borrowed BGR buffers with padded rows, and one mask that is reused.
//!
//! `cargo run --release --example camera`

use rtformer::pixels::{Mask, PixelFormat, Pixels};
use rtformer::{Device, Segmenter};

const WIDTH: u32 = 480;
const HEIGHT: u32 = 360;
/// Cameras pad their rows.
const STRIDE: usize = 1536;

fn main() -> rtformer::Result<()> {
    let segmenter = Segmenter::embedded(Device::auto())?;
    let mut mask = Mask::new(WIDTH, HEIGHT, segmenter.model().num_classes());
    let mut buffer = vec![0u8; STRIDE * HEIGHT as usize];
    for frame in 0..10u8 {
        // Stands in for the camera's driver, which fills its own buffer.
        buffer.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i / STRIDE) as u8 ^ frame);
        let pixels = Pixels::new(&buffer, WIDTH, HEIGHT, STRIDE, PixelFormat::Bgr8)?;
        let timings = segmenter.segment_into(&pixels, &mut mask)?;
        println!("frame {frame}: {:.1} ms, top left is class {}", timings.total(), mask.get(0, 0));
    }
    Ok(())
}
