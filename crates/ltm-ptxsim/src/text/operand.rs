//! Operands and constant expressions.

use super::lex::Kind;
use super::syntax::Operand;
use super::{Parsed, Parser};

/// Maximum nesting of brackets.
const MAX_DEPTH: u32 = 16;

/// Binary operators and their precedence, longest first.
const BINARY: [(&str, u32); 18] = [
    ("<<", 8),
    (">>", 8),
    ("<=", 7),
    (">=", 7),
    ("==", 6),
    ("!=", 6),
    ("&&", 2),
    ("||", 1),
    ("<", 7),
    (">", 7),
    ("&", 5),
    ("^", 4),
    ("|", 3),
    ("+", 9),
    ("-", 9),
    ("*", 10),
    ("/", 10),
    ("%", 10),
];

/// A constant. Integers have 64 bits.
#[derive(Clone, Copy)]
enum Constant {
    Integer(u64),
    F32(u32),
    F64(u64),
}

impl Operand {
    /// Converts a floating-point constant to the instruction's type.
    pub(super) fn give_type(&mut self, ty: &str) {
        match (&mut *self, ty) {
            (Operand::F64(bits), "f32") => {
                *self = Operand::F32((f64::from_bits(*bits) as f32).to_bits());
            }
            (Operand::F32(bits), "f64") => {
                *self = Operand::F64(f64::from(f32::from_bits(*bits)).to_bits());
            }
            (Operand::Vector(list), _) => list.iter_mut().for_each(|one| one.give_type(ty)),
            _ => {}
        }
    }
}

impl Parser<'_> {
    pub(super) fn operand(&mut self) -> Parsed<Operand> {
        self.operand_within(0)
    }

    /// An operand of a call; parentheses enclose lists.
    pub(super) fn call_operand(&mut self) -> Parsed<Operand> {
        if self.eat(b'(') {
            return Ok(Operand::List(self.list(b')', 1)?));
        }
        self.operand()
    }

    /// Operands up to a closing bracket.
    fn list(&mut self, close: u8, depth: u32) -> Parsed<Vec<Operand>> {
        let mut list = Vec::new();
        while !self.eat(close) {
            if !list.is_empty() {
                self.expect(b',')?;
            }
            list.push(self.operand_within(depth)?);
        }
        Ok(list)
    }

    fn operand_within(&mut self, depth: u32) -> Parsed<Operand> {
        if depth > MAX_DEPTH {
            return Err(self.fail(format!("more than {MAX_DEPTH} nested brackets")));
        }
        match self.peek_kind() {
            Some(Kind::Punct(b'{')) => {
                self.at += 1;
                Ok(Operand::Vector(self.list(b'}', depth + 1)?))
            }
            Some(Kind::Punct(b'[')) => {
                self.at += 1;
                self.bracketed(depth + 1)
            }
            Some(Kind::Punct(b'!'))
                if !self.peek_after().starts_with(|c: char| c.is_ascii_digit()) =>
            {
                self.at += 1;
                Ok(Operand::Not(self.operand_within(depth + 1)?.into()))
            }
            Some(Kind::Word) if !self.peek().starts_with(|c: char| c.is_ascii_digit()) => {
                let operand = self.named(depth)?;
                if self.eat(b'|') {
                    return Ok(Operand::Pair(
                        operand.into(),
                        self.operand_within(depth + 1)?.into(),
                    ));
                }
                Ok(operand)
            }
            Some(Kind::Word | Kind::Punct(b'-' | b'~' | b'!' | b'(' | b'+')) => {
                Ok(match self.constant(0, depth)? {
                    Constant::Integer(value) => Operand::Integer(value),
                    Constant::F32(bits) => Operand::F32(bits),
                    Constant::F64(bits) => Operand::F64(bits),
                })
            }
            _ => Err(self.fail(format!("expected an operand, found `{}`", self.peek()))),
        }
    }

    /// A register or a variable, with an optional offset or index.
    fn named(&mut self, depth: u32) -> Parsed<Operand> {
        let word = self.name()?;
        if word == "_" {
            return Ok(Operand::Sink);
        }
        // Members and dimensions may be separated from their name.
        let mut whole = word.to_owned();
        while self.peek_kind() == Some(Kind::Word) && self.peek().starts_with('.') {
            whole += self.next();
        }
        let operand = self.resolve(&whole);
        match self.peek() {
            "+" | "-" => {
                let offset = self.offset(depth)?;
                Ok(Operand::Sum(operand.into(), offset))
            }
            "[" => {
                self.at += 1;
                let index = self.integer(depth)?;
                self.expect(b']')?;
                let Some(bytes) = self.element_bytes(word) else {
                    return Err(self.fail(format!("`{word}` is not an array")));
                };
                let offset = index.wrapping_mul(u64::from(bytes)).cast_signed();
                Ok(Operand::Address(operand.into(), offset))
            }
            _ => Ok(operand),
        }
    }

    /// The content of square brackets: an address, or several operands.
    fn bracketed(&mut self, depth: u32) -> Parsed<Operand> {
        let base = self.operand_within(depth)?;
        if self.eat(b']') {
            return Ok(match base {
                Operand::Sum(base, offset) => Operand::Address(base, offset),
                // `[a[1]]`
                Operand::Address(base, offset) => Operand::Address(base, offset),
                base => Operand::Address(base.into(), 0),
            });
        }
        self.expect(b',')?;
        let mut parts = vec![base];
        parts.extend(self.list(b']', depth)?);
        Ok(Operand::List(parts))
    }

    /// The sum of the terms added to and subtracted from a name.
    fn offset(&mut self, depth: u32) -> Parsed<i64> {
        let mut sum = 0u64;
        loop {
            let subtract = match self.peek() {
                "+" => false,
                "-" => true,
                _ => return Ok(sum.cast_signed()),
            };
            self.at += 1;
            let Constant::Integer(term) = self.constant(10, depth)? else {
                return Err(self.fail("expected an integer offset"));
            };
            sum = if subtract { sum.wrapping_sub(term) } else { sum.wrapping_add(term) };
        }
    }

    /// An integer constant expression.
    pub(super) fn integer(&mut self, depth: u32) -> Parsed<u64> {
        match self.constant(0, depth)? {
            Constant::Integer(value) => Ok(value),
            _ => Err(self.fail("expected an integer")),
        }
    }

    /// An integer that is followed by `>`, which must not be taken as an operator.
    pub(super) fn count(&mut self) -> Parsed<u64> {
        match self.constant(8, 0)? {
            Constant::Integer(value) => Ok(value),
            _ => Err(self.fail("expected an integer")),
        }
    }

    /// A constant as the bits of a variable's element of type `ty`.
    pub(super) fn bits(&mut self, ty: &str) -> Parsed<u64> {
        let constant = self.constant(0, 0)?;
        let is_float = ty == "f32" || ty == "f64";
        Ok(match constant {
            Constant::Integer(_) if is_float => {
                return Err(
                    self.fail(format!("expected a floating-point number, such as 1.0, for .{ty}"))
                );
            }
            Constant::F32(bits) if ty == "f64" => f64::from(f32::from_bits(bits)).to_bits(),
            Constant::F64(bits) if ty == "f32" => {
                u64::from((f64::from_bits(bits) as f32).to_bits())
            }
            Constant::Integer(bits) | Constant::F64(bits) => bits,
            Constant::F32(bits) => u64::from(bits),
        })
    }

    /// An expression of operators with a precedence above `least`.
    fn constant(&mut self, least: u32, depth: u32) -> Parsed<Constant> {
        if depth > MAX_DEPTH {
            return Err(self.fail(format!("more than {MAX_DEPTH} nested brackets")));
        }
        let mut left = self.unary(depth)?;
        loop {
            if least == 0 && self.eat(b'?') {
                let Constant::Integer(condition) = left else {
                    return Err(self.fail("expected an integer before `?`"));
                };
                let yes = self.constant(0, depth + 1)?;
                self.expect(b':')?;
                let no = self.constant(0, depth + 1)?;
                return Ok(if condition != 0 { yes } else { no });
            }
            let here = format!("{}{}", self.peek(), self.peek_after());
            let operator = BINARY.iter().find(|(op, _)| {
                if op.len() == 2 {
                    here.starts_with(op) && self.peek().len() == 1
                } else {
                    self.peek() == *op
                }
            });
            let Some((operator, binds)) = operator.filter(|(_, binds)| *binds > least) else {
                return Ok(left);
            };
            self.at += operator.len();
            let right = self.constant(*binds, depth + 1)?;
            let (Constant::Integer(a), Constant::Integer(b)) = (left, right) else {
                return Err(self.fail("expected integers in a constant expression"));
            };
            let Some(value) = binary(operator, a, b) else {
                return Err(self.fail("division by 0 in a constant expression"));
            };
            left = Constant::Integer(value);
        }
    }

    fn unary(&mut self, depth: u32) -> Parsed<Constant> {
        let sign = match self.peek() {
            sign @ ("-" | "+" | "~" | "!") => sign,
            "(" => {
                self.at += 1;
                let inside = self.constant(0, depth + 1)?;
                self.expect(b')')?;
                return Ok(inside);
            }
            _ => {
                let word = self.word()?;
                let number = number(word);
                return number.ok_or_else(|| self.fail(format!("`{word}` is not a number")));
            }
        };
        self.at += 1;
        if depth > MAX_DEPTH {
            return Err(self.fail(format!("more than {MAX_DEPTH} signs")));
        }
        let value = self.unary(depth + 1)?;
        Ok(match (sign, value) {
            ("+", value) => value,
            ("-", Constant::Integer(x)) => Constant::Integer(x.wrapping_neg()),
            ("-", Constant::F32(x)) => Constant::F32(x ^ 1 << 31),
            ("-", Constant::F64(x)) => Constant::F64(x ^ 1 << 63),
            ("~", Constant::Integer(x)) => Constant::Integer(!x),
            ("!", Constant::Integer(x)) => Constant::Integer(u64::from(x == 0)),
            _ => return Err(self.fail(format!("expected an integer after `{sign}`"))),
        })
    }
}

fn binary(operator: &str, a: u64, b: u64) -> Option<u64> {
    let (x, y) = (a.cast_signed(), b.cast_signed());
    Some(match operator {
        "<<" => a.checked_shl(b as u32).unwrap_or(0),
        ">>" => (x >> b.min(63)).cast_unsigned(),
        "<=" => u64::from(x <= y),
        ">=" => u64::from(x >= y),
        "==" => u64::from(a == b),
        "!=" => u64::from(a != b),
        "&&" => u64::from(a != 0 && b != 0),
        "||" => u64::from(a != 0 || b != 0),
        "<" => u64::from(x < y),
        ">" => u64::from(x > y),
        "&" => a & b,
        "^" => a ^ b,
        "|" => a | b,
        "+" => a.wrapping_add(b),
        "-" => a.wrapping_sub(b),
        "*" => a.wrapping_mul(b),
        _ if b == 0 => return None,
        "/" => x.wrapping_div(y).cast_unsigned(),
        _ => x.wrapping_rem(y).cast_unsigned(),
    })
}

fn number(word: &str) -> Option<Constant> {
    let after =
        |prefixes: [&str; 2]| prefixes.into_iter().find_map(|prefix| word.strip_prefix(prefix));
    let hex = |digits: &str, n: usize| {
        let whole = digits.len() == n && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u64::from_str_radix(digits, 16).ok().filter(|_| whole)
    };
    if let Some(digits) = after(["0f", "0F"]) {
        return hex(digits, 8).map(|bits| Constant::F32(bits as u32));
    }
    if let Some(digits) = after(["0d", "0D"]) {
        return hex(digits, 16).map(Constant::F64);
    }
    let integer = |digits: &str, radix| {
        let digits = digits.trim_end_matches('U');
        u64::from_str_radix(digits, radix).ok().map(Constant::Integer)
    };
    if let Some(digits) = after(["0x", "0X"]) {
        return integer(digits, 16);
    }
    if let Some(digits) = after(["0b", "0B"]) {
        return integer(digits, 2);
    }
    if word.contains(['.', 'e', 'E']) {
        return word.parse::<f64>().ok().map(|x| Constant::F64(x.to_bits()));
    }
    if word.len() > 1 && word.starts_with('0') {
        return integer(&word[1..], 8)
            .or_else(|| integer(word, 10).filter(|_| word.trim_end_matches('U') == "0"));
    }
    integer(word, 10)
}
