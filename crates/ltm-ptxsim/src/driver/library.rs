//! Libraries and kernels: programs that are independent of contexts, and are loaded into each
//! context that uses them.
//!
//! Must not know how a kernel runs.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, Mutex};

use super::capture::refuse_unsafe_call;
use super::code::{Code, Outcome};
use super::context::Context;
use super::handle::{Handle, Table, locked};
use super::module::{self, FUNCTIONS, Function};
use crate::Program;

/// All libraries.
pub(super) static LIBRARIES: Table<Library> = Table::new("library");
/// All kernels.
pub(super) static KERNELS: Table<Kernel> = Table::new("kernel");

/// A library, made by `cuLibraryLoadData`.
pub(super) struct Library {
    pub(super) program: Program,
    /// The handle of its module in each context, by context id.
    pub(super) modules: Mutex<HashMap<usize, Handle>>,
    /// The handles of the kernels that were looked up.
    pub(super) kernels: Mutex<HashMap<String, Handle>>,
}

/// A kernel, found by `cuLibraryGetKernel`.
pub(super) struct Kernel {
    pub(super) library: Arc<Library>,
    pub(super) library_handle: Handle,
    pub(super) name: CString,
}

impl Library {
    /// The handle of the library's module in a context; loads it if necessary.
    pub(super) fn module_in(&self, context: &Context) -> Outcome<Handle> {
        let mut modules = locked(&self.modules);
        if let Some(handle) = modules.get(&context.id) {
            return Ok(*handle);
        }
        let handle = load_into(context, self.program.clone())?;
        modules.insert(context.id, handle);
        Ok(handle)
    }

    /// The handle of a kernel.
    pub(super) fn kernel(self: &Arc<Self>, library_handle: Handle, name: &str) -> Outcome<Handle> {
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
        let handle = KERNELS.insert(Arc::new(kernel));
        kernels.insert(name.to_owned(), handle);
        Ok(handle)
    }
}

impl Kernel {
    /// The handle of its function in a context.
    pub(super) fn function_handle(&self, context: &Context) -> Outcome<Handle> {
        let module = self.library.module_in(context)?;
        module::function_in(module, &self.name.to_string_lossy())
    }
}

/// Loads a program into a context; returns the module's handle.
pub(super) fn load_into(context: &Context, program: Program) -> Outcome<Handle> {
    refuse_unsafe_call("loading a module")?;
    module::load_into(context.id, &context.engine.memory, program)
}

/// The function of a handle; the handle may also be a kernel's.
pub(super) fn function_of(context: &Context, handle: Handle) -> Outcome<Arc<Function>> {
    match KERNELS.get(handle) {
        Ok(kernel) => FUNCTIONS.get(kernel.function_handle(context)?),
        Err(_) => FUNCTIONS.get(handle),
    }
}
