//! Host code written for a GPU, with cudarc, on the simulator's `libcuda.so.1`.
//!
//! Every test runs in a process of its own (see `simulator`). What is tested here is the driver's
//! side: results, error codes, sticky faults. Streams and graphs have `graph.rs`.

#![allow(unsafe_code)]

#[path = "../examples/cudarc_vector_add.rs"]
mod cudarc_vector_add;
mod simulator;

use std::sync::Arc;

use cudarc::driver::sys::{CUdevice_attribute, CUfunction_attribute, CUresult};
use cudarc::driver::{CudaContext, CudaFunction, DriverError, LaunchConfig, PushKernelArg, sys};
use cudarc::nvrtc::Ptx;
use simulator::on_simulator;

/// `out[i] = a[i] + b[i]` for `i < n`, `scale(x, n)`: `x[i] *= 2` without a bound, `staged(x)`: one
/// block reverses 32 numbers through dynamic shared memory.
const KERNELS: &str = include_str!("kernels.ptx");

fn function(context: &Arc<CudaContext>, name: &str) -> CudaFunction {
    let module = context.load_module(Ptx::from_src(KERNELS)).expect("the PTX is sound");
    module.load_function(name).expect("the module has the kernel")
}

fn code<T>(result: Result<T, DriverError>) -> CUresult {
    result.err().map_or(CUresult::CUDA_SUCCESS, |error| error.0)
}

fn blocks_of_32(blocks: u32, shared_mem_bytes: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (32, 1, 1), shared_mem_bytes }
}

#[test]
fn the_example_adds_its_vectors() {
    let printed = on_simulator("the_example_adds_its_vectors", &[], || {
        cudarc_vector_add::main().expect("a good program");
    });
    if let Some(printed) = printed {
        assert!(printed.contains("[0.5, 1.5, 2.5] ... [997.5, 998.5, 999.5]"), "{printed}");
    }
}

#[test]
fn a_device_says_what_it_is() {
    on_simulator("a_device_says_what_it_is", &[("PTXSIM_DEVICES", "2")], || {
        assert_eq!(CudaContext::device_count().expect("the library is there"), 2);
        let context = CudaContext::new(1).expect("device 1 of 2");
        assert_eq!(context.name().expect("a name"), "PTX simulator (sm_80)");
        assert_eq!(context.compute_capability().expect("a capability"), (8, 0));
        let attribute = |which| context.attribute(which).expect("an attribute");
        use CUdevice_attribute::*;
        assert_eq!(attribute(CU_DEVICE_ATTRIBUTE_WARP_SIZE), 32);
        assert_eq!(attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK), 1024);
        assert_eq!(attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK), 49152);
        assert_eq!(attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN), 166_912);
        assert_ne!(
            context.uuid().expect("a uuid").bytes,
            CudaContext::new(0).expect("device 0").uuid().expect("a uuid").bytes
        );
        assert_eq!(code(CudaContext::new(2)), CUresult::CUDA_ERROR_INVALID_DEVICE);
        assert_eq!(code(CudaContext::new(usize::MAX)), CUresult::CUDA_ERROR_INVALID_DEVICE);
    });
}

#[test]
fn a_newer_architecture_can_be_asked_for() {
    on_simulator("a_newer_architecture_can_be_asked_for", &[("PTXSIM_ARCH", "90")], || {
        let context = CudaContext::new(0).expect("a device");
        assert_eq!(context.compute_capability().expect("a capability"), (9, 0));
        assert_eq!(context.name().expect("a name"), "PTX simulator (sm_90)");
    });
}

#[test]
fn no_device_is_a_clean_error() {
    on_simulator("no_device_is_a_clean_error", &[("PTXSIM_DEVICES", "0")], || {
        assert_eq!(code(CudaContext::new(0)), CUresult::CUDA_ERROR_NO_DEVICE);
    });
}

#[test]
fn an_environment_that_means_nothing_is_a_clean_error() {
    let name = "an_environment_that_means_nothing_is_a_clean_error";
    let printed = on_simulator(name, &[("PTXSIM_ASYNC", "sometimes")], || {
        assert_eq!(code(CudaContext::new(0)), CUresult::CUDA_ERROR_INVALID_VALUE);
    });
    if let Some(printed) = printed {
        assert!(printed.contains("PTXSIM_ASYNC is \"sometimes\""), "{printed}");
    }
}

#[test]
fn vectors_are_added_on_several_streams_and_threads() {
    on_simulator("vectors_are_added_on_several_streams_and_threads", &[], || {
        let context = CudaContext::new(0).expect("a device");
        let add = function(&context, "add");
        std::thread::scope(|scope| {
            for offset in 0..4 {
                let (context, add) = (&context, &add);
                scope.spawn(move || {
                    let stream = context.new_stream().expect("a stream");
                    let n = 70u32;
                    let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
                    let b: Vec<f32> = (0..n).map(|i| (1000 * i + offset) as f32).collect();
                    let on_device = [&a, &b].map(|x| stream.clone_htod(x).expect("a copy"));
                    let mut out = stream.alloc_zeros::<f32>(n as usize).expect("memory");
                    let mut launch = stream.launch_builder(add);
                    launch.arg(&mut out).arg(&on_device[0]).arg(&on_device[1]).arg(&n);
                    // SAFETY: the arguments are those of `add`, and all vectors have n elements.
                    unsafe { launch.launch(blocks_of_32(3, 0)) }.expect("the kernel is sound");
                    let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
                    assert_eq!(stream.clone_dtoh(&out).expect("a copy"), expected);
                });
            }
        });
    });
}

#[test]
fn copies_and_fills_reach_the_bytes_they_name() {
    on_simulator("copies_and_fills_reach_the_bytes_they_name", &[], || {
        let context = CudaContext::new(0).expect("a device");
        let stream = context.default_stream();
        let (free, total) = context.mem_get_info().expect("numbers");
        let mut x = stream.clone_htod(&[1u32, 2, 3, 4, 5, 6, 7, 8]).expect("a copy");
        assert_eq!(context.mem_get_info().expect("numbers"), (free - 32, total));
        let tail = stream.clone_dtod(&x.slice(5..)).expect("a copy");
        assert_eq!(stream.clone_dtoh(&tail).expect("a copy"), [6, 7, 8]);
        stream.memset_zeros(&mut x.slice_mut(1..3)).expect("a fill");
        stream.memcpy_htod(&[9], &mut x.slice_mut(7..)).expect("a copy");
        assert_eq!(stream.clone_dtoh(&x).expect("a copy"), [1, 0, 0, 4, 5, 6, 7, 9]);
        let mut pinned = unsafe_pinned(&context);
        pinned.as_mut_slice().expect("the stream is done").copy_from_slice(&[7.0; 4]);
        let copied = stream.clone_htod(&pinned).expect("a copy");
        assert_eq!(stream.clone_dtoh(&copied).expect("a copy"), [7.0; 4]);
        drop((x, tail, copied));
        assert_eq!(context.mem_get_info().expect("numbers"), (free, total));
        let too_much = stream.alloc_zeros::<u8>(total + 1);
        assert_eq!(code(too_much), CUresult::CUDA_ERROR_OUT_OF_MEMORY);
    });
}

/// Four numbers of page-locked memory.
fn unsafe_pinned(context: &Arc<CudaContext>) -> cudarc::driver::PinnedHostSlice<f32> {
    // SAFETY: the caller writes all four before anything reads them.
    unsafe { context.alloc_pinned::<f32>(4) }.expect("host memory")
}

#[test]
fn an_undersized_buffer_is_an_illegal_address_and_stays_one() {
    let name = "an_undersized_buffer_is_an_illegal_address_and_stays_one";
    let printed = on_simulator(name, &[], || {
        let context = CudaContext::new(0).expect("a device");
        let stream = context.default_stream();
        let scale = function(&context, "scale");
        let short = stream.clone_htod(&[1.0f32; 31]).expect("a copy");
        let mut launch = stream.launch_builder(&scale);
        launch.arg(&short);
        // SAFETY: undefined on hardware, which is the point; the simulator refuses the access.
        let result = unsafe { launch.launch(blocks_of_32(1, 0)) };
        let illegal = CUresult::CUDA_ERROR_ILLEGAL_ADDRESS;
        assert_eq!(code(result.map(|_| ())), illegal);
        assert_eq!(code(stream.synchronize()), illegal);
        assert_eq!(code(stream.clone_dtoh(&short)), illegal);
        assert_eq!(code(stream.alloc_zeros::<f32>(1)), illegal);
        assert_eq!(code(context.new_event(None)), illegal);
        drop((short, scale, stream));
        drop(context);
        let context = CudaContext::new(0).expect("a new context forgets the old one's fault");
        let stream = context.default_stream();
        assert_eq!(stream.clone_htod(&[1, 2]).and_then(|x| stream.clone_dtoh(&x)), Ok(vec![1, 2]));
    });
    if let Some(printed) = printed {
        for part in ["CUDA_ERROR_ILLEGAL_ADDRESS", "`scale`", "PTX line", "thread (31, 0, 0)", "0x"]
        {
            assert!(printed.contains(part), "no {part} in {printed}");
        }
    }
}

#[test]
fn dynamic_shared_memory_past_48_kib_has_to_be_asked_for() {
    on_simulator("dynamic_shared_memory_past_48_kib_has_to_be_asked_for", &[], || {
        let context = CudaContext::new(0).expect("a device");
        let stream = context.default_stream();
        let staged = function(&context, "staged");
        let x: Vec<f32> = (0..32).map(|i| i as f32).collect();
        let mut on_device = stream.clone_htod(&x).expect("a copy");
        let mut run = |bytes| {
            let mut launch = stream.launch_builder(&staged);
            launch.arg(&mut on_device);
            // SAFETY: the argument is that of `staged`, 32 elements, and it uses 128 bytes.
            code(unsafe { launch.launch(blocks_of_32(1, bytes)) }.map(|_| ()))
        };
        const MOST: CUfunction_attribute =
            CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        assert_eq!(run(48 << 10), CUresult::CUDA_SUCCESS);
        assert_eq!(run((48 << 10) + 1), CUresult::CUDA_ERROR_INVALID_VALUE);
        staged.set_attribute(MOST, 100 << 10).expect("100 KiB fit");
        assert_eq!(run(100 << 10), CUresult::CUDA_SUCCESS);
        assert_eq!(code(staged.set_attribute(MOST, 164 << 10)), CUresult::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(run((100 << 10) + 1), CUresult::CUDA_ERROR_INVALID_VALUE);
        // Two launches succeeded, so the numbers were reversed twice.
        assert_eq!(stream.clone_dtoh(&on_device).expect("a copy"), x);
    });
}

#[test]
fn a_launch_over_a_limit_is_refused() {
    on_simulator("a_launch_over_a_limit_is_refused", &[], || {
        let context = CudaContext::new(0).expect("a device");
        let stream = context.default_stream();
        let scale = function(&context, "scale");
        let mut x = stream.alloc_zeros::<f32>(32).expect("memory");
        let mut run = |grid, block| {
            let mut launch = stream.launch_builder(&scale);
            launch.arg(&mut x);
            let config = LaunchConfig { grid_dim: grid, block_dim: block, shared_mem_bytes: 0 };
            // SAFETY: the argument is that of `scale`; what would pass its end is refused before.
            code(unsafe { launch.launch(config) }.map(|_| ()))
        };
        let invalid = CUresult::CUDA_ERROR_INVALID_VALUE;
        assert_eq!(run((0, 1, 1), (32, 1, 1)), invalid);
        assert_eq!(run((1, 1, 1), (0, 1, 1)), invalid);
        assert_eq!(run((1, 65536, 1), (1, 1, 1)), invalid);
        assert_eq!(run((1, 1, 1), (1025, 1, 1)), invalid);
        assert_eq!(run((1, 1, 1), (32, 33, 1)), invalid);
        assert_eq!(run((1, 1, 1), (1, 1, 65)), invalid);
        assert_eq!(run((1, 1, 1), (32, 1, 1)), CUresult::CUDA_SUCCESS);
    });
}

#[test]
fn modules_that_cannot_run_are_refused_by_name() {
    let printed = on_simulator("modules_that_cannot_run_are_refused_by_name", &[], || {
        let context = CudaContext::new(0).expect("a device");
        let module = context.load_module(Ptx::from_src(KERNELS)).expect("the PTX is sound");
        assert_eq!(code(module.load_function("subtract")), CUresult::CUDA_ERROR_NOT_FOUND);
        let odd = KERNELS.replace("add.rn.f32", "frobnicate.rn.f32");
        // What is not known concerns the entry that has it, when it is launched.
        let odd = context.load_module(Ptx::from_src(odd)).expect("other entries are sound");
        let add = odd.load_function("add").expect("the entry is there");
        let scale = odd.load_function("scale").expect("the entry is there");
        let stream = context.default_stream();
        let mut x = stream.alloc_zeros::<f32>(32).expect("memory");
        let (y, n) = (stream.alloc_zeros::<f32>(32).expect("memory"), 32u32);
        let mut launch = stream.launch_builder(&add);
        launch.arg(&mut x).arg(&y).arg(&y).arg(&n);
        // SAFETY: the arguments are those of `add`, with an element for each thread.
        let refused = code(unsafe { launch.launch(blocks_of_32(1, 0)) }.map(|_| ()));
        assert_eq!(refused, CUresult::CUDA_ERROR_NOT_SUPPORTED);
        let mut launch = stream.launch_builder(&scale);
        launch.arg(&mut x);
        // SAFETY: the argument is that of `scale`, with an element for each thread.
        unsafe { launch.launch(blocks_of_32(1, 0)) }.expect("the context is usable");
        for (from, to, expected) in [
            (".version 8.0", ".version 99.9", CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION),
            (".target sm_80", ".target sm_900", CUresult::CUDA_ERROR_INVALID_PTX),
            (".target sm_80", ".target sm_90", CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU),
        ] {
            let text = KERNELS.replace(from, to);
            assert_ne!(text, KERNELS);
            assert_eq!(code(context.load_module(Ptx::from_src(text))), expected, "{to}");
        }
        let machine_code = Ptx::from_binary(b"\x7fELF\x02\x01\x01\0and so on".to_vec());
        let refused = code(context.load_module(machine_code));
        assert_eq!(refused, CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU);
    });
    if let Some(printed) = printed {
        assert!(printed.contains("frobnicate.rn.f32"), "{printed}");
        assert!(printed.contains("the module has: add, scale, staged"), "{printed}");
    }
}

#[test]
fn wrong_pointers_and_handles_are_errors_not_crashes() {
    on_simulator("wrong_pointers_and_handles_are_errors_not_crashes", &[], || {
        let (null, invalid) = (std::ptr::null_mut(), CUresult::CUDA_ERROR_INVALID_VALUE);
        let mut context = null;
        // SAFETY: no pointer but null and places of this function is passed; handles are not
        // pointers to this library.
        unsafe {
            let early = sys::cuCtxGetCurrent(&mut context);
            assert_eq!(early, CUresult::CUDA_ERROR_NOT_INITIALIZED);
            let _context = CudaContext::new(0).expect("a device");
            assert_eq!(sys::cuDeviceGetCount(null.cast()), invalid);
            assert_eq!(sys::cuMemAlloc_v2(null.cast(), 16), invalid);
            let mut address = 0;
            assert_eq!(sys::cuMemAlloc_v2(&mut address, 0), invalid);
            assert_eq!(sys::cuMemAlloc_v2(&mut address, 16), CUresult::CUDA_SUCCESS);
            let data = [0u8; 17];
            let source = data.as_ptr().cast();
            assert_eq!(sys::cuMemcpyHtoD_v2(address, source, 17), invalid);
            assert_eq!(sys::cuMemcpyHtoD_v2(address + 1, source, 16), invalid);
            assert_eq!(sys::cuMemcpyHtoD_v2(address - 1, source, 1), invalid);
            assert_eq!(sys::cuMemcpyHtoD_v2(address, source, 16), CUresult::CUDA_SUCCESS);
            assert_eq!(sys::cuMemcpyHtoD_v2(address, null.cast(), 16), invalid);
            assert_eq!(sys::cuMemcpyDtoH_v2(null.cast(), address, usize::MAX), invalid);
            assert_eq!(sys::cuMemcpyDtoD_v2(address, address, usize::MAX), invalid);
            assert_eq!(sys::cuMemsetD32_v2(address, 1, 5), invalid);
            assert_eq!(sys::cuMemsetD32_v2(address, 1, usize::MAX / 2), invalid);
            assert_eq!(sys::cuMemFree_v2(address + 4), invalid);
            assert_eq!(sys::cuMemFree_v2(address), CUresult::CUDA_SUCCESS);
            assert_eq!(sys::cuMemFree_v2(address), invalid);
            let handle = CUresult::CUDA_ERROR_INVALID_HANDLE;
            let nonsense: *mut std::ffi::c_void = std::ptr::without_provenance_mut(0x1234);
            assert_eq!(sys::cuStreamSynchronize(nonsense.cast()), handle);
            assert_eq!(sys::cuEventDestroy_v2(nonsense.cast()), handle);
            assert_eq!(sys::cuModuleUnload(nonsense.cast()), handle);
            assert_eq!(sys::cuGraphLaunch(nonsense.cast(), null.cast()), handle);
            let nothing = sys::cuLaunchKernel(
                nonsense.cast(),
                1,
                1,
                1,
                1,
                1,
                1,
                0,
                null.cast(),
                null.cast(),
                null.cast(),
            );
            assert_eq!(nothing, handle);
            let mut module = null.cast();
            assert_eq!(sys::cuModuleLoadData(&mut module, null.cast()), invalid);
            let ptx = std::ffi::CString::new(KERNELS).expect("text");
            let loaded = sys::cuModuleLoadData(&mut module, ptx.as_ptr().cast());
            assert_eq!(loaded, CUresult::CUDA_SUCCESS);
            let mut add = null.cast();
            let found = sys::cuModuleGetFunction(&mut add, module, c"add".as_ptr());
            assert_eq!(found, CUresult::CUDA_SUCCESS);
            let no_arguments = sys::cuLaunchKernel(
                add,
                1,
                1,
                1,
                1,
                1,
                1,
                0,
                null.cast(),
                null.cast(),
                null.cast(),
            );
            assert_eq!(no_arguments, invalid);
            assert_eq!(sys::cuModuleUnload(module), CUresult::CUDA_SUCCESS);
            let unloaded = sys::cuLaunchKernel(
                add,
                1,
                1,
                1,
                1,
                1,
                1,
                0,
                null.cast(),
                null.cast(),
                null.cast(),
            );
            assert_eq!(unloaded, handle);
        }
    });
}

#[test]
fn every_launch_is_reported_in_one_line() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("launches.jsonl");
    if std::env::var_os("PTXSIM_TEST_CHILD").is_none() {
        let _ = std::fs::remove_file(&file);
    }
    let variables = [("PTXSIM_REPORT", file.to_str().expect("a path of text"))];
    let body = || {
        let context = CudaContext::new(0).expect("a device");
        let stream = context.default_stream();
        let scale = function(&context, "scale");
        let mut x = stream.alloc_zeros::<f32>(64).expect("memory");
        for _ in 0..3 {
            let mut launch = stream.launch_builder(&scale);
            launch.arg(&mut x);
            // SAFETY: the argument is that of `scale`, with an element for each thread.
            unsafe { launch.launch(blocks_of_32(2, 0)) }.expect("the kernel is sound");
        }
    };
    let name = "every_launch_is_reported_in_one_line";
    std::thread::scope(|scope| {
        scope.spawn(|| on_simulator(name, &variables, body));
        scope.spawn(|| on_simulator(name, &variables, body));
    });
    if std::env::var_os("PTXSIM_TEST_CHILD").is_none() {
        let text = std::fs::read_to_string(&file).expect("the report is written");
        // Both processes run the body in two threads, as this one does.
        assert_eq!(text.lines().count(), 12, "{text}");
        for line in text.lines() {
            let start = r#"{"kernel":"scale","grid":[2,1,1],"block":[32,1,1],"shared_bytes":0,"#;
            assert!(line.starts_with(start) && line.ends_with("}}"), "{line}");
            let occupancy = r#""occupancy":{"blocks":32,"warps":32,"max_warps":64,"share":0.5000,"#;
            assert!(line.contains(occupancy) && line.contains(r#""limit":"blocks""#), "{line}");
        }
    }
}
