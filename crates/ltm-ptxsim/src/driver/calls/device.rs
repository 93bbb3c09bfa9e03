//! Initialization, version and devices.

use std::ffi::c_char;

use crate::driver::code::Code;
use crate::driver::context::Context;
use crate::driver::device::{
    DEVICE_MEMORY_BYTES, DRIVER_VERSION, attribute, check_device, initialize, model, name,
    require_init, uuid,
};
use crate::driver::ffi::Out;
use crate::driver::settings::settings;

driver_functions! {
    fn cuInit(flags: u32) {
        if flags != 0 {
            return Err(Code::InvalidValue.because(format!("unknown flags {flags}; pass 0")));
        }
        initialize()
    }

    fn cuDriverGetVersion(version: Out<i32>) {
        version.set(DRIVER_VERSION)
    }

    // NVIDIA's private function tables: there are none. NVRTC 13 looks one up whenever it finds a
    // driver in its process, and calls this function without checking that it exists.
    fn cuGetExportTable(table: Out<usize>, id: usize) {
        let _ = id;
        table.set_if_wanted(0);
        Err(Code::NotFound.answers("this library has no private tables"))
    }

    fn cuDeviceGetCount(count: Out<i32>) {
        require_init()?;
        count.set(settings()?.devices)
    }

    fn cuDeviceGet(device: Out<i32>, ordinal: i32) {
        check_device(ordinal)?;
        device.set(ordinal)
    }

    fn cuDeviceGetName(text: Out<c_char>, room: i32, device: i32) {
        check_device(device)?;
        text.set_text(&name()?, room)
    }

    fn cuDeviceGetPCIBusId(text: Out<c_char>, room: i32, device: i32) {
        check_device(device)?;
        text.set_text(&format!("0000:{device:02X}:00.0"), room)
    }

    fn cuDeviceGetAttribute(value: Out<i32>, number: u32, device: i32) {
        check_device(device)?;
        value.set(attribute(number, device)?)
    }

    fn cuDeviceTotalMem_v2(bytes: Out<usize>, device: i32) {
        check_device(device)?;
        bytes.set(DEVICE_MEMORY_BYTES as usize)
    }

    fn cuDeviceGetUuid(bytes: Out<[u8; 16]>, device: i32) {
        check_device(device)?;
        bytes.set(uuid(device))
    }

    fn cuDeviceGetUuid_v2(bytes: Out<[u8; 16]>, device: i32) {
        check_device(device)?;
        bytes.set(uuid(device))
    }

    fn cuDeviceComputeCapability(major: Out<i32>, minor: Out<i32>, device: i32) {
        check_device(device)?;
        let capability = model()?.compute_capability;
        major.set(capability.0 as i32)?;
        minor.set(capability.1 as i32)
    }

    fn cuDeviceCanAccessPeer(answer: Out<i32>, device: i32, peer: i32) {
        check_device(device)?;
        check_device(peer)?;
        answer.set(0)
    }

    fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) {
        let context = Context::usable()?;
        let (left, all) = context.engine.memory.info();
        free.set(left as usize)?;
        total.set(all as usize)
    }
}
