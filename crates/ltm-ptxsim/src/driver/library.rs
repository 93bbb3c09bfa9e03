//! Libraries and kernels: programs that are independent of contexts, and are loaded into each
//! context that uses them.
//!
//! Must not know how a kernel runs.

use std::collections::HashMap;
use std::ffi::{CString, c_char};
use std::sync::{Arc, Mutex};

use super::context::Context;
use super::device::check_device;
use super::error::{Code, Outcome};
use super::ffi::{Image, Name, Out};
use super::module::{self, Function};
use super::state::{Handle, locked, require_init, state};
use crate::Program;

/// A library, made by `cuLibraryLoadData`.
pub(super) struct Library {
    program: Program,
    /// The handle of its module in each context, by context id.
    modules: Mutex<HashMap<usize, Handle>>,
    /// The handles of the kernels that were looked up.
    kernels: Mutex<HashMap<String, Handle>>,
}

/// A kernel, found by `cuLibraryGetKernel`.
pub(super) struct Kernel {
    library: Arc<Library>,
    library_handle: Handle,
    name: CString,
}

impl Library {
    /// The handle of the library's module in a context; loads it if necessary.
    fn module_in(&self, context: &Context) -> Outcome<Handle> {
        let mut modules = locked(&self.modules);
        if let Some(handle) = modules.get(&context.id) {
            return Ok(*handle);
        }
        let handle = module::load_into(context, self.program.clone())?;
        modules.insert(context.id, handle);
        Ok(handle)
    }

    fn kernel(self: &Arc<Self>, library_handle: Handle, name: &str) -> Outcome<Handle> {
        let known: Vec<&str> = self.program.entries().iter().map(|one| one.name.as_str()).collect();
        if !known.contains(&name) {
            return Err(Code::NotFound
                .because(format!("no kernel {name}; the library has: {}", known.join(", "))));
        }
        let mut kernels = locked(&self.kernels);
        if let Some(handle) = kernels.get(name) {
            return Ok(*handle);
        }
        let c_name = CString::new(name)
            .map_err(|_| Code::InvalidValue.because("the name contains a zero byte"))?;
        let kernel = Kernel { library: self.clone(), library_handle, name: c_name };
        let handle = state().kernels.insert(Arc::new(kernel));
        kernels.insert(name.to_owned(), handle);
        Ok(handle)
    }
}

impl Kernel {
    fn function_handle(&self, context: &Context) -> Outcome<Handle> {
        let module = self.library.module_in(context)?;
        module::function_in(module, &self.name.to_string_lossy())
    }
}

/// The function of a handle; the handle may also be a kernel's.
pub(super) fn function_of(context: &Context, handle: Handle) -> Outcome<Arc<Function>> {
    match state().kernels.get(handle) {
        Ok(kernel) => state().functions.get(kernel.function_handle(context)?),
        Err(_) => state().functions.get(handle),
    }
}

fn load(library_out: &Out<Handle>, ptx: &str) -> Outcome<()> {
    require_init()?;
    let library = Library {
        program: module::parse(ptx)?,
        modules: Mutex::default(),
        kernels: Mutex::default(),
    };
    library_out.set(state().libraries.insert(Arc::new(library)))
}

driver_functions! {
    fn cuLibraryLoadData(
        library_out: Out<Handle>,
        image: Image,
        jit_options: usize,
        jit_values: usize,
        jit_count: u32,
        options: usize,
        values: usize,
        count: u32,
    ) {
        // The options configure a JIT compiler, which does not exist here, and lazy loading.
        let _ = (jit_options, jit_values, jit_count, options, values, count);
        load(&library_out, image.ptx()?)
    }

    fn cuLibraryLoadFromFile(
        library_out: Out<Handle>,
        path: Name,
        jit_options: usize,
        jit_values: usize,
        jit_count: u32,
        options: usize,
        values: usize,
        count: u32,
    ) {
        let _ = (jit_options, jit_values, jit_count, options, values, count);
        let path = path.text()?;
        let ptx = std::fs::read_to_string(path)
            .map_err(|error| Code::FileNotFound.because(format!("cannot read {path}: {error}")))?;
        load(&library_out, &ptx)
    }

    fn cuLibraryUnload(library: Handle) {
        require_init()?;
        let library = state().libraries.remove(library)?;
        state().kernels.retain(|kernel| !Arc::ptr_eq(&kernel.library, &library));
        for handle in locked(&library.modules).values() {
            if let Ok(module) = state().modules.remove(*handle) {
                state().functions.retain(|function| !Arc::ptr_eq(&function.module, &module));
            }
        }
        Ok(())
    }

    fn cuLibraryGetKernel(kernel_out: Out<Handle>, library_handle: Handle, name: Name) {
        require_init()?;
        let library = state().libraries.get(library_handle)?;
        kernel_out.set(library.kernel(library_handle, name.text()?)?)
    }

    fn cuLibraryGetKernelCount(count: Out<u32>, library: Handle) {
        require_init()?;
        count.set(state().libraries.get(library)?.program.entries().len() as u32)
    }

    fn cuLibraryEnumerateKernels(kernels: Out<Handle>, room: u32, library_handle: Handle) {
        require_init()?;
        let library = state().libraries.get(library_handle)?;
        let names = library.program.entries().iter().take(room as usize);
        let handles: Vec<_> =
            names.map(|entry| library.kernel(library_handle, &entry.name)).collect::<Result<_, _>>()?;
        kernels.set_all(&handles, room as usize)
    }

    fn cuLibraryGetModule(module_out: Out<Handle>, library: Handle) {
        let context = Context::usable()?;
        module_out.set(state().libraries.get(library)?.module_in(&context)?)
    }

    fn cuLibraryGetGlobal(address: Out<u64>, bytes: Out<usize>, library: Handle, name: Name) {
        let context = Context::usable()?;
        let module = state().libraries.get(library)?.module_in(&context)?;
        module::global_of(&*state().modules.get(module)?, &name, &address, &bytes)
    }

    fn cuKernelGetFunction(function_out: Out<Handle>, kernel: Handle) {
        let context = Context::usable()?;
        function_out.set(state().kernels.get(kernel)?.function_handle(&context)?)
    }

    fn cuKernelGetLibrary(library_out: Out<Handle>, kernel: Handle) {
        require_init()?;
        library_out.set(state().kernels.get(kernel)?.library_handle)
    }

    fn cuKernelGetName(name: Out<*const c_char>, kernel: Handle) {
        require_init()?;
        name.set(state().kernels.get(kernel)?.name.as_ptr())
    }

    fn cuKernelGetParamInfo(kernel: Handle, index: usize, offset: Out<usize>, size: Out<usize>) {
        require_init()?;
        let kernel = state().kernels.get(kernel)?;
        let entry = kernel.library.program.entry(&kernel.name.to_string_lossy());
        let param = entry.and_then(|entry| entry.params.get(index)).ok_or(Code::InvalidValue)?;
        offset.set(param.offset as usize)?;
        size.set_if_wanted(param.size as usize);
        Ok(())
    }

    fn cuKernelGetAttribute(value: Out<i32>, number: u32, kernel: Handle, device: i32) {
        check_device(device)?;
        let context = Context::usable()?;
        value.set(module::attribute(&*function_of(&context, kernel)?, number)?)
    }

    fn cuKernelSetAttribute(number: u32, value: i32, kernel: Handle, device: i32) {
        check_device(device)?;
        let context = Context::usable()?;
        module::set_attribute(&*function_of(&context, kernel)?, number, value)
    }

    fn cuKernelSetCacheConfig(kernel: Handle, preference: u32, device: i32) {
        check_device(device)?;
        state().kernels.get(kernel)?;
        // Preferences 0 to 3 exist; none changes any result.
        if preference > 3 { Err(Code::InvalidValue.into()) } else { Ok(()) }
    }
}
