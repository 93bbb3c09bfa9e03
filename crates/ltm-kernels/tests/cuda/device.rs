//! The device itself: memory, capture, and what is said when something is missing.

use std::path::Path;
use std::process::Command;

use ltm_kernels::ops::elementwise::fill;
use ltm_kernels::{Buffer, DType, Device, Error};

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

/// The words of a process of its own that tries to open `cuda:0` in another environment.
fn words(set: &[(&str, &str)]) -> String {
    let test = ["--exact", "device::says_what_is_missing", "--nocapture"];
    let mut command = Command::new(std::env::current_exe().expect("a test has a path"));
    command.args(test).env("LTM_DEVICE_TRIAL", "1").envs(set.iter().copied());
    let output = command.output().expect("the test starts itself");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn says_what_is_missing() {
    if std::env::var_os("LTM_DEVICE_TRIAL").is_some() {
        let filled = Device::cuda(0).and_then(|device| {
            let mut x = Buffer::zeros(&device, DType::F32, 4)?;
            println!("opened {device}");
            fill(&device, &mut x, 1.0)
        });
        match filled {
            Ok(()) => println!("filled"),
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
    // On a machine with a toolkit of its own the loader finds that one.
    assert!(
        without_nvrtc.contains("NVRTC (libnvrtc.so) was not found")
            || without_nvrtc.contains("filled"),
        "{without_nvrtc}"
    );
}
