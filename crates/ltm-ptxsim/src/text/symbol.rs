//! Names and the scopes that declare them.

use std::collections::HashMap;

use super::Parser;
use super::syntax::{Function, Operand, Statement};

/// What a name refers to.
#[derive(Clone, Debug)]
pub(super) enum Symbol {
    /// A register and its type.
    Register(String),
    /// Registers `name0` to `name(n - 1)` and their type.
    Family(String, u32),
    /// A vector register: type and number of its elements.
    Vector(String, u32),
    /// A variable: its unique name, and the bytes per element.
    Variable(String, u32),
}

/// The names of one scope.
#[derive(Default)]
pub(super) struct Frame<'t> {
    /// Appended to each name to make it unique across scopes.
    suffix: String,
    names: HashMap<&'t str, Symbol>,
    /// Unique names of the labels.
    labels: HashMap<&'t str, String>,
    /// Index of the scope's first statement.
    first_statement: usize,
}

/// Names of a vector's members; each has two.
const MEMBERS: [[&str; 2]; 4] = [["x", "r"], ["y", "g"], ["z", "b"], ["w", "a"]];

impl<'t> Parser<'t> {
    pub(super) fn open_scope(&mut self) {
        self.n_scopes += 1;
        // Names in a function's outermost scope stay as written, since faults quote them.
        let outermost = self.frames.len() == 1;
        let suffix = if outermost { String::new() } else { format!("#{}", self.n_scopes) };
        let first_statement = self.function.as_ref().map_or(0, |f| f.statements.len());
        self.frames.push(Frame { suffix, first_statement, ..Frame::default() });
    }

    /// Closes the innermost scope. Branches in it prefer its own labels.
    pub(super) fn close_scope(&mut self) {
        let Some(frame) = self.frames.pop() else { return };
        if let Some(function) = &mut self.function {
            rename_labels(function, &frame);
        }
        if self.frames.len() == 1
            && let Some(function) = self.function.take()
        {
            self.functions.push(function);
        }
    }

    /// Declares a name in the innermost scope; returns its unique name.
    pub(super) fn declare(&mut self, name: &'t str, symbol: Symbol) -> String {
        let Some(frame) = self.frames.last_mut() else { return name.to_owned() };
        let own = format!("{name}{}", frame.suffix);
        if let (Symbol::Register(ty), Some(function)) = (&symbol, &mut self.function) {
            function.registers.insert(own.clone(), ty.clone());
        }
        frame.names.insert(name, symbol);
        own
    }

    /// Declares a variable with `element` bytes per element; returns its unique name. With
    /// `of_module` the name must be unique in the whole module.
    pub(super) fn declare_variable(
        &mut self,
        name: &'t str,
        element: u32,
        of_module: bool,
    ) -> String {
        let nested = self.frames.len() > 1;
        let Some(frame) = self.frames.last_mut() else { return name.to_owned() };
        let own = match of_module && nested {
            true => format!("{name}#{}", self.n_scopes),
            false => format!("{name}{}", frame.suffix),
        };
        frame.names.insert(name, Symbol::Variable(own.clone(), element));
        own
    }

    /// Declares a label in the innermost scope; returns its unique name.
    pub(super) fn declare_label(&mut self, name: &'t str) -> String {
        let Some(frame) = self.frames.last_mut() else { return name.to_owned() };
        let own = format!("{name}{}", frame.suffix);
        frame.labels.insert(name, own.clone());
        own
    }

    /// Resolves a word that is not a number.
    pub(super) fn resolve(&mut self, word: &str) -> Operand {
        let digits = word.len() - word.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        for frame in self.frames.iter().rev() {
            let own = |name: &str| format!("{name}{}", frame.suffix);
            match frame.names.get(word) {
                Some(Symbol::Register(_)) => return Operand::Register(own(word)),
                Some(Symbol::Variable(own, _)) => return Operand::Name(own.clone()),
                Some(Symbol::Vector(ty, n)) => {
                    let members: Vec<String> = MEMBERS[..*n as usize]
                        .iter()
                        .map(|m| own(&format!("{word}.{}", m[0])))
                        .collect();
                    return self.vector(&members, &ty.clone());
                }
                Some(Symbol::Family(..)) | None => {}
            }
            // Any number of the trailing digits may be the index.
            for at in word.len() - digits.min(10)..word.len() {
                let (base, number) = word.split_at(at);
                let leading_zero = number.len() > 1 && number.starts_with('0');
                if let Some(Symbol::Family(ty, n)) = frame.names.get(base)
                    && !leading_zero
                    && number.parse().is_ok_and(|number: u32| number < *n)
                {
                    let (own, ty) = (own(word), ty.clone());
                    return self.register(own, ty);
                }
            }
            if let Some((base, member)) = word.rsplit_once('.')
                && let Some(Symbol::Vector(ty, n)) = frame.names.get(base)
                && let Some(i) = MEMBERS[..*n as usize].iter().position(|m| m.contains(&member))
            {
                let (own, ty) = (own(&format!("{base}.{}", MEMBERS[i][0])), ty.clone());
                return self.register(own, ty);
            }
        }
        if word.starts_with('%') {
            Operand::Register(word.to_owned())
        } else {
            Operand::Name(word.to_owned())
        }
    }

    fn vector(&mut self, members: &[String], ty: &str) -> Operand {
        Operand::Vector(
            members.iter().map(|own| self.register(own.clone(), ty.to_owned())).collect(),
        )
    }

    fn register(&mut self, own: String, ty: String) -> Operand {
        if let Some(function) = &mut self.function
            && !function.registers.contains_key(&own)
        {
            function.registers.insert(own.clone(), ty);
        }
        Operand::Register(own)
    }

    /// Bytes per element of a variable.
    pub(super) fn element_bytes(&self, name: &str) -> Option<u32> {
        self.frames.iter().rev().find_map(|frame| match frame.names.get(name)? {
            Symbol::Variable(_, bytes) => Some(*bytes),
            _ => None,
        })
    }
}

/// Replaces the labels in a scope's branches by their unique names.
fn rename_labels(function: &mut Function, frame: &Frame) {
    let renamed = |name: &mut String| {
        if let Some(own) = frame.labels.get(name.as_str()) {
            name.clone_from(own);
        }
    };
    if frame.labels.is_empty() || frame.suffix.is_empty() {
        return;
    }
    for statement in &mut function.statements[frame.first_statement..] {
        match statement {
            Statement::Targets(_, names) => names.iter_mut().for_each(renamed),
            Statement::Instruction(instruction)
                if instruction.opcode.starts_with("bra")
                    || instruction.opcode.starts_with("brx") =>
            {
                for operand in &mut instruction.operands {
                    if let Operand::Name(name) = operand {
                        renamed(name);
                    }
                }
            }
            _ => {}
        }
    }
}
