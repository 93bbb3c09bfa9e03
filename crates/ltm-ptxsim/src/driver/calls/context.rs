//! Primary contexts, contexts and the profiler.

use std::sync::atomic::Ordering;

use crate::driver::capture::refuse_during_capture;
use crate::driver::code::{Code, Outcome};
use crate::driver::context::{
    CONTEXTS, Context, PRIMARY, current_handle, destroy, pop_current, push_current, set_current,
};
use crate::driver::device::{DRIVER_VERSION, check_device, require_init};
use crate::driver::ffi::Out;
use crate::driver::handle::{Handle, locked};
use crate::driver::stream::GREATEST_PRIORITY;

fn create(context_out: &Out<Handle>, parameters: usize, flags: u32, device: i32) -> Outcome<()> {
    check_device(device)?;
    if parameters != 0 {
        return Err(
            Code::NotSupported.because("context creation parameters are not supported; pass null")
        );
    }
    let handle = CONTEXTS.insert(Context::create(device, flags));
    push_current(handle);
    context_out.set(handle)
}

driver_functions! {
    fn cuDevicePrimaryCtxRetain(context_out: Out<Handle>, device: i32) {
        check_device(device)?;
        let mut primary = locked(&PRIMARY);
        let entry = primary.entry(device).or_default();
        if entry.users == 0 {
            entry.handle = CONTEXTS.insert(Context::create(device, entry.flags));
        }
        entry.users += 1;
        context_out.set(entry.handle)
    }

    fn cuDevicePrimaryCtxRelease_v2(device: i32) {
        check_device(device)?;
        let mut primary = locked(&PRIMARY);
        let entry = primary.entry(device).or_default();
        if entry.users == 0 {
            return Err(Code::InvalidContext.because("the primary context is not retained"));
        }
        entry.users -= 1;
        if entry.users == 0 { destroy(entry.handle) } else { Ok(()) }
    }

    fn cuDevicePrimaryCtxReset_v2(device: i32) {
        check_device(device)?;
        let mut primary = locked(&PRIMARY);
        let entry = primary.entry(device).or_default();
        if entry.users > 0 {
            destroy(entry.handle)?;
            entry.users = 0;
        }
        Ok(())
    }

    fn cuDevicePrimaryCtxSetFlags_v2(device: i32, flags: u32) {
        check_device(device)?;
        let mut primary = locked(&PRIMARY);
        let entry = primary.entry(device).or_default();
        entry.flags = flags;
        if entry.users > 0 {
            CONTEXTS.get(entry.handle)?.flags.store(flags, Ordering::Relaxed);
        }
        Ok(())
    }

    fn cuDevicePrimaryCtxGetState(device: i32, flags: Out<u32>, active: Out<i32>) {
        check_device(device)?;
        let mut primary = locked(&PRIMARY);
        let entry = primary.entry(device).or_default();
        flags.set(entry.flags)?;
        active.set((entry.users > 0) as i32)
    }

    fn cuCtxCreate_v2(context_out: Out<Handle>, flags: u32, device: i32) {
        create(&context_out, 0, flags, device)
    }

    fn cuCtxCreate_v3(
        context_out: Out<Handle>,
        parameters: usize,
        parameter_count: i32,
        flags: u32,
        device: i32,
    ) {
        let parameters = if parameter_count == 0 { 0 } else { parameters };
        create(&context_out, parameters, flags, device)
    }

    fn cuCtxCreate_v4(context_out: Out<Handle>, parameters: usize, flags: u32, device: i32) {
        create(&context_out, parameters, flags, device)
    }

    fn cuCtxDestroy_v2(context: Handle) {
        require_init()?;
        if locked(&PRIMARY).values().any(|one| one.users > 0 && one.handle == context) {
            return Err(Code::InvalidContext
                .because("a primary context is released, not destroyed"));
        }
        destroy(context).map_err(|_| Code::InvalidContext)?;
        if current_handle() == context {
            pop_current();
        }
        Ok(())
    }

    fn cuCtxSetCurrent(context: Handle) {
        require_init()?;
        if context != 0 {
            CONTEXTS.get(context).map_err(|_| Code::InvalidContext)?;
        }
        set_current(context);
        Ok(())
    }

    fn cuCtxGetCurrent(context_out: Out<Handle>) {
        require_init()?;
        context_out.set(current_handle())
    }

    fn cuCtxPushCurrent_v2(context: Handle) {
        require_init()?;
        CONTEXTS.get(context).map_err(|_| Code::InvalidContext)?;
        push_current(context);
        Ok(())
    }

    fn cuCtxPopCurrent_v2(context_out: Out<Handle>) {
        require_init()?;
        let handle = pop_current().ok_or(Code::InvalidContext)?;
        context_out.set_if_wanted(handle);
        Ok(())
    }

    fn cuCtxSynchronize() {
        let context = Context::usable()?;
        refuse_during_capture(context.id, "waiting for the context")
    }

    fn cuCtxGetDevice(device: Out<i32>) {
        device.set(Context::current()?.device)
    }

    fn cuCtxGetApiVersion(context: Handle, version: Out<u32>) {
        require_init()?;
        if context != 0 {
            CONTEXTS.get(context).map_err(|_| Code::InvalidContext)?;
        }
        version.set(DRIVER_VERSION as u32)
    }

    fn cuCtxSetFlags(flags: u32) {
        Context::current()?.flags.store(flags, Ordering::Relaxed);
        Ok(())
    }

    fn cuCtxGetFlags(flags: Out<u32>) {
        flags.set(Context::current()?.flags.load(Ordering::Relaxed))
    }

    fn cuCtxGetLimit(value: Out<usize>, limit: u32) {
        let context = Context::current()?;
        let limits = locked(&context.limits);
        value.set(*limits.get(limit as usize).ok_or(Code::UnsupportedLimit)?)
    }

    fn cuCtxSetLimit(limit: u32, value: usize) {
        let context = Context::current()?;
        let mut limits = locked(&context.limits);
        *limits.get_mut(limit as usize).ok_or(Code::UnsupportedLimit)? = value;
        Ok(())
    }

    fn cuCtxGetCacheConfig(preference: Out<u32>) {
        preference.set(Context::current()?.cache_preference.load(Ordering::Relaxed))
    }

    fn cuCtxSetCacheConfig(preference: u32) {
        Context::current()?.cache_preference.store(preference, Ordering::Relaxed);
        Ok(())
    }

    fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) {
        Context::current()?;
        least.set_if_wanted(0);
        greatest.set_if_wanted(GREATEST_PRIORITY);
        Ok(())
    }

    fn cuProfilerStart() {
        Context::usable().map(|_| ())
    }

    fn cuProfilerStop() {
        Context::usable().map(|_| ())
    }
}
