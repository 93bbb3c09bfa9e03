//! Directives: function headers, registers, source lines, and everything else that begins with a
//! dot.

use std::collections::HashMap;

use super::lex::Kind;
use super::symbol::Symbol;
use super::syntax::{Function, Operand, Statement, type_bytes};
use super::target::{Target, Version};
use super::{Parsed, Parser};

/// Maximum number of nested inlined functions that a source line is followed through.
const MAX_INLINED: usize = 64;

impl<'t> Parser<'t> {
    pub(super) fn version(&mut self) -> Parsed<()> {
        self.at += 1;
        let word = self.word()?;
        let version = Version::parse(word).map_err(|reason| self.fail(reason))?;
        self.version = Some(version);
        Ok(())
    }

    pub(super) fn target(&mut self) -> Parsed<()> {
        self.at += 1;
        if self.version.is_none() {
            return Err(self.fail("expected .version before .target"));
        }
        loop {
            let word = self.word()?;
            // Other words, such as `debug` or `texmode_independent`, have no effect.
            if word.starts_with("sm_") || word.starts_with("compute_") {
                let target =
                    Target::parse(word, self.version).map_err(|reason| self.fail(reason))?;
                self.target = Some(target);
            }
            if !self.eat(b',') {
                break;
            }
        }
        if self.target.is_none() {
            return Err(self.fail("expected an architecture, such as sm_80, after .target"));
        }
        Ok(())
    }

    pub(super) fn address_size(&mut self) -> Parsed<()> {
        self.at += 1;
        match self.word()? {
            "64" => Ok(()),
            other => {
                Err(self.fail(format!("addresses of {other} bits are not supported, only of 64")))
            }
        }
    }

    /// `.file 1 "name", time, size`; it has no semicolon.
    pub(super) fn file(&mut self) -> Parsed<()> {
        self.at += 1;
        let number = self.integer(0)? as u32;
        if self.peek_kind() != Some(Kind::Quoted) {
            return Err(self.fail("expected the quoted name of a file"));
        }
        let name = self.next().trim_matches('"').to_owned();
        self.files.insert(number, name);
        while self.eat(b',') {
            self.integer(0)?;
        }
        Ok(())
    }

    /// `.loc file line column, function_name label + offset, inlined_at file line column`
    pub(super) fn loc(&mut self) -> Parsed<()> {
        self.at += 1;
        let here = self.place()?;
        let mut inlined_at = None;
        while self.eat(b',') {
            match self.word()? {
                "function_name" => {
                    self.name()?;
                    if self.eat(b'+') {
                        self.integer(0)?;
                    }
                }
                "inlined_at" => inlined_at = Some(self.place()?),
                word => return Err(self.fail(format!("unknown part `{word}` of .loc"))),
            }
        }
        match inlined_at {
            Some(outer) => self.inlined.insert(here, outer),
            None => self.inlined.remove(&here),
        };
        let mut frames = vec![(here.0, here.1)];
        let mut next = inlined_at;
        while let Some(outer) = next.filter(|_| frames.len() < MAX_INLINED) {
            frames.push((outer.0, outer.1));
            next = self.inlined.get(&outer).copied();
        }
        self.source = Some(frames.into());
        Ok(())
    }

    fn place(&mut self) -> Parsed<(u32, u32, u32)> {
        let mut number = || -> Parsed<u32> {
            let word = self.word()?;
            word.parse().map_err(|_| self.fail(format!("expected a number, found `{word}`")))
        };
        Ok((number()?, number()?, number()?))
    }

    /// Skips a section of debug information.
    pub(super) fn section(&mut self) -> Parsed<()> {
        while self.peek_kind() != Some(Kind::Punct(b'{')) {
            if self.next().is_empty() {
                return Err(self.fail("expected `{` after the name of a section"));
            }
        }
        let mut depth = 0u32;
        loop {
            match self.next() {
                "{" => depth += 1,
                "}" if depth == 1 => return Ok(()),
                "}" => depth -= 1,
                "" => return Err(self.fail("the text ends inside a section")),
                _ => {}
            }
        }
    }

    pub(super) fn alias(&mut self) -> Parsed<()> {
        self.at += 1;
        let name = self.name()?.to_owned();
        self.expect(b',')?;
        let function = self.name()?.to_owned();
        self.expect(b';')?;
        self.aliases.insert(name, function);
        Ok(())
    }

    /// An `.entry` or a `.func`: a declaration, or a definition with its body.
    pub(super) fn open_function(&mut self) -> Parsed<()> {
        let mut is_entry = None;
        while is_entry.is_none() {
            match self.next() {
                ".entry" => is_entry = Some(true),
                ".func" => is_entry = Some(false),
                ".visible" | ".extern" | ".weak" => {}
                word => return Err(self.fail(format!("expected .entry or .func, found `{word}`"))),
            }
        }
        self.function = Some(Function {
            name: String::new(),
            is_entry: is_entry == Some(true),
            params: Vec::new(),
            returns: Vec::new(),
            variables: Vec::new(),
            variable_index: HashMap::new(),
            granules: HashMap::new(),
            statements: Vec::new(),
            max_threads: None,
            max_registers: None,
            registers: HashMap::new(),
        });
        self.source = None;
        self.inlined.clear();
        let outside = self.frames.len();
        self.open_scope();
        self.function_attribute()?;
        let returns = if self.eat(b'(') { self.parameters()? } else { Vec::new() };
        let name = self.name()?.to_owned();
        let params = if self.eat(b'(') { self.parameters()? } else { Vec::new() };
        let (max_threads, max_registers) = self.limits()?;
        if self.eat(b';') {
            // Only a declaration.
            self.function = None;
            self.frames.truncate(outside);
            return Ok(());
        }
        if !self.eat(b'{') {
            return Err(self.fail(format!("expected `{{` or `;` after the header of `{name}`")));
        }
        if let Some(function) = &mut self.function {
            (function.name, function.params, function.returns) = (name, params, returns);
            (function.max_threads, function.max_registers) = (max_threads, max_registers);
        }
        self.body()
    }

    /// Skips `.attribute(…)` before a function's name.
    fn function_attribute(&mut self) -> Parsed<()> {
        while self.peek() == ".attribute" {
            self.at += 1;
            while !self.eat(b')') {
                if self.next().is_empty() {
                    return Err(self.fail("the text ends in the middle of an attribute"));
                }
            }
        }
        Ok(())
    }

    /// Parses the directives after a header; returns the maximum threads per block and registers
    /// per thread.
    fn limits(&mut self) -> Parsed<(Option<u32>, Option<u32>)> {
        let (mut threads, mut registers) = (None, None);
        while self.peek().starts_with('.') {
            let directive = self.next();
            let mut values = Vec::new();
            while self.peek_kind() == Some(Kind::Word) && !self.peek().starts_with('.') {
                values.push(self.integer(0)?);
                if !self.eat(b',') {
                    break;
                }
            }
            // `.pragma "…";` has its own semicolon.
            if directive == ".pragma" {
                self.skip_statement()?;
            }
            match (directive, values.as_slice()) {
                (".maxntid" | ".reqntid", [_, ..]) => {
                    let product = values
                        .iter()
                        .try_fold(1u32, |product, x| product.checked_mul(u32::try_from(*x).ok()?));
                    threads = Some(product.unwrap_or(u32::MAX));
                }
                (".maxnreg", [n]) => registers = u32::try_from(*n).ok(),
                (".maxntid" | ".reqntid" | ".maxnreg", _) => {
                    return Err(self.fail(format!("expected numbers after {directive}")));
                }
                _ => {}
            }
        }
        Ok((threads, registers))
    }

    pub(super) fn label(&mut self) -> Parsed<()> {
        let name = self.name()?;
        self.expect(b':')?;
        match self.peek() {
            ".branchtargets" => {
                self.at += 1;
                let mut targets = Vec::new();
                loop {
                    targets.push(self.name()?.to_owned());
                    if !self.eat(b',') {
                        break;
                    }
                }
                self.expect(b';')?;
                let own = self.declare_label(name);
                self.push(Statement::Targets(own, targets));
            }
            ".callprototype" | ".calltargets" => self.skip_statement()?,
            _ => {
                let own = self.declare_label(name);
                self.push(Statement::Label(own));
            }
        }
        Ok(())
    }

    /// A directive in a function's body.
    pub(super) fn directive(&mut self) -> Parsed<()> {
        match self.peek() {
            ".loc" => return self.loc(),
            ".file" => return self.file(),
            ".pragma" => return self.skip_statement(),
            word if word == ".reg" || word.starts_with(".reg.") => return self.registers(),
            _ => {}
        }
        // A function may be declared where it is called.
        let ahead = self.tokens[self.at..].iter().take(3).map(|token| token.text(self.ptx));
        if ahead.into_iter().any(|word| word == ".func") {
            return self.skip_statement();
        }
        let variables = self.variables()?;
        for variable in variables {
            match (&mut self.function, variable.space) {
                (Some(function), "shared" | "local" | "param") => function.push_variable(variable),
                _ => self.variables.push(variable),
            }
        }
        Ok(())
    }

    /// `.reg .v4 .b32 a, b<5>;`
    fn registers(&mut self) -> Parsed<()> {
        let (mut ty, mut vector) = (None, None);
        while self.peek().starts_with('.') {
            for part in self.next().split('.').filter(|part| !part.is_empty()) {
                match part {
                    "reg" => {}
                    "v2" => vector = Some(2),
                    "v4" => vector = Some(4),
                    _ if part == "pred" || type_bytes(part).is_some() => ty = Some(part.to_owned()),
                    _ => return Err(self.fail(format!("unknown register type `.{part}`"))),
                }
            }
        }
        let Some(ty) = ty else {
            return Err(self.fail("expected a register type, such as .b32"));
        };
        loop {
            let name = self.name()?;
            if self.eat(b'<') {
                let n = self.count()?;
                self.expect(b'>')?;
                let n = u32::try_from(n).unwrap_or(u32::MAX);
                self.declare(name, Symbol::Family(ty.clone(), n));
            } else if let Some(n) = vector {
                self.declare(name, Symbol::Vector(ty.clone(), n));
            } else {
                self.declare(name, Symbol::Register(ty.clone()));
            }
            if self.eat(b';') {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }
}

impl Operand {
    /// The name of a variable, a function or a label.
    pub fn as_name(&self) -> Option<&str> {
        match self {
            Operand::Name(name) => Some(name),
            _ => None,
        }
    }
}
