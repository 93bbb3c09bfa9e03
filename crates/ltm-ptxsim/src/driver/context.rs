//! Contexts: they own memory, streams and modules, and keep the code of a fault.
//!
//! Knows lifetimes and each thread's current context. Must not know how work runs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::device::check_device;
use super::error::{Code, Failure, Outcome};
use super::ffi::Out;
use super::state::{
    Handle, current_handle, locked, new_handle, pop_current, push_current, require_init,
    set_current, state,
};
use super::stream::Stream;
use crate::Memory;

/// Device memory, in bytes. Host memory is committed only as it is written.
pub(super) const DEVICE_MEMORY_BYTES: u64 = 16 << 30;

/// A context, made by `cuCtxCreate` or `cuDevicePrimaryCtxRetain`.
pub(super) struct Context {
    /// Unique id; other objects refer to their context by it.
    pub(super) id: usize,
    pub(super) device: i32,
    pub(super) memory: Memory,
    /// The stream of handles 0 and 1, which waits for all blocking streams.
    pub(super) legacy_stream: Arc<Stream>,
    /// The stream of handle 2.
    pub(super) per_thread_stream: Arc<Stream>,
    /// Held while work runs, so that work of several threads runs in the order it was submitted.
    pub(super) queue: Mutex<()>,
    fault: Mutex<Option<Code>>,
    flags: AtomicU32,
    cache_preference: AtomicU32,
    limits: Mutex<[usize; 3]>,
}

/// The primary context of a device, while it is retained.
#[derive(Default)]
pub(super) struct PrimaryContext {
    handle: Handle,
    users: u32,
    flags: u32,
}

/// Default limits: bytes of stack, `printf` buffer and heap, in the order of `CUlimit` (0 to 2).
const DEFAULT_LIMITS: [usize; 3] = [1024, 1 << 20, 8 << 20];

impl Context {
    fn create(device: i32, flags: u32) -> Arc<Context> {
        let id = new_handle();
        Arc::new(Context {
            id,
            device,
            memory: Memory::new(DEVICE_MEMORY_BYTES),
            legacy_stream: Arc::new(Stream::legacy(id)),
            per_thread_stream: Arc::new(Stream::new(id, 0, 0)),
            queue: Mutex::new(()),
            fault: Mutex::new(None),
            flags: AtomicU32::new(flags),
            cache_preference: AtomicU32::new(0),
            limits: Mutex::new(DEFAULT_LIMITS),
        })
    }

    /// The current context of this thread.
    pub(super) fn current() -> Outcome<Arc<Context>> {
        require_init()?;
        match current_handle() {
            0 => Err(Code::InvalidContext.because("this thread has no current context")),
            handle => state().contexts.get(handle).map_err(|_| {
                Code::ContextIsDestroyed.because("the current context has been destroyed")
            }),
        }
    }

    /// The current context of this thread; fails if one of its kernels has faulted.
    pub(super) fn usable() -> Outcome<Arc<Context>> {
        let context = Context::current()?;
        context.check_fault()?;
        Ok(context)
    }

    /// After a fault every call returns its code until the context is destroyed; the fault is
    /// described only once.
    pub(super) fn check_fault(&self) -> Outcome<()> {
        locked(&self.fault).map_or(Ok(()), |code| Err(code.into()))
    }

    /// Keeps the code of the first fault.
    pub(super) fn poison(&self, failure: &Failure) {
        locked(&self.fault).get_or_insert(failure.code);
    }
}

/// Invalidates a context and every handle made in it.
fn destroy(handle: Handle) -> Outcome<()> {
    let state = state();
    let context = state.contexts.remove(handle)?;
    state.streams.retain(|stream| stream.context != context.id);
    state.events.retain(|event| event.context != context.id);
    state.modules.retain(|module| module.context != context.id);
    state.functions.retain(|function| function.context != context.id);
    state.executables.retain(|executable| executable.context != context.id);
    Ok(())
}

fn create(context_out: &Out<Handle>, parameters: usize, flags: u32, device: i32) -> Outcome<()> {
    check_device(device)?;
    if parameters != 0 {
        return Err(
            Code::NotSupported.because("context creation parameters are not supported; pass null")
        );
    }
    let handle = state().contexts.insert(Context::create(device, flags));
    push_current(handle);
    context_out.set(handle)
}

driver_functions! {
    fn cuDevicePrimaryCtxRetain(context_out: Out<Handle>, device: i32) {
        check_device(device)?;
        let mut primary = locked(&state().primary);
        let entry = primary.entry(device).or_default();
        if entry.users == 0 {
            entry.handle = state().contexts.insert(Context::create(device, entry.flags));
        }
        entry.users += 1;
        context_out.set(entry.handle)
    }

    fn cuDevicePrimaryCtxRelease_v2(device: i32) {
        check_device(device)?;
        let mut primary = locked(&state().primary);
        let entry = primary.entry(device).or_default();
        if entry.users == 0 {
            return Err(Code::InvalidContext.because("the primary context is not retained"));
        }
        entry.users -= 1;
        if entry.users == 0 { destroy(entry.handle) } else { Ok(()) }
    }

    fn cuDevicePrimaryCtxReset_v2(device: i32) {
        check_device(device)?;
        let mut primary = locked(&state().primary);
        let entry = primary.entry(device).or_default();
        if entry.users > 0 {
            destroy(entry.handle)?;
            entry.users = 0;
        }
        Ok(())
    }

    fn cuDevicePrimaryCtxSetFlags_v2(device: i32, flags: u32) {
        check_device(device)?;
        let mut primary = locked(&state().primary);
        let entry = primary.entry(device).or_default();
        entry.flags = flags;
        if entry.users > 0 {
            state().contexts.get(entry.handle)?.flags.store(flags, Ordering::Relaxed);
        }
        Ok(())
    }

    fn cuDevicePrimaryCtxGetState(device: i32, flags: Out<u32>, active: Out<i32>) {
        check_device(device)?;
        let mut primary = locked(&state().primary);
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
        if locked(&state().primary).values().any(|one| one.users > 0 && one.handle == context) {
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
            state().contexts.get(context).map_err(|_| Code::InvalidContext)?;
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
        state().contexts.get(context).map_err(|_| Code::InvalidContext)?;
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
        super::capture::refuse_during_capture(&context, "waiting for the context")
    }

    fn cuCtxGetDevice(device: Out<i32>) {
        device.set(Context::current()?.device)
    }

    fn cuCtxGetApiVersion(context: Handle, version: Out<u32>) {
        require_init()?;
        if context != 0 {
            state().contexts.get(context).map_err(|_| Code::InvalidContext)?;
        }
        version.set(super::device::DRIVER_VERSION as u32)
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
        greatest.set_if_wanted(super::stream::GREATEST_PRIORITY);
        Ok(())
    }

    fn cuProfilerStart() {
        Context::usable().map(|_| ())
    }

    fn cuProfilerStop() {
        Context::usable().map(|_| ())
    }
}
