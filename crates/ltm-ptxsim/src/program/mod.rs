//! Programs and loaded modules: what is run. Entries with their parameters and instructions, variables in memory.
//! Must not know execution.

mod decode;
mod inst;
mod written;

use std::collections::HashMap;

use crate::memory::{Memory, MemoryError};
use crate::text::{self, ParseError, Target, Value, Variable};

pub(crate) use inst::{
    Access, BarrierKind, Builtin, Code, Copy, Initial, Inst, Logic, Op, Pred, Reg, Shuffle,
    Strength, Update, VoteKind, Watch,
};

/// A parsed and decoded PTX module.
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
    /// Its parameters, in the order of the parameter list.
    pub params: Vec<Param>,
    /// Size of its `.shared` variables, in bytes.
    pub static_shared_bytes: u32,
    /// Maximum threads per block (`.maxntid` or `.reqntid`).
    pub max_threads: Option<u32>,
    /// Maximum registers per thread (`.maxnreg`).
    pub max_registers: Option<u32>,
    /// The instructions, or why the simulator cannot run them.
    pub(crate) code: Result<Code, ParseError>,
}

impl Entry {
    /// Why the simulator cannot run this kernel: an unknown instruction, or a function without a
    /// body. Other kernels of the module are not affected; a launch of this one is refused.
    pub fn unsupported(&self) -> Option<&ParseError> {
        self.code.as_ref().err()
    }
}

/// Offset, size and alignment of a parameter in the parameter block, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// Offset from the start of the block.
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
    /// [`ParseError`] for text that is not PTX, an unknown PTX version or architecture, or a
    /// variable that is too large. A kernel that the simulator cannot run is not an error here; see
    /// [`Entry::unsupported`].
    pub fn parse(ptx: &str) -> Result<Self, ParseError> {
        let text = text::parse(ptx)?;
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

    /// Whether a device of this compute capability can run the module, given its `.target`.
    pub fn runs_on(&self, compute_capability: (u32, u32)) -> bool {
        self.target.runs_on(compute_capability)
    }

    /// The module's target architecture, such as `sm_80`.
    pub fn target(&self) -> String {
        self.target.to_string()
    }

    /// The kernels, in the order they are defined.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The kernel named `name`.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

/// Maximum size of a kernel's parameters on any device, in bytes.
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

/// A program whose variables have been allocated in a [`Memory`].
#[derive(Clone, Debug)]
pub struct Module {
    program: Program,
    /// Address and size in bytes, by name.
    globals: HashMap<String, (u64, u64)>,
}

impl Module {
    /// Allocates and initialises the program's `.global` and `.const` variables.
    ///
    /// # Errors
    /// [`MemoryError::OutOfMemory`] if the memory is too small for the variables.
    pub fn load(program: Program, memory: &Memory) -> Result<Self, MemoryError> {
        let mut globals = HashMap::new();
        for variable in &program.variables {
            let bytes = u64::from(variable.bytes);
            // Variables without an initialiser are zero.
            globals.insert(variable.name.clone(), (memory.alloc_zeroed(bytes)?, bytes));
        }
        for variable in &program.variables {
            let Some((address, bytes)) = globals.get(&variable.name) else { continue };
            for (offset, value) in &variable.init {
                let value = match value {
                    Value::Bits(bits) => *bits,
                    // Functions have no address here; calls through pointers are not supported.
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

    /// Address and size in bytes of a `.global` or `.const` variable.
    pub fn global(&self, name: &str) -> Option<(u64, u64)> {
        self.globals.get(name).copied()
    }
}
