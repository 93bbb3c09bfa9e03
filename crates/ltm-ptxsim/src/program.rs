//! A loaded module: entries with their parameters, variables in memory. Knows no execution.

use std::collections::HashMap;

use crate::decode;
use crate::fault::ParseError;
use crate::inst::Code;
use crate::memory::{Memory, MemoryError};
use crate::parse::{self, Value, Variable};
use crate::target::Target;

/// PTX, parsed and decoded.
#[derive(Clone, Debug)]
pub struct Program {
    entries: Vec<Entry>,
    variables: Vec<Variable>,
    pub(crate) files: HashMap<u32, String>,
    pub(crate) target: Target,
}

/// A kernel.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its parameters, in order.
    pub params: Vec<Param>,
    /// Shared memory that its variables take, in bytes.
    pub static_shared_bytes: u32,
    /// The most threads of a block that it was compiled for.
    pub max_threads: Option<u32>,
    /// The most registers that a thread may take (`.maxnreg`).
    pub max_registers: Option<u32>,
    /// What runs, or why the simulator cannot run it.
    pub(crate) code: Result<Code, ParseError>,
}

impl Entry {
    /// Why the simulator cannot run this kernel: an unknown instruction, or a function without a
    /// body. Other kernels of the module are not affected; a launch of this one is refused.
    pub fn unsupported(&self) -> Option<&ParseError> {
        self.code.as_ref().err()
    }
}

/// Where a parameter lies in the parameter block, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// From the block's start.
    pub offset: u32,
    /// Its size.
    pub size: u32,
    /// Its alignment.
    pub align: u32,
}

impl Program {
    /// Parses and decodes a module.
    ///
    /// # Errors
    /// [`ParseError`] names the line of what is no PTX, a version or an architecture that does not
    /// exist, or a variable that is too large. An entry that the simulator cannot run is no error
    /// here, see [`Entry::unsupported`].
    pub fn parse(ptx: &str) -> Result<Self, ParseError> {
        let text = parse::parse(ptx)?;
        let mut entries = Vec::new();
        let mut budget = decode::MAX_MODULE_INSTRUCTIONS;
        for function in text.functions.iter().filter(|function| function.is_entry) {
            let params = layout(&function.params).ok_or_else(|| ParseError {
                line: 0,
                text: function.name.clone(),
                reason: format!("more than {MAX_PARAM_BYTES} bytes of parameters"),
            })?;
            let most = budget.min(decode::MAX_INSTRUCTIONS);
            let decoded = decode::decode(&text, function, &params, most);
            let (code, static_shared_bytes) = match decoded {
                Ok((code, bytes)) => (Ok(code), bytes),
                Err(reason) => (Err(reason), 0),
            };
            budget -= code.as_ref().map_or(0, |code| code.insts.len().min(budget));
            entries.push(Entry {
                name: function.name.clone(),
                params,
                static_shared_bytes,
                max_threads: function.max_threads,
                max_registers: function.max_registers,
                code,
            });
        }
        let in_memory = |v: &Variable| !v.is_extern && (v.space == "global" || v.space == "const");
        let variables = text.variables.into_iter().filter(in_memory).collect();
        Ok(Self { entries, variables, files: text.files, target: text.target })
    }

    /// Whether a device of this compute capability runs the module, by its `.target`.
    pub fn runs_on(&self, compute_capability: (u32, u32)) -> bool {
        self.target.runs_on(compute_capability)
    }

    /// The architecture that the module is for, such as `sm_80`.
    pub fn target(&self) -> String {
        self.target.to_string()
    }

    /// The kernels, in the order of the text.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The kernel of that name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

/// The most bytes of a kernel's parameters that any device takes.
const MAX_PARAM_BYTES: u32 = 32764;

fn layout(params: &[Variable]) -> Option<Vec<Param>> {
    let mut end = 0u32;
    let place = |param: &Variable| {
        let offset = end.next_multiple_of(param.align);
        end = offset.checked_add(param.bytes).filter(|end| *end <= MAX_PARAM_BYTES)?;
        Some(Param { offset, size: param.bytes, align: param.align })
    };
    params.iter().map(place).collect()
}

/// A program whose variables lie in a memory.
#[derive(Clone, Debug)]
pub struct Module {
    program: Program,
    /// Address and bytes by name.
    globals: HashMap<String, (u64, u64)>,
}

impl Module {
    /// Allocates and initialises the program's `.global` and `.const` variables.
    ///
    /// # Errors
    /// [`MemoryError::OutOfMemory`].
    pub fn load(program: Program, memory: &Memory) -> Result<Self, MemoryError> {
        let mut globals = HashMap::new();
        for variable in &program.variables {
            let bytes = u64::from(variable.bytes);
            // What has no initialiser starts as zeros.
            globals.insert(variable.name.clone(), (memory.alloc_zeroed(bytes)?, bytes));
        }
        for variable in &program.variables {
            let Some((address, bytes)) = globals.get(&variable.name) else { continue };
            for (offset, value) in &variable.init {
                let value = match value {
                    Value::Bits(bits) => *bits,
                    // A function has no address here: what calls through one is refused.
                    Value::Address(name, more) => globals
                        .get(name)
                        .map_or(0, |(address, _)| address.wrapping_add_signed(*more)),
                };
                let room = bytes.saturating_sub(u64::from(*offset));
                let n = u64::from(variable.scalar).min(room) as usize;
                memory.write(address + u64::from(*offset), &value.to_le_bytes()[..n])?;
            }
        }
        Ok(Self { program, globals })
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Address and bytes of a variable.
    pub fn global(&self, name: &str) -> Option<(u64, u64)> {
        self.globals.get(name).copied()
    }
}
