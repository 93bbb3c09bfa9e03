//! The device itself: memory, capture, and the errors when something is missing.

use std::path::Path;
use std::process::Command;

use ltm_kernels::cuda::Recording;
use ltm_kernels::ops::elementwise::{add_assign, fill};
use ltm_kernels::registry::{self, HEADERS};
use ltm_kernels::{Buffer, DType, Device, Error};
use sha2::{Digest, Sha256};

use crate::harness::{device, upload, upload_i32};

#[test]
fn what_is_written_comes_back() {
    let Some(device) = device() else { return };
    let x = [1.5, -2.0, f64::from(f32::MIN_POSITIVE), 3.0];
    for dtype in [DType::F32, DType::BF16] {
        let buffer = upload(&device, dtype, &x);
        assert_eq!(buffer.to_f64().unwrap(), x, "{dtype}");
        let mut part = Buffer::zeros(&device, dtype, 6).unwrap();
        part.copy_range(1, &buffer, 2, 2).unwrap();
        assert_eq!(part.to_f64().unwrap(), [0.0, x[2], x[3], 0.0, 0.0, 0.0], "{dtype}");
        assert_eq!(buffer.try_clone().unwrap().to_f64().unwrap(), x, "{dtype}");
    }
    assert_eq!(upload_i32(&device, &[-1, 7]).to_i32().unwrap(), [-1, 7]);
}

#[test]
fn mistakes_are_refused() {
    let Some(device) = device() else { return };
    let mut buffer = upload(&device, DType::F32, &[1.0, 2.0]);
    assert!(matches!(buffer.write_f32(&[1.0]), Err(Error::Shape { .. })));
    assert!(matches!(buffer.as_slice::<f32>(), Err(Error::WrongDevice { .. })));
    let host = Buffer::from_vec(vec![1f32; 2]);
    assert!(matches!(buffer.copy_from(&host), Err(Error::WrongDevice { .. })));
    assert!(matches!(buffer.copy_range(1, &host, 0, 2), Err(Error::Shape { .. })));
    assert!(matches!(Buffer::zeros(&device, DType::F64, 1), Err(Error::DType { .. })));
    let huge = Buffer::zeros(&device, DType::F32, 1 << 44);
    assert!(matches!(huge, Err(Error::OutOfMemory { .. })), "{huge:?}");
    assert!(matches!("cuda:99".parse::<Device>(), Err(Error::NoDevice { .. })));
}

#[test]
fn a_recording_owns_its_memory() {
    let Some(device) = device() else { return };
    let Device::Cuda(context) = device else { panic!("{device} is not CUDA") };
    let x = upload(&device, DType::F32, &[1.0, 2.0, 3.0]);
    let mut y = upload(&device, DType::F32, &[10.0; 3]);
    // Compiled before the recording.
    add_assign(&device, &mut y, &x).unwrap();
    let recording = Recording::capture(context, || add_assign(&device, &mut y, &x)).unwrap();
    assert_eq!(y.to_f64().unwrap(), [11.0, 12.0, 13.0], "a recording runs nothing");
    drop(x);
    // Buffers of the same size would be given the memory of `x` if it were free.
    let others: Vec<_> = (0..4).map(|_| upload(&device, DType::F32, &[100.0; 3])).collect();
    recording.replay().unwrap();
    assert_eq!(y.to_f64().unwrap(), [12.0, 14.0, 16.0]);
    drop((recording, others));
}

#[test]
fn what_cannot_be_recorded_is_refused_and_the_device_goes_on() {
    let Some(device) = device() else { return };
    let Device::Cuda(context) = device else { panic!("{device} is not CUDA") };
    let x = upload(&device, DType::F32, &[1.0, 2.0]);
    let mut y = upload(&device, DType::F32, &[10.0, 20.0]);
    add_assign(&device, &mut y, &x).unwrap();
    // A replay would read host memory that is gone, or write to it.
    let written = Recording::capture(context, || y.write_f32(&[0.0, 0.0]));
    assert!(matches!(written, Err(Error::Cuda { .. })), "{written:?}");
    let read = Recording::capture(context, || y.to_f32().map(drop));
    assert!(matches!(read, Err(Error::Cuda { .. })), "{read:?}");
    let mut nested = || Recording::capture(context, || add_assign(&device, &mut y, &x)).map(drop);
    let nested = Recording::capture(context, &mut nested);
    assert!(matches!(nested, Err(Error::Cuda { .. })), "{nested:?}");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        Recording::capture(context, || -> Result<(), Error> { panic!("in the recorded work") })
    }));
    assert!(panicked.is_err());
    add_assign(&device, &mut y, &x).unwrap();
    assert_eq!(y.to_f64().unwrap(), [12.0, 24.0]);
    let recording = Recording::capture(context, || add_assign(&device, &mut y, &x)).unwrap();
    recording.replay().unwrap();
    assert_eq!(y.to_f64().unwrap(), [13.0, 26.0]);
}

/// The output of a separate process that tries to open `cuda:0` in another environment.
fn words(set: &[(&str, &str)]) -> String {
    let test = ["--exact", "device::says_what_is_missing", "--nocapture"];
    let mut command = Command::new(std::env::current_exe().expect("a test has a path"));
    command.args(test).env("LTM_DEVICE_TRIAL", "1").envs(set.iter().copied());
    let output = command.output().expect("the test starts itself");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn kernels_are_read_from_a_folder() {
    if device().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let write = |file: &str, text: &str| {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("writable");
        std::fs::write(path, text).expect("writable");
    };
    HEADERS.iter().for_each(|(file, text)| write(file, text));
    let file = "elementwise/fwd_v2_vec8.cu";
    let text = registry::file(file).expect("a file of the table").text;
    write(file, text);
    let named = folder.path().to_str().expect("a temporary folder has a plain name");
    let filled = || words(&[("LTM_KERNELS_DIR", named)]);
    assert!(filled().contains("filled with [1.0, 1.0, 1.0, 1.0]"));
    // An edit is seen by the next process, though its text alone tells it from the cached one.
    let edited = text.replace("from_f32<float>(value)", "from_f32<float>(value + 41.f)");
    assert_ne!(text, edited);
    write(file, &edited);
    assert!(filled().contains("filled with [42.0, 42.0, 42.0, 42.0]"), "{}", filled());
    std::fs::remove_file(folder.path().join(file)).expect("written above");
    let refused = filled();
    assert!(refused.contains("LTM_KERNELS_DIR") && refused.contains(file), "{refused}");
}

#[test]
fn says_what_is_missing() {
    if std::env::var_os("LTM_DEVICE_TRIAL").is_some() {
        let filled = Device::cuda(0).and_then(|device| {
            let mut x = Buffer::zeros(&device, DType::F32, 4)?;
            println!("opened {device}");
            fill(&device, &mut x, 1.0)?;
            x.to_f32()
        });
        match filled {
            Ok(x) => println!("filled with {x:?}"),
            Err(error) => println!("refused: {error}"),
        }
        return;
    }
    let without_driver = words(&[("LD_LIBRARY_PATH", "/nowhere")]);
    let here = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    let expected = "refused: device `cuda:0`: no CUDA driver (libcuda.so.1) was found";
    // On a machine with a driver of its own the loader finds that one.
    assert!(
        without_driver.contains(expected) || without_driver.contains("opened cuda:0"),
        "{without_driver}"
    );
    if device().is_none() {
        return;
    }
    let without_device = words(&[("PTXSIM_DEVICES", "0"), ("CUDA_VISIBLE_DEVICES", "")]);
    assert!(
        without_device.contains("refused: device `cuda:0`: the CUDA driver"),
        "{without_device}"
    );
    let with_both = words(&[("LD_LIBRARY_PATH", &here)]);
    assert!(with_both.contains("opened cuda:0") && with_both.contains("filled"), "{with_both}");
    let has_driver = |folder: &&str| Path::new(folder).join("libcuda.so.1").exists();
    let driver_alone: Vec<_> = here.split(':').filter(has_driver).collect();
    let without_nvrtc = words(&[("LD_LIBRARY_PATH", &driver_alone.join(":"))]);
    let cache = tempfile::tempdir().expect("a temporary folder can be made");
    let folder = cache.path().to_str().expect("a temporary folder has a plain name");
    let in_cache = || words(&[("LD_LIBRARY_PATH", &here), ("LTM_KERNEL_CACHE", folder)]);
    assert!(in_cache().contains("filled"));
    let entry = std::fs::read_dir(folder).unwrap().next().expect("one kernel").unwrap().path();
    let whole = std::fs::read(&entry).unwrap();
    // Damaged, empty, and whole but for no driver: each is compiled again, once, and replaced.
    let content = [&3u64.to_le_bytes()[..], b"ELFno PTX\0"].concat();
    let unloadable = [&Sha256::digest(&content)[..], &content[..]].concat();
    for damaged in [&whole[..whole.len() / 2], &[][..], &unloadable[..]] {
        std::fs::write(&entry, damaged).unwrap();
        let output = in_cache();
        assert!(output.contains("filled"), "{output}");
        assert_eq!(std::fs::read(&entry).unwrap().len(), whole.len());
    }
    // On a machine with a toolkit of its own the loader finds that one.
    assert!(
        without_nvrtc.contains("NVRTC (libnvrtc.so) was not found")
            || without_nvrtc.contains("filled"),
        "{without_nvrtc}"
    );
}
