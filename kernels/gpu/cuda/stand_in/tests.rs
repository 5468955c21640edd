//! Proves that the stand-in detects every kind of driver misuse that it knows, and accepts one correct use.

use std::ffi::{CString, c_void};
use std::process::Command;
use std::ptr::null_mut;

use cudarc::driver::sys::{self, CUresult, CUstreamCaptureMode};

use crate::gpu::cuda::ptx;
use crate::gpu::emulated::Emulated;

/// Numbers per buffer.
const LEN: usize = 64;
const BYTES: usize = LEN * 4;

const SUCCESS: CUresult = CUresult::CUDA_SUCCESS;
const INVALID: CUresult = CUresult::CUDA_ERROR_INVALID_VALUE;
const UNSUPPORTED: CUresult = CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
const ILLEGAL: CUresult = CUresult::CUDA_ERROR_ILLEGAL_ADDRESS;
const GLOBAL: CUstreamCaptureMode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL;
const RELAXED: CUstreamCaptureMode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
const EXTERNAL: u32 = sys::CUevent_record_flags::CU_EVENT_RECORD_EXTERNAL as u32;

/// Calls the driver. Only this file's tests do so, in their own process, and they know what each call may be given.
macro_rules! call {
    // SAFETY: handles are the stand-in's or ones that it must reject; pointers are to live variables, or to live memory of `BYTES`.
    ($call:ident($($argument:expr),* $(,)?)) => { unsafe { sys::$call($($argument),*) } };
}

/// A device, two streams, and a kernel.
struct Kit {
    context: sys::CUcontext,
    stream: sys::CUstream,
    other: sys::CUstream,
    module: sys::CUmodule,
    relu: sys::CUfunction,
}

/// The value that a call writes.
fn made<T>(first: T, call: impl FnOnce(*mut T) -> CUresult) -> T {
    let mut value = first;
    assert_eq!(call(&raw mut value), SUCCESS);
    value
}

impl Kit {
    fn new() -> Self {
        assert_eq!(call!(cuInit(0)), SUCCESS);
        let context = made(null_mut(), |to| call!(cuDevicePrimaryCtxRetain(to, 0)));
        assert_eq!(call!(cuCtxSetCurrent(context)), SUCCESS);
        let stream = || made(null_mut(), |to| call!(cuStreamCreate(to, 1)));
        let text = CString::new(ptx::file_of("relu_f32").unwrap().text(0)).unwrap();
        let load = |to| call!(cuModuleLoadDataEx(to, text.as_ptr().cast(), 0, null_mut(), null_mut()));
        let module = made(null_mut(), load);
        let relu = made(null_mut(), |to| call!(cuModuleGetFunction(to, module, c"relu_f32".as_ptr())));
        Self { context, stream: stream(), other: stream(), module, relu }
    }

    fn memory(&self) -> u64 {
        let _ = self;
        made(0, |to| call!(cuMemAlloc_v2(to, BYTES)))
    }

    fn pinned(&self) -> *mut f32 {
        let _ = self;
        made(null_mut(), |to| call!(cuMemHostAlloc(to, BYTES, 0))).cast()
    }

    fn launch_as(&self, on: sys::CUstream, from: u64, to: u64, grid: u32, block: u32, len: usize) -> CUresult {
        let (mut from, mut to, mut len) = (from, to, len as u32);
        let mut arguments: [*mut c_void; 3] = [(&raw mut from).cast(), (&raw mut to).cast(), (&raw mut len).cast()];
        call!(cuLaunchKernel(self.relu, grid, 1, 1, block, 1, 1, 0, on, arguments.as_mut_ptr(), null_mut()))
    }

    fn launch(&self, on: sys::CUstream, from: u64, to: u64) {
        assert_eq!(self.launch_as(on, from, to, 1, 256, LEN), SUCCESS);
    }

    fn copy_in(&self, to: u64, from: *const f32) -> CUresult {
        call!(cuMemcpyHtoDAsync_v2(to, from.cast(), BYTES, self.stream))
    }

    fn copy_out(&self, to: *mut f32, from: u64) -> CUresult {
        call!(cuMemcpyDtoHAsync_v2(to.cast(), from, BYTES, self.stream))
    }

    fn wait(&self) -> CUresult {
        call!(cuStreamSynchronize(self.stream))
    }

    fn begin(&self, mode: CUstreamCaptureMode) {
        assert_eq!(call!(cuStreamBeginCapture_v2(self.stream, mode)), SUCCESS);
    }

    /// The work captured since `begin`, ready to launch.
    fn end(&self) -> sys::CUgraphExec {
        let graph = made(null_mut(), |to| call!(cuStreamEndCapture(self.stream, to)));
        let ready = made(null_mut(), |to| call!(cuGraphInstantiateWithFlags(to, graph, 0)));
        assert_eq!(call!(cuGraphDestroy(graph)), SUCCESS);
        ready
    }

    /// Ends a capture that was invalidated.
    fn end_broken(&self) {
        let mut graph = null_mut();
        let code = call!(cuStreamEndCapture(self.stream, &raw mut graph));
        assert!(code == CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED && graph.is_null());
    }

    fn close(self) {
        assert_eq!(call!(cuStreamDestroy_v2(self.stream)), SUCCESS);
        assert_eq!(call!(cuStreamDestroy_v2(self.other)), SUCCESS);
        assert_eq!(call!(cuModuleUnload(self.module)), SUCCESS);
        assert_eq!(call!(cuDevicePrimaryCtxRelease_v2(0)), SUCCESS);
    }
}

fn free(memory: &[u64]) {
    memory.iter().for_each(|&at| assert_eq!(call!(cuMemFree_v2(at)), SUCCESS));
}

fn free_pinned(memory: &[*mut f32]) {
    memory.iter().for_each(|&at| assert_eq!(call!(cuMemFreeHost(at.cast())), SUCCESS));
}

/// The numbers in pinned memory, to read or write.
fn numbers<'a>(at: *mut f32) -> &'a mut [f32] {
    // SAFETY: pinned memory of `LEN` numbers, for which all bytes are valid; a test uses one such slice at a time.
    unsafe { std::slice::from_raw_parts_mut(at, LEN) }
}

/// What a reader of the driver's manual would write. The stand-in must not object.
fn sound() {
    let kit = Kit::new();
    let (a, b, c, input, output) = (kit.memory(), kit.memory(), kit.memory(), kit.pinned(), kit.pinned());
    let event = |flags| made(null_mut(), |to| call!(cuEventCreate(to, flags)));
    let (start, end, between) = (event(0), event(0), event(2));
    kit.begin(RELAXED);
    assert_eq!(call!(cuEventRecordWithFlags(start, kit.stream, EXTERNAL)), SUCCESS);
    assert_eq!(kit.copy_in(a, input), SUCCESS);
    kit.launch(kit.stream, a, b);
    let later = kit.memory(); // this mode allows it
    assert_eq!(kit.copy_out(output, b), SUCCESS);
    assert_eq!(call!(cuEventRecordWithFlags(end, kit.stream, EXTERNAL)), SUCCESS);
    let graph = kit.end();
    for value in [3.0, -1.0, 5.0] {
        numbers(input).fill(value);
        assert_eq!(call!(cuGraphLaunch(graph, kit.stream)), SUCCESS);
        // Another stream continues with the result once it is ready.
        assert_eq!(call!(cuEventRecord(between, kit.stream)), SUCCESS);
        assert_eq!(call!(cuStreamWaitEvent(kit.other, between, 0)), SUCCESS);
        kit.launch(kit.other, b, c);
        assert_eq!(call!(cuStreamSynchronize(kit.other)), SUCCESS);
        assert_eq!(kit.wait(), SUCCESS);
        assert!(numbers(output).iter().all(|v| *v == value.max(0.0)));
        assert!(made(-1.0, |to| call!(cuEventElapsedTime(to, start, end))) >= 0.0);
    }
    // Pageable memory may change right after the call, and copies to it have arrived.
    let mut plain = vec![7.0; LEN];
    assert_eq!(kit.copy_in(a, plain.as_ptr()), SUCCESS);
    plain.fill(0.0);
    assert_eq!(kit.copy_out(plain.as_mut_ptr(), a), SUCCESS);
    assert_eq!(plain, [7.0; LEN]);
    assert_eq!(call!(cuGraphExecDestroy(graph)), SUCCESS);
    for event in [start, end, between] {
        assert_eq!(call!(cuEventDestroy_v2(event)), SUCCESS);
    }
    free(&[a, b, c, later]);
    free_pinned(&[input, output]);
    kit.close();
}

/// Pinned memory is read and written when the copy runs; a host that does not wait can observe it.
fn pinned_memory_without_waiting() {
    let kit = Kit::new();
    let (a, input, output) = (kit.memory(), kit.pinned(), kit.pinned());
    numbers(input).fill(1.0);
    assert_eq!(kit.copy_in(a, input), SUCCESS);
    assert_eq!(kit.copy_out(output, a), SUCCESS);
    assert!(numbers(output).iter().all(|v| v.is_nan()), "nothing ran, and new memory is NaN");
    numbers(input).fill(2.0);
    assert_eq!(kit.wait(), SUCCESS);
    assert!(numbers(output).iter().all(|v| *v == 2.0), "it was overwritten too early");
    free(&[a]);
    free_pinned(&[input, output]);
    kit.close();
}

fn unordered_streams() {
    let kit = Kit::new();
    let (a, b, c) = (kit.memory(), kit.memory(), kit.memory());
    kit.launch(kit.stream, a, b);
    kit.launch(kit.other, b, c);
    assert_eq!(kit.wait(), SUCCESS);
    assert_eq!(call!(cuStreamSynchronize(kit.other)), SUCCESS);
    free(&[a, b, c]);
    kit.close();
}

fn memory_freed_too_early() {
    let kit = Kit::new();
    let (a, b) = (kit.memory(), kit.memory());
    kit.launch(kit.stream, a, b);
    free(&[a, b]);
    assert_eq!(kit.wait(), ILLEGAL);
    assert_eq!(call!(cuCtxSetCurrent(kit.context)), ILLEGAL, "every later call fails");
}

fn a_graph_whose_memory_was_freed() {
    let kit = Kit::new();
    let (a, b) = (kit.memory(), kit.memory());
    kit.begin(GLOBAL);
    kit.launch(kit.stream, a, b);
    let graph = kit.end();
    free(&[a]);
    assert_eq!(call!(cuGraphLaunch(graph, kit.stream)), SUCCESS);
    assert_eq!(kit.wait(), ILLEGAL);
}

fn a_kernel_that_writes_out_of_bounds() {
    let kit = Kit::new();
    let (a, b) = (kit.memory(), kit.memory());
    assert_eq!(call!(cuMemcpyHtoDAsync_v2(a, [1.0f32; LEN].as_ptr().cast(), BYTES, kit.stream)), SUCCESS);
    // Reads NaN past the end; the larger of NaN and zero is zero.
    assert_eq!(kit.launch_as(kit.stream, a, b, 1, 256, LEN + 8), SUCCESS);
    assert_eq!(kit.wait(), ILLEGAL);
}

fn invalid_launches() {
    let kit = Kit::new();
    let (a, b) = (kit.memory(), kit.memory());
    for (from, to, grid, block) in
        [(a, b, 0, 256), (a, b, 1, 2048), (a, b, u32::MAX, 256), (a + 4, b, 1, 256), (0, b, 1, 256)]
    {
        assert_eq!(kit.launch_as(kit.stream, from, to, grid, block, LEN), INVALID, "{from} {to} {grid} {block}");
    }
    let gone = kit.memory();
    free(&[gone]);
    assert_eq!(kit.launch_as(kit.stream, gone, b, 1, 256, LEN), INVALID);
    let too_long = call!(cuMemcpyHtoDAsync_v2(a, [0u8; 2 * BYTES].as_ptr().cast(), 2 * BYTES, kit.stream));
    assert_eq!(too_long, INVALID);
    free(&[a, b]);
    kit.close();
}

fn waiting_while_recording() {
    let kit = Kit::new();
    kit.begin(RELAXED);
    assert_eq!(kit.wait(), UNSUPPORTED);
    kit.end_broken();
    kit.close();
}

fn recording_what_is_not_pinned() {
    let kit = Kit::new();
    let a = kit.memory();
    kit.begin(RELAXED);
    assert_eq!(kit.copy_in(a, [0.0; LEN].as_ptr()), UNSUPPORTED);
    kit.end_broken();
    free(&[a]);
    kit.close();
}

fn allocating_while_another_thread_records_for_all() {
    let kit = Kit::new();
    let context = kit.context as usize;
    let allocate = || {
        let other = move || {
            assert_eq!(call!(cuCtxSetCurrent(context as sys::CUcontext)), SUCCESS);
            let mut at = 0;
            let code = call!(cuMemAlloc_v2(&raw mut at, BYTES));
            if code == SUCCESS {
                free(&[at]);
            }
            code
        };
        std::thread::spawn(other).join().unwrap()
    };
    kit.begin(GLOBAL);
    assert_eq!(allocate(), UNSUPPORTED);
    kit.end_broken();
    kit.begin(RELAXED);
    assert_eq!(allocate(), SUCCESS);
    assert_eq!(call!(cuGraphExecDestroy(kit.end())), SUCCESS);
    kit.close();
}

fn times_of_unrecorded_events() {
    let kit = Kit::new();
    let (start, end) =
        (made(null_mut(), |to| call!(cuEventCreate(to, 0))), made(null_mut(), |to| call!(cuEventCreate(to, 0))));
    let mut time = 0.0;
    let mut between = || call!(cuEventElapsedTime(&raw mut time, start, end));
    assert_eq!(between(), CUresult::CUDA_ERROR_INVALID_HANDLE, "the event was never recorded");
    assert_eq!(call!(cuEventRecord(start, kit.stream)), SUCCESS);
    assert_eq!(call!(cuEventRecord(end, kit.stream)), SUCCESS);
    assert_eq!(between(), CUresult::CUDA_ERROR_NOT_READY);
    assert_eq!(kit.wait(), SUCCESS);
    assert_eq!(between(), SUCCESS);
}

fn invalid_ptx() {
    let kit = Kit::new();
    let load = |text: &str| {
        let (text, mut module) = (CString::new(text).unwrap(), null_mut());
        call!(cuModuleLoadDataEx(&raw mut module, text.as_ptr().cast(), 0, null_mut(), null_mut()))
    };
    let text = ptx::file_of("relu_f32").unwrap().text(0);
    assert_eq!(load(&text.replace(".version 8.2", ".version 8.3")), CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
    assert_eq!(load(&text.replace(".target sm_75", ".target sm_100")), CUresult::CUDA_ERROR_INVALID_PTX);
    assert_eq!(load("no PTX"), CUresult::CUDA_ERROR_INVALID_PTX);
    let mut entry = null_mut();
    let missing = call!(cuModuleGetFunction(&raw mut entry, kit.module, c"relu".as_ptr()));
    assert_eq!(missing, CUresult::CUDA_ERROR_NOT_FOUND);
    kit.close();
}

fn leaked_memory() {
    let kit = Kit::new();
    let _ = (kit.memory(), kit.pinned());
}

fn releasing_the_device_with_memory() {
    let kit = Kit::new();
    kit.memory();
    kit.close();
}

fn a_thread_without_a_context() {
    let mut at = 0;
    assert_eq!(call!(cuMemAlloc_v2(&raw mut at, 1)), CUresult::CUDA_ERROR_NOT_INITIALIZED);
    assert_eq!(call!(cuInit(0)), SUCCESS);
    assert_eq!(call!(cuMemAlloc_v2(&raw mut at, 1)), CUresult::CUDA_ERROR_INVALID_CONTEXT);
}

/// Runs itself as a child process with the stand-in, once for each case.
#[test]
fn misuse_is_noticed() {
    const SELF: &str = "gpu::cuda::stand_in::tests::misuse_is_noticed";
    // Name, misuse, and the stand-in's complaint; empty if it must not complain.
    let cases: [(&str, fn(), &str); 15] = [
        ("sound", sound, ""),
        ("pinned", pinned_memory_without_waiting, ""),
        ("order", unordered_streams, "nothing says which comes first"),
        ("early", memory_freed_too_early, "nobody waited for `relu_f32`"),
        ("graph", a_graph_whose_memory_was_freed, "uses memory that was given back"),
        ("stray", a_kernel_that_writes_out_of_bounds, "wrote beside its memory"),
        ("launch", invalid_launches, "no memory of this device"),
        ("wait", waiting_while_recording, ""),
        ("pageable", recording_what_is_not_pinned, ""),
        ("threads", allocating_while_another_thread_records_for_all, ""),
        ("times", times_of_unrecorded_events, "it was not recorded"),
        ("ptx", invalid_ptx, ""),
        ("leak", leaked_memory, "leaked: 1 pieces of pinned memory, 256 bytes"),
        ("release", releasing_the_device_with_memory, "leaked: 1 pieces of device memory, 256 bytes"),
        ("context", a_thread_without_a_context, "the thread has no context"),
    ];
    if let Ok(name) = std::env::var("RTFORMER_TEST_CASE") {
        return cases.iter().find(|case| case.0 == name).expect("the case exists").1();
    }
    let Some(folder) = Emulated::driver() else { return };
    for (name, _, says) in cases {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", SELF])
            .env("RTFORMER_TEST_CASE", name)
            .env("LD_LIBRARY_PATH", &folder)
            .env("RTFORMER_STAND_IN", "order=late")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (said, objections) = (text(&output.stdout), text(&output.stderr));
        assert!(said.contains("1 passed"), "{name}: {said}{objections}");
        let code = output.status.code();
        assert_eq!(code, Some(if says.is_empty() { 0 } else { 70 }), "{name}: {said}{objections}");
        assert!(objections.contains(says), "{name}: {said}{objections}");
    }
}
