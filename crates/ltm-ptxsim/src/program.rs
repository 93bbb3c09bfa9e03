//! A loaded module: entries with their parameters, variables in memory. Knows no execution.

use std::collections::HashMap;

use crate::decode;
use crate::fault::ParseError;
use crate::inst::Code;
use crate::memory::{Memory, MemoryError};
use crate::parse::{self, Variable};

/// PTX, parsed and decoded: every instruction in it is known.
#[derive(Clone, Debug)]
pub struct Program {
    entries: Vec<Entry>,
    variables: Vec<Variable>,
    pub(crate) files: HashMap<u32, String>,
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
    pub(crate) code: Code,
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
    /// [`ParseError`] names the line, and an unknown instruction by its name.
    pub fn parse(ptx: &str) -> Result<Self, ParseError> {
        let text = parse::parse(ptx)?;
        let mut entries = Vec::new();
        for function in text.functions.iter().filter(|function| function.is_entry) {
            let params = layout(&function.params);
            let (code, static_shared_bytes) = decode::decode(&text, function, &params)?;
            entries.push(Entry {
                name: function.name.clone(),
                params,
                static_shared_bytes,
                max_threads: function.max_threads,
                max_registers: function.max_registers,
                code,
            });
        }
        let in_memory = |v: &Variable| v.space == "global" || v.space == "const";
        let variables = text.variables.into_iter().filter(in_memory).collect();
        Ok(Self { entries, variables, files: text.files })
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

fn layout(params: &[Variable]) -> Vec<Param> {
    let mut end = 0u32;
    let place = |param: &Variable| {
        let offset = end.next_multiple_of(param.align);
        end = offset + param.bytes;
        Param { offset, size: param.bytes, align: param.align }
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
            let bytes = variable.bytes as usize;
            let address = memory.alloc(bytes as u64)?;
            // Variables without an initialiser start as zeros.
            let mut data = variable.init.clone();
            data.resize(bytes, 0);
            memory.write(address, &data)?;
            globals.insert(variable.name.clone(), (address, bytes as u64));
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
