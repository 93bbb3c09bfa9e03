//! Devices: their number and attributes, and whether the driver has been initialized.
//!
//! Knows the properties of the simulated GPU. Must not know contexts.

use std::sync::atomic::{AtomicBool, Ordering};

use super::code::{Code, Outcome};
use super::settings::settings;
use crate::DeviceModel;

static INITIALIZED: AtomicBool = AtomicBool::new(false);

/// Device memory, in bytes. Host memory is committed only as it is written.
pub(super) const DEVICE_MEMORY_BYTES: u64 = 16 << 30;

/// Implements `cuInit`.
pub(super) fn initialize() -> Outcome<()> {
    if settings()?.devices == 0 {
        return Err(Code::NoDevice.because("PTXSIM_DEVICES is 0"));
    }
    INITIALIZED.store(true, Ordering::Release);
    Ok(())
}

/// Fails before `cuInit`.
pub(super) fn require_init() -> Outcome<()> {
    if INITIALIZED.load(Ordering::Acquire) {
        return Ok(());
    }
    Err(Code::NotInitialized.because("call cuInit first"))
}

/// The version of the CUDA driver API that this library implements: 13.0.
pub(super) const DRIVER_VERSION: i32 = 13000;

/// The GPU model that is simulated; all devices are the same.
pub(super) fn model() -> Outcome<&'static DeviceModel> {
    Ok(&settings()?.options.device)
}

/// Fails before `cuInit` and for a device that does not exist.
pub(super) fn check_device(device: i32) -> Outcome<()> {
    require_init()?;
    let devices = settings()?.devices;
    if (0..devices).contains(&device) {
        return Ok(());
    }
    Err(Code::InvalidDevice
        .because(format!("device {device} does not exist; there are {devices} (PTXSIM_DEVICES)")))
}

/// The name of every device.
pub(super) fn name() -> Outcome<String> {
    let (major, minor) = model()?.compute_capability;
    Ok(format!("PTX simulator (sm_{major}{minor})"))
}

/// The value of a `CUdevice_attribute`. Unlisted attributes are features that are not supported: 0.
pub(super) fn attribute(number: u32, device: i32) -> Outcome<i32> {
    const ATTRIBUTES_IN_CUDA_13: u32 = 145;
    let model = model()?;
    Ok(match number {
        1 => model.max_threads_per_block as i32,
        2..=4 => model.max_block[number as usize - 2] as i32,
        5..=7 => model.max_grid[number as usize - 5] as i32,
        8 => model.shared_per_block as i32,
        // Constant memory in bytes, warp size, largest pitch.
        9 => 65536,
        10 => 32,
        11 => i32::MAX,
        // Registers per block and per multiprocessor.
        12 | 82 => model.multiprocessor.registers as i32,
        // Nominal clock rates in kHz.
        13 | 36 => 1_000_000,
        14 | 30 => 512,
        15 | 40 => 1,
        16 => model.multiprocessors as i32,
        31 | 41 | 79 | 80 => 1,
        33 => device,
        // Memory bus width in bits and L2 size in bytes, of an A100.
        37 => 5120,
        38 => 40 << 20,
        39 => model.multiprocessor.threads as i32,
        51 => 32,
        75 => model.compute_capability.0 as i32,
        76 => model.compute_capability.1 as i32,
        // Stream priorities and memory pools are supported.
        78 | 115 => 1,
        81 => model.multiprocessor.shared_bytes as i32,
        87 => 2,
        97 => model.shared_per_block_optin as i32,
        106 => model.multiprocessor.blocks as i32,
        111 => 1024,
        0 => return Err(Code::InvalidValue.because("there is no device attribute 0")),
        _ if number < ATTRIBUTES_IN_CUDA_13 => 0,
        _ => {
            return Err(Code::InvalidValue.because(format!("device attribute {number} is unknown")));
        }
    })
}

/// A UUID that no real device has, different for each device.
pub(super) fn uuid(device: i32) -> [u8; 16] {
    let mut uuid = *b"PTX simulator \0\0";
    uuid[15] = device as u8;
    uuid
}
