//! Modules and functions: loads PTX, looks up entries and variables.
//!
//! Knows the limits and attributes of a function. Must not know how it runs.

use std::collections::HashMap;
use std::ffi::{CString, c_char};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::capture::refuse_unsafe_call;
use super::context::Context;
use super::device::model;
use super::error::{Code, Outcome};
use super::ffi::{Image, Name, Out};
use super::library::function_of;
use super::state::{Handle, locked, state};
use crate::{Entry, Module, Program};

/// A module, made by `cuModuleLoadData`.
pub(super) struct LoadedModule {
    /// The id of its context.
    pub(super) context: usize,
    pub(super) module: Module,
    /// The handles of functions that were looked up: each function has a single handle.
    functions: Mutex<HashMap<String, Handle>>,
}

/// A function, found by `cuModuleGetFunction`.
pub(super) struct Function {
    /// The id of its context.
    pub(super) context: usize,
    pub(super) module: Arc<LoadedModule>,
    pub(super) name: CString,
    module_handle: Handle,
    /// Maximum dynamic shared memory of a launch, in bytes.
    pub(super) max_dynamic_shared: AtomicU32,
}

/// Registers per thread that are reported without a `.maxnreg`, since PTX has only virtual
/// registers.
const NOMINAL_REGISTERS: u32 = 32;

impl Function {
    /// The function's name.
    pub(super) fn name(&self) -> &str {
        self.name.to_str().expect("made from a str")
    }

    /// The entry in the program.
    pub(super) fn entry(&self) -> &Entry {
        self.module.module.program().entry(self.name()).expect("looked up when it was made")
    }
}

/// Parses PTX, and checks that the device can run it.
pub(super) fn parse(ptx: &str) -> Outcome<Program> {
    let program = Program::parse(ptx).map_err(|error| {
        let version = error.reason.starts_with("unsupported .version");
        let code = if version { Code::UnsupportedPtxVersion } else { Code::InvalidPtx };
        code.because(error.to_string())
    })?;
    let (major, minor) = model()?.compute_capability;
    if !program.runs_on((major, minor)) {
        return Err(Code::NoBinaryForGpu.because(format!(
            "the PTX is for {}, the device is sm_{major}{minor} (PTXSIM_ARCH)",
            program.target()
        )));
    }
    Ok(program)
}

/// Loads a program into a context; returns the module's handle.
pub(super) fn load_into(context: &Context, program: Program) -> Outcome<Handle> {
    refuse_unsafe_call("loading a module")?;
    let module = Module::load(program, &context.memory)?;
    let module = LoadedModule { context: context.id, module, functions: Mutex::default() };
    Ok(state().modules.insert(Arc::new(module)))
}

fn load(module_out: Out<Handle>, ptx: &str) -> Outcome<()> {
    let context = Context::usable()?;
    module_out.set(load_into(&context, parse(ptx)?)?)
}

/// The handle of an entry of a module.
pub(super) fn function_in(module_handle: Handle, name: &str) -> Outcome<Handle> {
    let module = state().modules.get(module_handle)?;
    let program = module.module.program();
    let Some(entry) = program.entry(name) else {
        let known: Vec<&str> = program.entries().iter().map(|one| one.name.as_str()).collect();
        return Err(Code::NotFound
            .because(format!("no entry {name}; the module has: {}", known.join(", "))));
    };
    if let Some(handle) = locked(&module.functions).get(name) {
        return Ok(*handle);
    }
    let allowed = model()?.shared_per_block.saturating_sub(entry.static_shared_bytes);
    let name = CString::new(name)
        .map_err(|_| Code::InvalidValue.because("the name contains a zero byte"))?;
    let function = Function {
        context: module.context,
        module: module.clone(),
        name: name.clone(),
        module_handle,
        max_dynamic_shared: AtomicU32::new(allowed),
    };
    let handle = state().functions.insert(Arc::new(function));
    locked(&module.functions).insert(name.to_string_lossy().into_owned(), handle);
    Ok(handle)
}

pub(super) fn attribute(function: &Function, number: u32) -> Outcome<i32> {
    let model = model()?;
    let entry = function.entry();
    let capability = model.compute_capability.0 * 10 + model.compute_capability.1;
    Ok(match number {
        0 => entry.max_threads.unwrap_or(model.max_threads_per_block) as i32,
        1 => entry.static_shared_bytes as i32,
        // Constant and local memory of the function, in bytes: not tracked.
        2 | 3 => 0,
        4 => entry.max_registers.unwrap_or(NOMINAL_REGISTERS) as i32,
        // PTX version and binary version: the device's compute capability.
        5 | 6 => capability as i32,
        8 => function.max_dynamic_shared.load(Ordering::Relaxed) as i32,
        9 => -1,
        7 | 10..=16 => 0,
        _ => {
            return Err(
                Code::InvalidValue.because(format!("function attribute {number} is unknown"))
            );
        }
    })
}

/// Sets the maximum dynamic shared memory of a launch.
fn set_max_dynamic_shared(function: &Function, bytes: i32) -> Outcome<()> {
    let fixed = function.entry().static_shared_bytes;
    let limit = model()?.shared_per_block_optin.saturating_sub(fixed);
    match u32::try_from(bytes) {
        Ok(bytes) if bytes <= limit => {
            function.max_dynamic_shared.store(bytes, Ordering::Relaxed);
            Ok(())
        }
        _ => Err(Code::InvalidValue.because(format!(
            "{}: {bytes} bytes of dynamic shared memory, at most {limit} fit next to {fixed} static",
            function.name()
        ))),
    }
}

/// Stores the address and size of a module's variable.
pub(super) fn global_of(
    module: &LoadedModule,
    name: &Name,
    address: &Out<u64>,
    bytes: &Out<usize>,
) -> Outcome<()> {
    let name = name.text()?;
    let found = module.module.global(name);
    let (start, length) = found
        .ok_or_else(|| Code::NotFound.because(format!("the module has no variable {name}")))?;
    address.set_if_wanted(start);
    bytes.set_if_wanted(length as usize);
    Ok(())
}

/// Sets an attribute of a function.
pub(super) fn set_attribute(function: &Function, number: u32, value: i32) -> Outcome<()> {
    match number {
        8 => set_max_dynamic_shared(function, value),
        // The preferred split between L1 cache and shared memory changes no result.
        9 if (-1..=100).contains(&value) => Ok(()),
        _ => Err(Code::InvalidValue
            .because(format!("function attribute {number} cannot be set to {value}"))),
    }
}

driver_functions! {
    fn cuModuleLoad(module_out: Out<Handle>, path: Name) {
        let path = path.text()?;
        let ptx = std::fs::read_to_string(path)
            .map_err(|error| Code::FileNotFound.because(format!("cannot read {path}: {error}")))?;
        load(module_out, &ptx)
    }

    fn cuModuleLoadData(module_out: Out<Handle>, image: Image) {
        load(module_out, image.ptx()?)
    }

    fn cuModuleLoadDataEx(
        module_out: Out<Handle>,
        image: Image,
        option_count: u32,
        options: usize,
        values: usize,
    ) {
        // The options configure a JIT compiler, which does not exist here; errors go to stderr.
        let _ = (option_count, options, values);
        load(module_out, image.ptx()?)
    }

    fn cuModuleUnload(module: Handle) {
        let context = Context::current()?;
        let module = state().modules.remove(module)?;
        state().functions.retain(|function| !Arc::ptr_eq(&function.module, &module));
        context.check_fault()
    }

    fn cuModuleGetFunction(function_out: Out<Handle>, module_handle: Handle, name: Name) {
        Context::usable()?;
        function_out.set(function_in(module_handle, name.text()?)?)
    }

    fn cuModuleGetGlobal_v2(address: Out<u64>, bytes: Out<usize>, module: Handle, name: Name) {
        Context::usable()?;
        global_of(&*state().modules.get(module)?, &name, &address, &bytes)
    }

    fn cuModuleGetLoadingMode(mode: Out<u32>) {
        // Eager: a module is completely loaded at once.
        mode.set(1)
    }

    fn cuFuncGetName(name: Out<*const c_char>, function: Handle) {
        name.set(state().functions.get(function)?.name.as_ptr())
    }

    fn cuFuncGetModule(module: Out<Handle>, function: Handle) {
        module.set(state().functions.get(function)?.module_handle)
    }

    fn cuFuncGetParamInfo(function: Handle, index: usize, offset: Out<usize>, size: Out<usize>) {
        let function = state().functions.get(function)?;
        let param = function.entry().params.get(index).ok_or(Code::InvalidValue)?;
        offset.set(param.offset as usize)?;
        size.set_if_wanted(param.size as usize);
        Ok(())
    }

    fn cuFuncGetAttribute(value: Out<i32>, number: u32, function: Handle) {
        let context = Context::usable()?;
        value.set(attribute(&*function_of(&context, function)?, number)?)
    }

    fn cuFuncSetAttribute(function: Handle, number: u32, value: i32) {
        let context = Context::usable()?;
        set_attribute(&*function_of(&context, function)?, number, value)
    }

    fn cuFuncSetCacheConfig(function: Handle, preference: u32) {
        Context::usable()?;
        state().functions.get(function)?;
        // Preferences 0 to 3 exist; none changes any result.
        if preference > 3 { Err(Code::InvalidValue.into()) } else { Ok(()) }
    }
}
