//! Modules and functions: loads PTX, looks up entries and variables.
//!
//! Knows the limits and attributes of a function. Must not know how it runs.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::code::{Code, Outcome};
use super::device::model;
use super::ffi::{Name, Out};
use super::handle::{Handle, Table, locked};
use crate::{Entry, Memory, Module, Program};

/// All modules.
pub(super) static MODULES: Table<LoadedModule> = Table::new("module");
/// All functions.
pub(super) static FUNCTIONS: Table<Function> = Table::new("function");

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
    pub(super) module_handle: Handle,
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

/// Loads a program into the memory of a context; returns the module's handle.
pub(super) fn load_into(context: usize, memory: &Memory, program: Program) -> Outcome<Handle> {
    let module = Module::load(program, memory)?;
    let module = LoadedModule { context, module, functions: Mutex::default() };
    Ok(MODULES.insert(Arc::new(module)))
}

/// The handle of an entry of a module.
pub(super) fn function_in(module_handle: Handle, name: &str) -> Outcome<Handle> {
    let module = MODULES.get(module_handle)?;
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
    let handle = FUNCTIONS.insert(Arc::new(function));
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
