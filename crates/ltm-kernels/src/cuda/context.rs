//! One CUDA device of this process: its stream, its kernels, its launches. Must not know any op.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{
    self, CUdevice_attribute, CUfunction_attribute_enum as FunctionAttribute,
};

use super::architecture::Architecture;
use super::compile;
use super::driver::{check, describe, lock};
use super::image::Image;
use super::launch::{Arg, Geometry, MAX_ARGUMENTS};
use super::pool::{Memory, Pool};
use super::signature::{self, Parameter};
use super::text::{self, Text};
use crate::registry::{self, File};
use crate::{Error, Result};

/// Size of [`Context::workspace`], in bytes.
const WORKSPACE_BYTES: usize = 32 << 20;
/// Dynamic shared memory that a kernel may use without opting in, in bytes.
const SHARED_BYTES_WITHOUT_OPT_IN: u32 = 48 << 10;

/// A CUDA device, opened once and kept until the process ends.
///
/// All work goes to one stream and runs in the order in which it was queued; reading a result on
/// the host waits for it. Kernels are compiled when first launched.
pub struct Context {
    ordinal: usize,
    name: String,
    architecture: Architecture,
    multiprocessors: u32,
    primary: sys::CUcontext,
    pub(super) stream: sys::CUstream,
    pub(super) pool: Pool,
    workspace: u64,
    functions: Mutex<HashMap<&'static str, Function>>,
    modules: Mutex<HashMap<&'static str, Module>>,
    /// Custom kernels, by their source.
    programs: Mutex<HashMap<String, Loaded>>,
    /// Held while work is queued; a capture holds it from begin to end.
    queue: Mutex<()>,
    /// The token of the thread that holds `queue` across several calls; 0 if none does.
    holder: AtomicUsize,
    /// During a capture: the memory that the recorded work uses.
    recorded: Mutex<Option<Vec<Arc<Memory>>>>,
}

/// A loaded kernel file, kept until the process ends.
#[derive(Clone, Copy)]
struct Module {
    /// The driver's handle, as a number: handles are not `Send`.
    handle: usize,
    /// Its PTX, which contains the signatures.
    ptx: &'static [u8],
}

/// A loaded program and those of its entries that were launched.
struct Loaded {
    module: Module,
    functions: HashMap<String, Function>,
}

#[derive(Clone, Copy)]
struct Function {
    handle: sys::CUfunction,
    /// Dynamic shared memory that the kernel has opted in to, in bytes.
    shared_bytes: u32,
    /// The types of its arguments.
    parameters: &'static [Parameter],
}

// SAFETY: the handles name objects of the driver, whose functions may be called from any thread
// once the context is bound to it (`bind`); what Rust owns here is behind mutexes.
unsafe impl Send for Context {}
// SAFETY: as for `Send`.
unsafe impl Sync for Context {}

// SAFETY: a function handle is valid in every thread that the context is bound to.
unsafe impl Send for Function {}

/// An id of this thread, unique among running threads; never 0.
fn thread_token() -> usize {
    thread_local! {
        static TOKEN: u8 = const { 0 };
    }
    TOKEN.with(|token| std::ptr::from_ref(token).addr())
}

impl Context {
    /// The context of device `ordinal`; every call returns the same one.
    ///
    /// # Errors
    /// [`Error::NoDevice`] when there is no driver, no such device, or one older than sm_80.
    pub fn open(ordinal: usize) -> Result<&'static Self> {
        static OPEN: Mutex<Option<HashMap<usize, &'static Context>>> = Mutex::new(None);
        let mut open = lock(&OPEN);
        let open = open.get_or_insert_default();
        if let Some(context) = open.get(&ordinal) {
            return Ok(context);
        }
        let context: &'static Self = Box::leak(Box::new(Self::new(ordinal)?));
        open.insert(ordinal, context);
        Ok(context)
    }

    fn new(ordinal: usize) -> Result<Self> {
        let no_device =
            |reason: String| Error::NoDevice { name: format!("cuda:{ordinal}"), reason };
        // SAFETY: only opens the library, whose initialisers are the vendor's.
        if !unsafe { sys::is_culib_present() } {
            return Err(no_device(
                "no CUDA driver (libcuda.so.1) was found; install the NVIDIA driver or use \
                 the device `cpu`"
                    .into(),
            ));
        }
        let driver = |e: DriverError| no_device(format!("the CUDA driver reports {}", describe(e)));
        result::init().map_err(driver)?;
        let count = result::device::get_count().map_err(driver)?;
        let in_range = i32::try_from(ordinal).ok().filter(|ordinal| *ordinal < count);
        let Some(index) = in_range else {
            return Err(no_device(match count {
                0 => "the CUDA driver reports no device; use the device `cpu`".into(),
                _ => format!("the CUDA driver reports {count} device(s), numbered from 0"),
            }));
        };
        let device = result::device::get(index).map_err(driver)?;
        let attribute = |which| {
            // SAFETY: `device` came from `device::get` above.
            let value = unsafe { result::device::get_attribute(device, which) };
            value.map(|value| value.unsigned_abs()).map_err(driver)
        };
        use CUdevice_attribute as Attribute;
        let capability = (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        let name = result::device::get_name(device).map_err(driver)?;
        if capability < (8, 0) {
            let (major, minor) = capability;
            return Err(no_device(format!(
                "{name} is sm_{major}{minor}, the kernels need sm_80 or later; use the device `cpu`"
            )));
        }
        // SAFETY: `device` is valid; the context is kept for the life of the process.
        let primary = unsafe { result::primary_ctx::retain(device) }.map_err(driver)?;
        // SAFETY: `primary` was retained in the line above.
        unsafe { result::ctx::set_current(primary) }.map_err(driver)?;
        let stream =
            result::stream::create(result::stream::StreamKind::NonBlocking).map_err(driver)?;
        // SAFETY: a fresh allocation that nothing else knows; never freed.
        let workspace = unsafe { result::malloc_sync(WORKSPACE_BYTES) }.map_err(driver)?;
        Ok(Self {
            ordinal,
            name,
            architecture: Architecture::of(capability),
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            primary,
            stream,
            pool: Pool::new(ordinal),
            workspace,
            functions: Mutex::default(),
            modules: Mutex::default(),
            programs: Mutex::default(),
            queue: Mutex::default(),
            holder: AtomicUsize::new(0),
            recorded: Mutex::default(),
        })
    }

    /// The device's ordinal in the driver.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The architecture that kernels are compiled for.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// Multiprocessors of the device.
    pub fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    /// Waits until all queued work is done.
    ///
    /// # Errors
    /// [`Error::Cuda`] when some of the work failed.
    pub fn synchronize(&self) -> Result<()> {
        let _queue = self.enter()?;
        // SAFETY: the stream lives as long as the context.
        check("synchronize", unsafe { result::stream::synchronize(self.stream) })
    }

    /// Measures the device time of the work that `body` queues, in milliseconds.
    ///
    /// # Errors
    /// Those of `body`, and [`Error::Cuda`].
    pub fn elapsed_ms(&self, body: impl FnOnce() -> Result<()>) -> Result<f64> {
        self.bind()?;
        let event =
            || check("create event", result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT));
        let (start, end) = (event()?, event()?);
        // SAFETY: events and stream belong to this context and are alive.
        let record =
            |event| check("record event", unsafe { result::event::record(event, self.stream) });
        let measured =
            record(start).and_then(|()| body()).and_then(|()| record(end)).and_then(|()| {
                // SAFETY: both events were recorded above.
                check("wait for event", unsafe { result::event::synchronize(end) })?;
                // SAFETY: as above; both have completed.
                check("elapsed time", unsafe { result::event::elapsed(start, end) })
            });
        for event in [start, end] {
            // SAFETY: created above, used by nobody else.
            check("destroy event", unsafe { result::event::destroy(event) })?;
        }
        measured.map(f64::from)
    }

    /// Scratch memory on the device that an op may use during one call: address and size in bytes.
    /// The whole stream shares it, so its content does not survive the call.
    pub(crate) fn workspace(&self) -> (Arg, usize) {
        (Arg::Ptr(self.workspace), WORKSPACE_BYTES)
    }

    /// Queues a kernel on the stream.
    ///
    /// # Errors
    /// [`Error::NoDevice`] when the kernel must be compiled and NVRTC is not found; [`Error::Cuda`]
    /// when `args` disagree with the kernel's signature in number or type, or when the driver
    /// reports an error.
    ///
    /// # Safety
    /// `args` are in the order of the kernel's signature; the memory they name is as large as the
    /// contract requires with these extents and this geometry, and every `needs` holds.
    ///
    /// # Panics
    /// When the kernel table has no entry point `symbol`.
    pub(crate) unsafe fn launch(
        &self,
        symbol: &str,
        geometry: Geometry,
        args: &[Arg],
    ) -> Result<()> {
        let _queue = self.enter()?;
        let function = self.function(symbol, geometry.smem_bytes)?;
        // SAFETY: the caller's promise.
        unsafe { self.submit(function, symbol, geometry, args) }
    }

    /// As [`launch`](Self::launch), of the kernel `entry` in a text that is not in the kernel table; errors call the
    /// text `name`. There are at most [`MAX_ARGUMENTS`] arguments.
    ///
    /// # Safety
    /// As for [`launch`](Self::launch).
    pub(crate) unsafe fn launch_text(
        &self,
        name: &str,
        text: &str,
        entry: &str,
        geometry: Geometry,
        args: &[Arg],
    ) -> Result<()> {
        let _queue = self.enter()?;
        let function = self.function_of(name, text, entry, geometry.smem_bytes)?;
        // SAFETY: the caller's promise.
        unsafe { self.submit(function, entry, geometry, args) }
    }

    /// # Safety
    /// As for [`launch`](Self::launch), of this function; the queue is held.
    unsafe fn submit(
        &self,
        function: Function,
        symbol: &str,
        geometry: Geometry,
        args: &[Arg],
    ) -> Result<()> {
        signature::check(symbol, function.parameters, args)?;
        let mut params: [*mut c_void; MAX_ARGUMENTS] = [std::ptr::null_mut(); MAX_ARGUMENTS];
        assert!(args.len() <= MAX_ARGUMENTS, "{symbol} has more than {MAX_ARGUMENTS} arguments");
        for (param, arg) in params.iter_mut().zip(args) {
            *param = arg.address();
        }
        let Geometry { grid: [x, y, z], block: [bx, by, bz], smem_bytes } = geometry;
        // SAFETY: the caller vouches for arguments and geometry; the driver copies the arguments
        // before it returns.
        let launched = unsafe {
            result::launch_kernel(
                function.handle,
                (x, y, z),
                (bx, by, bz),
                smem_bytes,
                self.stream,
                &mut params[..args.len()],
            )
        };
        launched.map_err(|e| Error::Cuda { call: format!("launch {symbol}"), reason: describe(e) })
    }

    /// Binds the context to this thread and blocks other threads from the stream meanwhile.
    pub(super) fn enter(&self) -> Result<Option<MutexGuard<'_, ()>>> {
        self.bind()?;
        Ok((!self.is_held()).then(|| lock(&self.queue)))
    }

    /// As [`enter`](Self::enter), for work that cannot be recorded, such as a copy from or to the
    /// host: a replay would access host memory that no longer exists.
    pub(super) fn enter_unrecorded(&self, call: &str) -> Result<Option<MutexGuard<'_, ()>>> {
        if self.is_held() && lock(&self.recorded).is_some() {
            let reason = "it cannot be part of a recording".into();
            return Err(Error::Cuda { call: call.into(), reason });
        }
        self.enter()
    }

    /// Blocks other threads from the stream until the guard is dropped: for launches that pass data
    /// to each other through the workspace.
    pub(crate) fn together(&self) -> Result<Option<Held<'_>>> {
        Ok(self.enter()?.map(|queue| Held::new(self, queue)))
    }

    /// As [`together`](Self::together), for a capture by this thread. From here on the memory that
    /// recorded work uses is kept alive, see [`take_recorded`](Self::take_recorded).
    pub(super) fn enter_capture(&self) -> Result<Held<'_>> {
        if self.is_held() {
            let reason = "this thread is already recording or launching on the device".into();
            return Err(Error::Cuda { call: "begin capture".into(), reason });
        }
        self.bind()?;
        let held = Held::new(self, lock(&self.queue));
        *lock(&self.recorded) = Some(Vec::new());
        Ok(held)
    }

    /// The memory used by the work recorded since [`enter_capture`](Self::enter_capture).
    pub(super) fn take_recorded(&self) -> Vec<Arc<Memory>> {
        lock(&self.recorded).take().unwrap_or_default()
    }

    /// Keeps memory alive for the recording that this thread is making, if any.
    pub(super) fn keep_while_recorded(&self, memory: &Arc<Memory>) {
        if self.is_held()
            && let Some(recorded) = lock(&self.recorded).as_mut()
        {
            recorded.push(memory.clone());
        }
    }

    /// Whether this thread holds the queue across several calls. Only this thread stores its own
    /// token, so a relaxed load suffices.
    fn is_held(&self) -> bool {
        self.holder.load(Ordering::Relaxed) == thread_token()
    }

    fn bind(&self) -> Result<()> {
        // SAFETY: the primary context is never released.
        check("bind context", unsafe { result::ctx::set_current(self.primary) })
    }

    fn function(&self, symbol: &str, smem_bytes: u32) -> Result<Function> {
        let mut functions = lock(&self.functions);
        let known = functions.get(symbol).copied();
        if let Some(function) = known
            && smem_bytes <= function.shared_bytes
        {
            return Ok(function);
        }
        let (file, symbol) = registry::find(symbol)
            .unwrap_or_else(|| panic!("no file of the kernel table has the entry `{symbol}`"));
        let function = match known {
            Some(function) => function,
            None => find(self.module(file)?, symbol)?,
        };
        let function = opt_in(function, smem_bytes)?;
        functions.insert(symbol, function);
        Ok(function)
    }

    fn function_of(
        &self,
        name: &str,
        text: &str,
        entry: &str,
        smem_bytes: u32,
    ) -> Result<Function> {
        let mut programs = lock(&self.programs);
        if !programs.contains_key(text) {
            let whole = Text { name: name.into(), text: text.into() };
            let loaded = Loaded { module: self.load(&whole)?, functions: HashMap::new() };
            programs.insert(text.into(), loaded);
        }
        let loaded = programs.get_mut(text).expect("inserted above");
        let function = match loaded.functions.get(entry) {
            Some(function) if smem_bytes <= function.shared_bytes => return Ok(*function),
            Some(function) => *function,
            None => find(loaded.module, entry)?,
        };
        let function = opt_in(function, smem_bytes)?;
        loaded.functions.insert(entry.into(), function);
        Ok(function)
    }

    /// The loaded module of a kernel file.
    fn module(&self, file: &'static File) -> Result<Module> {
        let mut modules = lock(&self.modules);
        if let Some(module) = modules.get(file.name) {
            return Ok(*module);
        }
        let module = self.load(&text::shipped(file)?)?;
        modules.insert(file.name, module);
        Ok(module)
    }

    /// Compiles and loads a text. If the driver rejects a cached image, the text is compiled again, once.
    fn load(&self, text: &Text<'_>) -> Result<Module> {
        let mut image = compile::obtain(text, self.architecture, true)?;
        let mut loaded = load(&image);
        if loaded.is_err() && image.is_cached {
            image = compile::obtain(text, self.architecture, false)?;
            loaded = load(&image);
        }
        let handle = loaded
            .map_err(|e| Error::Cuda { call: format!("load {}", text.name), reason: describe(e) })?
            as usize;
        Ok(Module { handle, ptx: Vec::leak(image.ptx) })
    }
}

/// An entry of a module, and its signature.
fn find(module: Module, entry: &str) -> Result<Function> {
    // It refuses, among others, what the driver would not take as a name.
    let parameters = signature::of(entry, module.ptx)?;
    let name = CString::new(entry).expect("the name of an entry in a text has no NUL");
    // SAFETY: the module was loaded in this context, which is bound, and is never unloaded.
    let function = unsafe { result::module::get_function(module.handle as sys::CUmodule, name) };
    let handle = check("find kernel", function)?;
    let shared_bytes = SHARED_BYTES_WITHOUT_OPT_IN;
    Ok(Function { handle, shared_bytes, parameters: parameters.leak() })
}

/// The same function, ready for this much dynamic shared memory.
fn opt_in(function: Function, smem_bytes: u32) -> Result<Function> {
    if smem_bytes <= function.shared_bytes {
        return Ok(function);
    }
    let which = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    // SAFETY: the handle is valid, see `find`.
    check("opt in to shared memory", unsafe {
        result::function::set_function_attribute(function.handle, which, smem_bytes as i32)
    })?;
    Ok(Function { shared_bytes: smem_bytes, ..function })
}

/// Loads an image into the current context.
fn load(image: &Image) -> std::result::Result<sys::CUmodule, DriverError> {
    let load = |data: &[u8]| {
        // SAFETY: a whole cubin, or PTX that ends in NUL, both as NVRTC wrote them.
        unsafe { result::module::load_data(data.as_ptr().cast()) }
    };
    // The driver may be for newer devices or another architecture; it may still accept the PTX.
    load(&image.cubin).or_else(|_| load(&image.ptx))
}

/// The queue of a context, held by one thread across several calls.
pub(crate) struct Held<'a> {
    context: &'a Context,
    _queue: MutexGuard<'a, ()>,
}

impl<'a> Held<'a> {
    fn new(context: &'a Context, queue: MutexGuard<'a, ()>) -> Self {
        context.holder.store(thread_token(), Ordering::Relaxed);
        Self { context, _queue: queue }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Memory that is still here belongs to a failed capture; no recording needs it.
        self.context.take_recorded();
        self.context.holder.store(0, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cuda:{} ({}, {})", self.ordinal, self.name, self.architecture)
    }
}
