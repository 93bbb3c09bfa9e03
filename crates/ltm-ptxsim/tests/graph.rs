//! Streams, events, capture and replay with cudarc on the simulator's `libcuda.so.1`.
//!
//! Every test runs in a process of its own (see `simulator`).

#![allow(unsafe_code)]

mod simulator;

use std::sync::Arc;

use cudarc::driver::sys::{CUevent_flags, CUgraphInstantiate_flags, CUresult, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaStream, DriverError, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use simulator::on_simulator;

const MODE: CUstreamCaptureMode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
const FLAGS: CUgraphInstantiate_flags =
    CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;

fn code<T>(result: Result<T, DriverError>) -> CUresult {
    result.err().map_or(CUresult::CUDA_SUCCESS, |error| error.0)
}

/// A context that records no events of its own, and a stream that can capture.
fn device() -> (Arc<CudaContext>, Arc<CudaStream>) {
    let context = CudaContext::new(0).expect("a device");
    // SAFETY: each test orders its own work.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream().expect("a stream");
    (context, stream)
}

#[test]
fn a_replay_reads_what_the_buffers_hold_then() {
    on_simulator("a_replay_reads_what_the_buffers_hold_then", &[], || {
        let (context, stream) = device();
        let module = context.load_module(Ptx::from_src(include_str!("kernels.ptx")));
        let scale = module.and_then(|module| module.load_function("scale")).expect("a kernel");
        let mut x = stream.alloc_zeros::<f32>(32).expect("memory");
        let mut copy = stream.alloc_zeros::<f32>(32).expect("memory");
        stream.begin_capture(MODE).expect("a capture");
        let config =
            LaunchConfig { grid_dim: (1, 1, 1), block_dim: (32, 1, 1), shared_mem_bytes: 0 };
        let mut launch = stream.launch_builder(&scale);
        launch.arg(&mut x);
        // SAFETY: the argument is that of `scale`, with an element for each thread.
        unsafe { launch.launch(config) }.expect("captured");
        stream.memcpy_dtod(&x, &mut copy).expect("captured");
        let graph = stream.end_capture(FLAGS).expect("a sound capture").expect("a graph");
        assert_eq!(stream.clone_dtoh(&copy).expect("a copy"), [0.0; 32], "nothing ran yet");
        for value in [1.0, 5.0] {
            stream.memcpy_htod(&[value; 32], &mut x).expect("a copy");
            graph.launch().expect("a replay");
            graph.launch().expect("a replay");
            assert_eq!(stream.clone_dtoh(&copy).expect("a copy"), [4.0 * value; 32]);
        }
    });
}

#[test]
fn what_a_capture_forbids_invalidates_it() {
    on_simulator("what_a_capture_forbids_invalidates_it", &[], || {
        let (context, stream) = device();
        let event = stream.record_event(None).expect("an event");
        type Call<'a> = (&'a str, Box<dyn Fn() -> CUresult + 'a>);
        let calls: [Call; 4] = [
            ("synchronize", Box::new(|| code(stream.synchronize()))),
            ("context", Box::new(|| code(context.synchronize()))),
            ("allocate", Box::new(|| code(stream.alloc_zeros::<f32>(4).map(std::mem::forget)))),
            ("query", Box::new(|| code(event.try_is_complete()))),
        ];
        for (what, call) in calls {
            stream.begin_capture(MODE).expect("a capture");
            assert_eq!(call(), CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "{what}");
            let ended = stream.end_capture(FLAGS).map(|_| ());
            assert_eq!(code(ended), CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "{what}");
            assert_eq!(call(), CUresult::CUDA_SUCCESS, "{what} after the capture");
        }
        let ended = stream.end_capture(FLAGS).map(|_| ());
        assert_eq!(code(ended), CUresult::CUDA_ERROR_ILLEGAL_STATE);
        let legacy = context.default_stream().begin_capture(MODE);
        assert_eq!(code(legacy), CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    });
}

#[test]
fn a_forked_stream_has_to_be_joined() {
    on_simulator("a_forked_stream_has_to_be_joined", &[], || {
        let (context, stream) = device();
        let other = context.new_stream().expect("a stream");
        let mut x = stream.alloc_zeros::<u8>(4).expect("memory");
        for joined in [true, false] {
            stream.begin_capture(MODE).expect("a capture");
            other.join(&stream).expect("a fork");
            other.memset_zeros(&mut x).expect("captured");
            if joined {
                stream.join(&other).expect("a join");
            }
            let ended = code(stream.end_capture(FLAGS).map(|_| ()));
            let unjoined = CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
            assert_eq!(ended, if joined { CUresult::CUDA_SUCCESS } else { unjoined });
        }
    });
}

#[test]
fn events_tell_the_time_between_them() {
    on_simulator("events_tell_the_time_between_them", &[], || {
        let (_context, stream) = device();
        let timed = Some(CUevent_flags::CU_EVENT_DEFAULT);
        let start = stream.record_event(timed).expect("an event");
        std::thread::sleep(std::time::Duration::from_millis(3));
        let end = stream.record_event(timed).expect("an event");
        assert!(end.is_complete());
        let ms = start.elapsed_ms(&end).expect("a time");
        assert!((3.0..10_000.0).contains(&ms), "{ms}");
        let untimed = stream.record_event(None).expect("an event");
        assert_eq!(code(start.elapsed_ms(&untimed)), CUresult::CUDA_ERROR_INVALID_HANDLE);
    });
}
