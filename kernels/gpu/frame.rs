//! A frame's work. It runs step by step the first time, is recorded the second time, and from then on starts with one call.

use super::{Device, GpuError};

/// Inputs, outputs, and the work between them, which is the same each time.
///
/// The first time, the work runs step by step, because memory must be allocated and kernels compiled; photo sizes that occur only once
/// cost nothing more. The second time it is recorded.
pub struct Frame<D: Device> {
    program: Option<D::Program>,
    inputs: Vec<D::Mirror>,
    outputs: Vec<D::Mirror>,
    /// Whether the work has run before.
    warm: bool,
    /// Whether the device may still be running the work.
    flying: bool,
    device: D,
}

/// A frame's inputs and outputs, for its work.
pub struct Io<'a, D: Device> {
    device: &'a D,
    inputs: &'a [D::Mirror],
    outputs: &'a [D::Mirror],
}

impl<D: Device> Io<'_, D> {
    /// Input `i`, as kernels see it.
    pub fn input(&self, i: usize) -> &D::Buffer {
        self.device.device_side(&self.inputs[i])
    }

    /// Output `i`, as kernels see it.
    pub fn output(&self, i: usize) -> &D::Buffer {
        self.device.device_side(&self.outputs[i])
    }

    /// Copies all inputs to the device.
    ///
    /// - errors: those of the device
    pub fn copy_in(&self) -> Result<(), GpuError> {
        // SAFETY: `Frame` keeps the mirrors, and lets the host access them only after waiting for the device.
        self.inputs.iter().try_for_each(|mirror| unsafe { self.device.copy_in(mirror) })
    }

    /// Copies all outputs back to the host.
    ///
    /// - errors: those of the device
    pub fn copy_out(&self) -> Result<(), GpuError> {
        // SAFETY: as above.
        self.outputs.iter().try_for_each(|mirror| unsafe { self.device.copy_out(mirror) })
    }
}

impl<D: Device> Frame<D> {
    /// A frame with inputs and outputs of the given sizes in bytes, on a queue that nobody else uses while the frame's work is started.
    ///
    /// - errors: those of the device, if it lacks the memory
    pub fn new(device: &D, inputs: &[usize], outputs: &[usize]) -> Result<Self, GpuError> {
        let mirrors = |sizes: &[usize]| sizes.iter().map(|&bytes| device.mirror(bytes)).collect::<Result<Vec<_>, _>>();
        let (inputs, outputs) = (mirrors(inputs)?, mirrors(outputs)?);
        Ok(Self { program: None, inputs, outputs, warm: false, flying: false, device: device.clone() })
    }

    /// Input `i`, to be written. Waits for running work first.
    ///
    /// - errors: those of the running work
    ///
    /// # Panics
    /// If there is no such input.
    pub fn input(&mut self, i: usize) -> Result<&mut [u8], GpuError> {
        self.wait()?;
        let (mirror, device) = (&self.inputs[i], &self.device);
        let (at, len) = (device.host_side(mirror), device.len(device.device_side(mirror)));
        // SAFETY: the mirror has this many bytes, which the device initialised when it made the mirror. The device is not using them now,
        // and they are borrowed as long as the frame is.
        Ok(unsafe { std::slice::from_raw_parts_mut(at.as_ptr(), len) })
    }

    /// Starts the work; may return before it completes. Once recorded, `work` is not called again, so it must launch the same each time.
    ///
    /// - errors: those of the device or of `work`
    pub fn start<E: From<GpuError>>(&mut self, work: impl FnOnce(Io<'_, D>) -> Result<(), E>) -> Result<(), E> {
        self.wait()?;
        let Self { program, inputs, outputs, warm, flying, device } = self;
        let io = Io { device, inputs, outputs };
        *flying = true;
        if program.is_none() && !*warm {
            work(io)?;
            *warm = true;
            return Ok(());
        }
        let program = match program {
            Some(program) => program,
            None => program.insert(device.record(|| work(io))?.0),
        };
        // SAFETY: the mirrors live as long as the program, and the host can only access them after waiting for the device.
        unsafe { device.start(program)? };
        Ok(())
    }

    /// Waits for the work.
    ///
    /// - errors: those of the device
    pub fn wait(&mut self) -> Result<(), GpuError> {
        if std::mem::take(&mut self.flying) { self.device.finish() } else { Ok(()) }
    }

    /// The work's outputs, in order; empty while the work may be running, so call [`wait`](Self::wait) first.
    pub fn outputs(&self) -> impl Iterator<Item = &[u8]> {
        let mirrors = if self.flying { &[] } else { &self.outputs[..] };
        mirrors.iter().map(|mirror| {
            let (at, len) = (self.device.host_side(mirror), self.device.len(self.device.device_side(mirror)));
            // SAFETY: as for an input; starting the work again takes an exclusive reference.
            unsafe { std::slice::from_raw_parts(at.as_ptr(), len) }
        })
    }

    /// Whether the work is recorded.
    pub fn is_recorded(&self) -> bool {
        self.program.is_some()
    }
}

impl<D: Device> Drop for Frame<D> {
    fn drop(&mut self) {
        // Errors are ignored here: a lost device reports itself to whoever uses it next.
        let _ = self.wait();
    }
}

impl<D: Device> std::fmt::Debug for Frame<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (inputs, outputs) = (self.inputs.len(), self.outputs.len());
        write!(f, "Frame({inputs} inputs, {outputs} outputs, recorded: {})", self.is_recorded())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::argmax::gpu as argmax;
    use crate::gpu::emulated::Emulated;
    use crate::gpu::{GpuElement, GpuShape};
    use crate::pack::gpu as pack;
    use crate::pointwise::gpu as pointwise;

    const SHAPE: GpuShape = GpuShape { n: 1, channels: 3, height: 4, width: 5 };

    /// `[3, 4, 5]` floats, few of them equal.
    fn photo(seed: usize) -> Vec<f32> {
        (0..60).map(|i| ((i * 37 + seed * 11) % 23) as f32 - 11.0).collect()
    }

    #[test]
    fn a_frame_is_the_same_recorded_or_not() {
        let Some(device) = &Emulated::cuda() else { return };
        let device = &device.fork().unwrap();
        let mut frame = Frame::new(device, &[4 * 60], &[4 * 60]).unwrap();
        // Memory from outside, dropped as soon as the work is recorded.
        let mut other = Some(pack::pack(device, &photo(9), SHAPE, GpuElement::F32).unwrap());
        for run in 0..5 {
            let images = photo(run);
            frame.input(0).unwrap().copy_from_slice(bytemuck::cast_slice(&images));
            let taken = if run == 1 { other.take() } else { None };
            frame
                .start(|io: Io<'_, Emulated>| {
                    io.copy_in()?;
                    let x = pointwise::relu(device, &pack::pack_from(device, io.input(0), SHAPE, GpuElement::F32)?)?;
                    let other = taken.as_ref().or(other.as_ref()).expect("recorded work is not called again");
                    let sum = pointwise::add(device, &x, other)?;
                    argmax::upsample_to(device, &sum, 0, (4, 5), io.output(0))?;
                    io.copy_out()
                })
                .unwrap();
            drop(taken);
            // Other work on this queue between two frames takes none of the memory that they need.
            let x = pack::pack(device, &photo(7), SHAPE, GpuElement::F32).unwrap();
            pointwise::add(device, &x, &x).unwrap();
            let want: Vec<_> = images.iter().zip(photo(9)).map(|(a, b)| a.max(0.0) + b).collect();
            assert_eq!(frame.outputs().count(), 0, "the work may be running");
            frame.wait().unwrap();
            assert_eq!(frame.outputs().next(), Some(bytemuck::cast_slice(&want)), "frame {run}");
            assert_eq!(frame.is_recorded(), run > 0);
        }
    }

    #[test]
    fn work_that_fails_leaves_a_frame_that_can_be_used() {
        let Some(device) = &Emulated::metal() else { return };
        let mut frame = Frame::new(device, &[4 * 60], &[4 * 60]).unwrap();
        for run in 0..4 {
            let fails = run == 1;
            let started = frame.start(|io: Io<'_, Emulated>| {
                let x = pack::pack_from(device, io.input(0), SHAPE, GpuElement::F32)?;
                // The host cannot wait for work that is not running yet.
                if fails {
                    device.finish()?;
                    pack::unpack(device, &x, &mut [0.0; 1])
                } else {
                    Ok(())
                }
            });
            assert_eq!((started.is_err(), frame.is_recorded()), (fails, run > 1), "run {run}");
        }
    }

    #[test]
    fn recorded_stamps_tell_the_time_of_each_run() {
        let Some(device) = &Emulated::metal() else { return };
        let x = pack::pack(device, &photo(0), SHAPE, GpuElement::F32).unwrap();
        let work = || {
            let begin = device.stamp()?;
            pointwise::relu(device, &x)?;
            Ok::<_, GpuError>([begin, device.stamp()?])
        };
        let (program, [begin, end]) = device.record(work).unwrap();
        assert!(device.between(&begin, &end).is_err(), "nothing has run yet");
        // SAFETY: there are no mirrors.
        unsafe { device.start(&program).unwrap() };
        assert!(device.between(&begin, &end).unwrap() > 0.0);
    }
}
