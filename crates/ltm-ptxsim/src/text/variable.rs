//! Parses variables: their state space, size and initial values.

use super::symbol::Symbol;
use super::syntax::{Operand, Value, Variable, type_bytes};
use super::{Parsed, Parser};

/// Maximum bytes of a variable. Local variables have a smaller limit.
const MAX_BYTES: u64 = u32::MAX as u64;
/// Maximum local memory per thread on any device, in bytes.
const MAX_LOCAL_BYTES: u64 = 512 << 10;
const MAX_ALIGN: u32 = 1 << 16;
/// Maximum number of extents of an array.
const MAX_EXTENTS: usize = 16;

fn space_of(word: &str) -> Option<&'static str> {
    ["global", "const", "shared", "local", "param", "reg"]
        .into_iter()
        .find(|space| word.strip_prefix('.') == Some(space))
}

/// The part of a declaration before the name.
#[derive(Default)]
struct Declaration {
    space: Option<&'static str>,
    ty: Option<String>,
    bytes: u32,
    align: Option<u32>,
    is_extern: bool,
}

impl<'t> Parser<'t> {
    /// Variable declarations up to the semicolon.
    pub(super) fn variables(&mut self) -> Parsed<Vec<Variable>> {
        let declaration = self.before_name()?;
        let mut variables = Vec::new();
        loop {
            variables.push(self.variable(&declaration)?);
            if self.eat(b';') {
                return Ok(variables);
            }
            self.expect(b',')?;
        }
    }

    /// Parameters up to the closing parenthesis; the opening one has been consumed.
    pub(super) fn parameters(&mut self) -> Parsed<Vec<Variable>> {
        let mut variables = Vec::new();
        while !self.eat(b')') {
            if !variables.is_empty() {
                self.expect(b',')?;
            }
            let declaration = self.before_name()?;
            variables.push(self.variable(&declaration)?);
        }
        Ok(variables)
    }

    fn before_name(&mut self) -> Parsed<Declaration> {
        let mut declaration = Declaration { bytes: 1, ..Declaration::default() };
        // What follows `.ptr` describes the memory that is pointed to.
        let mut pointee = false;
        while self.peek().starts_with('.') {
            let word = self.next();
            for part in word.split_inclusive('.').map(|part| part.trim_end_matches('.')) {
                if part.is_empty() {
                    continue;
                }
                match part {
                    "visible" | "weak" | "common" | "managed" | "unified" | "attribute" => {}
                    "extern" => declaration.is_extern = true,
                    "ptr" => pointee = true,
                    "align" => {
                        let align = self.integer(0)?;
                        if !align.is_power_of_two() || align > u64::from(MAX_ALIGN) {
                            let reason =
                                format!("alignment {align} is not a power of 2 up to {MAX_ALIGN}");
                            return Err(self.fail(reason));
                        }
                        declaration.align =
                            declaration.align.or(Some(align as u32).filter(|_| !pointee));
                    }
                    "v2" | "v4" | "v8" => {
                        declaration.bytes *= u32::from(part.as_bytes()[1] - b'0');
                    }
                    _ => match (space_of(&format!(".{part}")), type_bytes(part)) {
                        (Some(_), _) if pointee => {}
                        (Some(space), _) if declaration.space.is_none() => {
                            declaration.space = Some(space)
                        }
                        (None, Some(_)) if declaration.ty.is_none() => {
                            declaration.ty = Some(part.to_owned())
                        }
                        (None, None) if part == "pred" => declaration.ty = Some(part.to_owned()),
                        _ => return Err(self.fail(format!("unknown directive `.{part}`"))),
                    },
                }
            }
            // `.attribute(.managed)`
            if word.ends_with(".attribute") && self.eat(b'(') {
                while !self.eat(b')') {
                    if self.next().is_empty() {
                        return Err(self.fail("the text ends in the middle of a declaration"));
                    }
                }
            }
        }
        let Some(ty) = declaration.ty.clone() else {
            return Err(self.fail("expected a type, such as .b32, before the name of a variable"));
        };
        declaration.bytes *= type_bytes(&ty).unwrap_or(1);
        Ok(declaration)
    }

    fn variable(&mut self, declaration: &Declaration) -> Parsed<Variable> {
        let Some(space) = declaration.space else {
            return Err(self.fail("expected a state space, such as .global, in a declaration"));
        };
        let ty = declaration.ty.as_deref().unwrap_or_default();
        // Function declarations may omit the names of their parameters.
        let is_named = super::Kind::Word == self.peek_kind().unwrap_or(super::Kind::Quoted);
        let name = if is_named || !matches!(space, "param" | "reg") { self.name()? } else { "_" };
        let mut extents = Vec::new();
        while self.eat(b'[') {
            let extent = if self.eat(b']') { None } else { Some(self.integer(0)?) };
            if extent.is_some() {
                self.expect(b']')?;
            }
            extents.push(extent);
            if extents.len() > MAX_EXTENTS {
                return Err(self.fail(format!("`{name}` has more than {MAX_EXTENTS} extents")));
            }
        }
        let element = declaration.bytes;
        let mut init = Vec::new();
        let mut end = 0;
        if self.eat(b'=') {
            // Bytes per item of each level of braces: rows, elements, members of a vector.
            let scalar = type_bytes(ty).unwrap_or(1);
            let mut levels = if scalar < element { vec![scalar.into()] } else { Vec::new() };
            levels.push(u64::from(element));
            for extent in extents.iter().skip(1).rev() {
                let inner = levels[levels.len() - 1];
                levels.push(inner.saturating_mul(extent.unwrap_or(1)));
            }
            levels.reverse();
            end = self.initialiser(ty, &levels, 0, &mut init)?;
        }
        let mut bytes = u64::from(element);
        for (i, extent) in extents.iter().enumerate() {
            let inner = bytes.max(1);
            let extent = match extent {
                Some(extent) => *extent,
                // The initialiser decides the length of an array without one.
                None if i == 0 && end > 0 => end.div_ceil(inner),
                None => 0,
            };
            bytes = bytes.saturating_mul(extent);
        }
        let most = if space == "local" { MAX_LOCAL_BYTES } else { MAX_BYTES };
        if bytes > most {
            return Err(
                self.fail(format!("`{name}` takes {bytes} bytes; .{space} holds at most {most}"))
            );
        }
        if end > bytes {
            return Err(self.fail(format!("`{name}` takes {bytes} bytes, its initialiser {end}")));
        }
        let name = match space {
            "reg" => self.declare(name, Symbol::Register(ty.to_owned())),
            "global" | "const" => self.declare_variable(name, element, true),
            _ => self.declare_variable(name, element, false),
        };
        let align = declaration.align.unwrap_or(element).max(1);
        let is_extern = declaration.is_extern;
        Ok(Variable {
            space,
            name,
            align,
            bytes: bytes as u32,
            scalar: type_bytes(ty).unwrap_or(1).min(8),
            init,
            is_extern,
        })
    }

    /// Parses a value, or a list of values in braces; returns the offset of its end. `levels` are
    /// the bytes per item of this list and of the lists within it.
    fn initialiser(
        &mut self,
        ty: &str,
        levels: &[u64],
        at: u64,
        init: &mut Vec<(u32, Value)>,
    ) -> Parsed<u64> {
        if !self.eat(b'{') {
            let value = self.initial_value(ty)?;
            let Ok(offset) = u32::try_from(at) else {
                return Err(self.fail("the initialiser is larger than any variable"));
            };
            init.push((offset, value));
            return Ok(at + u64::from(type_bytes(ty).unwrap_or(1)));
        }
        let mut end = at;
        let mut first = true;
        while !self.eat(b'}') {
            if !std::mem::take(&mut first) {
                self.expect(b',')?;
            }
            if self.peek() != "{" {
                end = self.initialiser(ty, levels, end, init)?;
                continue;
            }
            let Some((row, inner)) = levels.split_first().filter(|(_, inner)| !inner.is_empty())
            else {
                return Err(self.fail("the initialiser is nested more deeply than the array"));
            };
            let row_end = end.saturating_add(*row);
            if self.initialiser(ty, inner, end, init)? > row_end {
                return Err(self.fail("a row of the initialiser is longer than the array's"));
            }
            // A row with fewer values than elements is filled with zeros.
            end = row_end;
        }
        Ok(end)
    }

    /// A number, or the address of a variable.
    fn initial_value(&mut self, ty: &str) -> Parsed<Value> {
        let is_number =
            |word: &str| word.starts_with(|c: char| c.is_ascii_digit() || "-+~!(".contains(c));
        if is_number(self.peek()) {
            return Ok(Value::Bits(self.bits(ty)?));
        }
        let generic = self.peek() == "generic" && self.peek_after() == "(";
        if generic {
            self.at += 2;
        }
        let value = match self.operand()? {
            Operand::Name(name) => Value::Address(name, 0),
            Operand::Sum(base, offset) => match *base {
                Operand::Name(name) => Value::Address(name, offset),
                _ => return Err(self.fail("expected the name of a variable in an initialiser")),
            },
            _ => {
                return Err(
                    self.fail("expected a number or the name of a variable in an initialiser")
                );
            }
        };
        if generic {
            self.expect(b')')?;
            if matches!(self.peek(), "+" | "-") {
                let subtract = self.next() == "-";
                let offset = self.integer(0)?.cast_signed();
                if let Value::Address(name, _) = value {
                    return Ok(Value::Address(
                        name,
                        if subtract { offset.wrapping_neg() } else { offset },
                    ));
                }
            }
        }
        Ok(value)
    }
}
