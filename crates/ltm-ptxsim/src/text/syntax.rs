//! A module as its text declares it: functions, statements, operands, variables, all by name. Must not know how the
//! text is read, nor instructions.

use std::collections::HashMap;
use std::sync::Arc;

use super::target::Target;

/// A parsed module.
#[derive(Debug)]
pub(crate) struct Text {
    pub target: Target,
    pub functions: Vec<Function>,
    /// Index of each function that is not an entry.
    pub function_index: HashMap<String, usize>,
    /// `.global` and `.const` variables, and module-level `.shared` ones.
    pub variables: Vec<Variable>,
    /// Index of each variable; of several declarations of a name, that of the definition.
    pub variable_index: HashMap<String, usize>,
    /// Names of source files, by number.
    pub files: HashMap<u32, String>,
    /// Aliases of functions.
    pub aliases: HashMap<String, String>,
}

/// An `.entry` or a `.func` with a body.
#[derive(Debug)]
pub(crate) struct Function {
    pub name: String,
    pub is_entry: bool,
    pub params: Vec<Variable>,
    /// Return values of a `.func`.
    pub returns: Vec<Variable>,
    /// `.shared`, `.local` and `.param` variables of the body.
    pub variables: Vec<Variable>,
    /// Index of each of these variables.
    pub variable_index: HashMap<String, usize>,
    /// Per `.param` variable, the largest power of 2 that divides the size and offset of every
    /// access.
    pub granules: HashMap<String, u32>,
    pub statements: Vec<Statement>,
    pub max_threads: Option<u32>,
    pub max_registers: Option<u32>,
    /// Type of each register.
    pub registers: HashMap<String, String>,
}

#[derive(Clone, Debug)]
pub(crate) enum Statement {
    Label(String),
    /// The targets of `.branchtargets`, with its label.
    Targets(String, Vec<String>),
    Instruction(Instruction),
}

impl Function {
    /// A variable of the body.
    pub fn variable(&self, name: &str) -> Option<&Variable> {
        self.variable_index.get(name).map(|i| &self.variables[*i])
    }

    /// Updates `granules` with an access to a `.param` variable.
    pub(super) fn note_granule(&mut self, instruction: &Instruction) {
        let is_access = |base| instruction.opcode.starts_with(base);
        if !(is_access("ld.param") || is_access("st.param")) {
            return;
        }
        let ty = instruction.opcode.rsplit('.').next().unwrap_or_default();
        let bytes = type_bytes(ty).unwrap_or(1);
        for operand in &instruction.operands {
            if let Operand::Address(base, offset) = operand
                && let Operand::Name(name) = &**base
            {
                // The lowest set bit of either number is a divisor of both.
                let offset = offset.unsigned_abs() as u32 | bytes;
                let divisor = 1 << offset.trailing_zeros();
                let granule = self.granules.entry(name.clone()).or_insert(8);
                *granule = divisor.min(*granule);
            }
        }
    }

    pub fn push_variable(&mut self, variable: Variable) {
        self.variable_index.insert(variable.name.clone(), self.variables.len());
        self.variables.push(variable);
    }
}

impl Text {
    /// A variable declared at module level.
    pub fn variable(&self, name: &str) -> Option<&Variable> {
        self.variable_index.get(name).map(|i| &self.variables[*i])
    }

    /// A function that has a body, by its name or an alias.
    pub fn function(&self, name: &str) -> Option<&Function> {
        let name = self.aliases.get(name).map_or(name, String::as_str);
        self.function_index.get(name).map(|i| &self.functions[*i])
    }
}

impl Statement {
    /// The line of an instruction; `None` for other statements.
    pub fn line(&self) -> Option<u32> {
        match self {
            Statement::Instruction(instruction) => Some(instruction.line),
            _ => None,
        }
    }
}

/// File numbers and lines, from the innermost inlined function outwards.
pub(crate) type Frames = Arc<[(u32, u32)]>;

#[derive(Clone, Debug)]
pub(crate) struct Instruction {
    /// A predicate, or its negation.
    pub guard: Option<Operand>,
    pub opcode: String,
    pub operands: Vec<Operand>,
    pub line: u32,
    pub text: Arc<str>,
    pub source: Option<Frames>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    Register(String),
    /// `!a`.
    Not(Box<Operand>),
    /// `%p|%q`.
    Pair(Box<Operand>, Box<Operand>),
    Integer(u64),
    F32(u32),
    F64(u64),
    /// Any name but a register's: a variable, a function or a label.
    Name(String),
    /// `_`.
    Sink,
    /// `a + offset`.
    Sum(Box<Operand>, i64),
    /// `[base + offset]`.
    Address(Box<Operand>, i64),
    Vector(Vec<Operand>),
    /// `(a, b)` of a call, and `[a, b]`.
    List(Vec<Operand>),
}

/// A declared variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variable {
    /// State space without its dot; `reg` for a function's parameter in a register.
    pub space: &'static str,
    pub name: String,
    pub align: u32,
    pub bytes: u32,
    /// Bytes per element; for vectors, per member.
    pub scalar: u32,
    /// Initial values, by byte offset; everything else is 0.
    pub init: Vec<(u32, Value)>,
    /// Declared with `.extern`: defined in another module.
    pub is_extern: bool,
}

/// Initial value of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Bits(u64),
    /// Address of a variable, plus an offset.
    Address(String, i64),
}

/// Size in bytes of a fundamental type, without its dot.
pub(crate) fn type_bytes(ty: &str) -> Option<u32> {
    match ty {
        "b8" | "u8" | "s8" | "e4m3" | "e5m2" => Some(1),
        "b16" | "u16" | "s16" | "f16" | "bf16" => Some(2),
        "b32" | "u32" | "s32" | "f32" | "f16x2" | "bf16x2" | "tf32" => Some(4),
        "b64" | "u64" | "s64" | "f64" => Some(8),
        "b128" => Some(16),
        // Opaque handles.
        "texref" | "samplerref" | "surfref" => Some(8),
        _ => None,
    }
}
