//! A camera, of which only the newest frame is segmented, so that the lag does not grow.
//!
//! `cargo run --release --example camera`
//!
//! The camera here is a thread that makes frames: twice as many as the network can process. To read a real one, open a
//! `rtformer::video::Source` such as `v4l2:/dev/video0`, or pass an iterator over the frames of your camera's library.

use std::sync::Arc;
use std::time::Duration;

use rtformer::pixels::{PixelFormat, Pixels};
use rtformer::video::Keep;
use rtformer::{Device, Result, Segmenter};

const WIDTH: u32 = 480;
const HEIGHT: u32 = 360;
/// Cameras pad their rows.
const STRIDE: usize = 1536;

/// A frame in the camera's own layout. It is never converted: the network reads it as it is.
struct Bgr(Vec<u8>);

impl<'a> From<&'a Bgr> for Pixels<'a> {
    fn from(frame: &'a Bgr) -> Self {
        Pixels::new(&frame.0, WIDTH, HEIGHT, STRIDE, PixelFormat::Bgr8)
            .expect("the buffer has HEIGHT rows of STRIDE bytes")
    }
}

fn main() -> Result<()> {
    let segmenter = Arc::new(Segmenter::embedded(Device::auto())?);
    let frame = |n: usize| Bgr((0..STRIDE * HEIGHT as usize).map(|i| ((i / STRIDE) ^ n) as u8).collect());
    let pace = Duration::from_secs_f64(segmenter.segment(&frame(0))?.timings().total() / 2e3);
    let camera = (0..40).map(move |n| {
        std::thread::sleep(pace);
        Ok(frame(n))
    });
    for shown in segmenter.stream(camera, Keep::Newest) {
        let shown = shown?;
        let (age, class) = (shown.arrived.elapsed(), &shown.scene.classes()[0].name);
        println!("mostly {class}, {age:.0?} after the frame arrived, {} dropped", shown.dropped);
    }
    Ok(())
}
