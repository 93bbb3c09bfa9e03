//! PTX text as functions of labels and instructions with names. Knows the grammar, no instruction.

use std::collections::HashMap;

use crate::fault::ParseError;

/// A module's text, taken apart.
#[derive(Debug, Default)]
pub(crate) struct Text {
    pub functions: Vec<Function>,
    /// `.global`, `.const` and module-level `.shared` variables.
    pub variables: Vec<Variable>,
    /// Source files by their number.
    pub files: HashMap<u32, String>,
}

/// An `.entry` or a `.func`.
#[derive(Debug)]
pub(crate) struct Function {
    pub name: String,
    pub is_entry: bool,
    pub params: Vec<Variable>,
    /// What a `.func` returns.
    pub returns: Vec<Variable>,
    /// `.shared`, `.local` and `.param` variables of the body.
    pub variables: Vec<Variable>,
    pub statements: Vec<Statement>,
    pub max_threads: Option<u32>,
    pub max_registers: Option<u32>,
    /// Types by register name, or by the prefix of a numbered family.
    pub registers: HashMap<String, String>,
}

/// A declared variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variable {
    pub space: String,
    pub name: String,
    pub align: u32,
    pub bytes: u32,
    pub init: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(crate) enum Statement {
    Label(String),
    /// `.branchtargets` under the label that stands before it.
    Targets(Vec<String>),
    Instruction(Instruction),
}

#[derive(Clone, Debug)]
pub(crate) struct Instruction {
    /// A predicate's name, and whether it is negated.
    pub guard: Option<(String, bool)>,
    pub opcode: String,
    pub operands: Vec<Operand>,
    pub line: u32,
    pub text: String,
    /// File and line of the source.
    pub source: Option<(u32, u32)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    Register(String),
    /// `!%p`.
    Not(String),
    /// `%p|%q`.
    Pair(Box<Operand>, Box<Operand>),
    Integer(u64),
    F32(u32),
    F64(u64),
    Name(String),
    /// `_`.
    Sink,
    /// `[base + offset]`.
    Address(Box<Operand>, i64),
    Vector(Vec<Operand>),
    /// `(a, b)` of a call.
    List(Vec<Operand>),
}

struct Parser {
    text: Text,
    function: Option<Function>,
    /// Names that an inner scope redeclares, with what they are called from there on.
    scopes: Vec<HashMap<String, String>>,
    n_scopes: usize,
    source: Option<(u32, u32)>,
}

pub(crate) fn parse(ptx: &str) -> Result<Text, ParseError> {
    let clean = without_comments(ptx);
    let mut parser = Parser {
        text: Text::default(),
        function: None,
        scopes: Vec::new(),
        n_scopes: 0,
        source: None,
    };
    let (mut statement, mut start, mut line) = (String::new(), 1, 1);
    let (mut depth, mut quoted) = (0, false);
    let mut chars = clean.chars().peekable();
    while let Some(c) = chars.next() {
        let empty = statement.trim().is_empty();
        if empty && !c.is_whitespace() {
            start = line;
        }
        let fail = |reason: &str| fail(start, &statement, reason);
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            '{' if depth == 0 && opens_body(&statement) => {
                parser.open_function(start, &statement)?;
                statement.clear();
                continue;
            }
            '{' if depth == 0 && statement.trim_start().starts_with(".section") => {
                chars
                    .by_ref()
                    .take_while(|c| *c != '}')
                    .filter(|c| *c == '\n')
                    .for_each(|_| line += 1);
                statement.clear();
                continue;
            }
            '{' if empty => {
                parser.n_scopes += 1;
                parser.scopes.push(HashMap::new());
                continue;
            }
            '}' if empty => {
                parser.close_scope().ok_or_else(|| fail("a brace closes nothing"))?;
                continue;
            }
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            ';' if depth == 0 => {
                parser.statement(start, statement.trim())?;
                statement.clear();
                continue;
            }
            ':' if depth == 0 && is_name(statement.trim()) && chars.peek() != Some(&':') => {
                let name = parser.resolve(statement.trim());
                parser
                    .push(Statement::Label(name))
                    .ok_or_else(|| fail("a label outside a function"))?;
                statement.clear();
                continue;
            }
            '\n' => {
                line += 1;
                if is_line_directive(&statement) {
                    parser.line_directive(start, statement.trim())?;
                    statement.clear();
                    continue;
                }
            }
            _ => {}
        }
        statement.push(c);
    }
    if parser.function.is_some() || !statement.trim().is_empty() {
        return Err(fail(start, &statement, "the text ends in the middle of something"));
    }
    Ok(parser.text)
}

fn fail(line: u32, text: &str, reason: impl Into<String>) -> ParseError {
    ParseError { line, text: text.trim().into(), reason: reason.into() }
}

/// Blanks out comments and keeps every line break.
fn without_comments(ptx: &str) -> String {
    let mut clean = String::with_capacity(ptx.len());
    let mut rest = ptx.trim_end_matches('\0');
    let mut quoted = false;
    while let Some(c) = rest.chars().next() {
        if !quoted && rest.starts_with("//") {
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
        } else if !quoted && rest.starts_with("/*") {
            let end = rest.find("*/").map_or(rest.len(), |end| end + 2);
            clean.extend(rest[..end].chars().filter(|c| *c == '\n'));
            rest = &rest[end..];
        } else {
            quoted ^= c == '"';
            quoted &= c != '\n';
            clean.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    clean
}

fn opens_body(statement: &str) -> bool {
    statement.split_whitespace().take(3).any(|word| word == ".entry" || word.starts_with(".func"))
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_$%".contains(c))
}

fn is_line_directive(statement: &str) -> bool {
    let first = statement.split_whitespace().next().unwrap_or_default();
    matches!(first, ".version" | ".target" | ".address_size" | ".loc" | ".file")
}

impl Parser {
    fn push(&mut self, statement: Statement) -> Option<()> {
        self.function.as_mut()?.statements.push(statement);
        Some(())
    }

    fn close_scope(&mut self) -> Option<()> {
        if self.scopes.pop().is_none() {
            self.text.functions.push(self.function.take()?);
        }
        Some(())
    }

    /// What a name is called after inner scopes have had their say.
    fn resolve(&self, name: &str) -> String {
        let inner = self.scopes.iter().rev().find_map(|scope| scope.get(name));
        inner.map_or_else(|| name.to_owned(), Clone::clone)
    }

    fn line_directive(&mut self, line: u32, text: &str) -> Result<(), ParseError> {
        let words: Vec<_> = text.split_whitespace().collect();
        let number = |i: usize| words.get(i).and_then(|w| w.trim_end_matches(',').parse().ok());
        match words[0] {
            ".loc" => self.source = number(1).zip(number(2)),
            ".file" => {
                let name = text.split('"').nth(1).unwrap_or_default();
                let n = number(1).ok_or_else(|| fail(line, text, "a file has a number"))?;
                self.text.files.insert(n, name.into());
            }
            _ => {}
        }
        Ok(())
    }

    fn open_function(&mut self, line: u32, header: &str) -> Result<(), ParseError> {
        let wrong = |reason: &str| fail(line, header, reason);
        let is_entry = header.contains(".entry");
        let at = header.find(if is_entry { ".entry" } else { ".func" }).unwrap_or_default();
        let mut rest = header[at..].trim_start_matches(".entry").trim_start_matches(".func").trim();
        let mut returns = Vec::new();
        if rest.starts_with('(') {
            let (list, after) =
                parenthesised(rest).ok_or_else(|| wrong("a list that never ends"))?;
            returns = variables(list).ok_or_else(|| wrong("a list of parameters"))?;
            rest = after.trim();
        }
        let end = rest.find(|c: char| c == '(' || c.is_whitespace()).unwrap_or(rest.len());
        let name = rest[..end].to_owned();
        rest = rest[end..].trim();
        let mut params = Vec::new();
        if rest.starts_with('(') {
            let (list, after) =
                parenthesised(rest).ok_or_else(|| wrong("a list that never ends"))?;
            params = variables(list).ok_or_else(|| wrong("a list of parameters"))?;
            rest = after;
        }
        let threads = [".maxntid", ".reqntid"].iter().find_map(|key| rest.split(key).nth(1));
        let max_threads = threads.map(|list| {
            let digits = |word: &str| word.trim().parse::<u32>().ok();
            let line = list.lines().next().unwrap_or_default();
            line.split(|c: char| c == ',' || c.is_whitespace()).filter_map(digits).product()
        });
        let max_registers = rest.split(".maxnreg").nth(1).map(|rest| {
            let number = rest.split_whitespace().next().and_then(|word| word.parse().ok());
            number.ok_or_else(|| wrong("a number of registers"))
        });
        let max_registers = max_registers.transpose()?;
        let registers = HashMap::new();
        let (variables, statements) = (Vec::new(), Vec::new());
        self.source = None;
        self.function = Some(Function {
            name,
            is_entry,
            params,
            returns,
            variables,
            statements,
            max_threads,
            max_registers,
            registers,
        });
        Ok(())
    }

    fn statement(&mut self, line: u32, text: &str) -> Result<(), ParseError> {
        if text.is_empty() {
            return Ok(());
        }
        if let Some(list) = text.strip_prefix(".reg") {
            return self.registers(list).ok_or_else(|| fail(line, text, "registers of some type"));
        }
        if let Some(list) = text.strip_prefix(".branchtargets") {
            let names = list.split(',').map(|name| self.resolve(name.trim())).collect();
            let pushed = self.push(Statement::Targets(names));
            return pushed.ok_or_else(|| fail(line, text, "branch targets outside a function"));
        }
        if text.starts_with(".pragma") || text.starts_with(".alias") {
            return Ok(());
        }
        if text.starts_with('.') {
            if text.contains(".func") {
                return Ok(()); // a declaration
            }
            let variable =
                variable(text).ok_or_else(|| fail(line, text, "an unknown directive"))?;
            match &mut self.function {
                Some(function) => function.variables.push(variable),
                None => self.text.variables.push(variable),
            }
            return Ok(());
        }
        let (mut rest, mut guard) = (text, None);
        if let Some(guarded) = text.strip_prefix('@') {
            let (name, after) = guarded
                .split_once(char::is_whitespace)
                .ok_or_else(|| fail(line, text, "a guard without an instruction"))?;
            let negated = name.starts_with('!');
            guard = Some((self.resolve(name.trim_start_matches('!')), negated));
            rest = after.trim();
        }
        let (opcode, list) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let operands = split_list(list)
            .map(|operand| self.operand(operand))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| fail(line, text, "an operand that is no operand"))?;
        let instruction = Instruction {
            guard,
            opcode: opcode.into(),
            operands,
            line,
            text: text.split_whitespace().collect::<Vec<_>>().join(" "),
            source: self.source,
        };
        let pushed = self.push(Statement::Instruction(instruction));
        pushed.ok_or_else(|| fail(line, text, "an instruction outside a function"))
    }

    fn registers(&mut self, list: &str) -> Option<()> {
        let (ty, names) = list.trim().strip_prefix('.')?.split_once(char::is_whitespace)?;
        let function = self.function.as_mut()?;
        for name in names.split(',').map(str::trim) {
            let name = name.split('<').next()?.trim();
            let mut own = name.to_owned();
            if let Some(scope) = self.scopes.last_mut() {
                // An inner scope's register must not meet an outer one of the same name.
                own = format!("{name}#{}", self.n_scopes);
                scope.insert(name.into(), own.clone());
            }
            function.registers.insert(own, ty.into());
        }
        Some(())
    }

    fn operand(&self, text: &str) -> Option<Operand> {
        let text = text.trim();
        let inner = |open, close| text.strip_prefix(open)?.strip_suffix(close);
        if let Some(list) = inner('{', '}') {
            let list: Option<_> = split_list(list).map(|operand| self.operand(operand)).collect();
            return list.map(Operand::Vector);
        }
        if let Some(list) = inner('(', ')') {
            let list: Option<_> = split_list(list).map(|operand| self.operand(operand)).collect();
            return list.map(Operand::List);
        }
        if let Some(address) = inner('[', ']') {
            let sign = address.char_indices().skip(1).find(|(_, c)| *c == '+' || *c == '-');
            let (base, offset) = match sign {
                None => (address, 0),
                Some((at, '+')) => {
                    (&address[..at], integer(address[at + 1..].trim())?.cast_signed())
                }
                Some((at, _)) => (
                    &address[..at],
                    integer(address[at + 1..].trim())?.cast_signed().wrapping_neg(),
                ),
            };
            return Some(Operand::Address(Box::new(self.operand(base)?), offset));
        }
        if let Some((a, b)) = text.split_once('|') {
            return Some(Operand::Pair(Box::new(self.operand(a)?), Box::new(self.operand(b)?)));
        }
        if let Some(name) = text.strip_prefix('!') {
            return Some(Operand::Not(self.resolve(name)));
        }
        if text == "_" {
            return Some(Operand::Sink);
        }
        if text.starts_with('%') {
            return Some(Operand::Register(self.resolve(text)));
        }
        if let Some(bits) = text.strip_prefix("0f").or(text.strip_prefix("0F")) {
            return u32::from_str_radix(bits, 16).ok().map(Operand::F32);
        }
        if let Some(bits) = text.strip_prefix("0d").or(text.strip_prefix("0D")) {
            return u64::from_str_radix(bits, 16).ok().map(Operand::F64);
        }
        if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
            return integer(text).map(Operand::Integer);
        }
        // A register declared without the usual percent sign is a name until a scope knows it.
        let resolved = self.resolve(text);
        let known = |function: &Function| function.registers.contains_key(&resolved);
        if self.function.as_ref().is_some_and(known) {
            return Some(Operand::Register(resolved));
        }
        is_name(text).then_some(Operand::Name(resolved))
    }
}

fn integer(text: &str) -> Option<u64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits.trim()),
        None => (false, text),
    };
    let digits = digits.trim_end_matches('U');
    let value = match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None => digits.parse().ok()?,
    };
    Some(if negative { value.wrapping_neg() } else { value })
}

/// Splits at commas that stand in no bracket.
fn split_list(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    text.split(move |c| {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
}

/// The inside of a leading parenthesis, and what comes after it.
fn parenthesised(text: &str) -> Option<(&str, &str)> {
    let end = text.find(')')?;
    Some((&text[1..end], &text[end + 1..]))
}

fn variables(list: &str) -> Option<Vec<Variable>> {
    list.split(',').map(str::trim).filter(|v| !v.is_empty()).map(variable).collect()
}

/// Size in bytes of a fundamental type, without its dot.
pub(crate) fn type_bytes(ty: &str) -> Option<u32> {
    match ty {
        "b8" | "u8" | "s8" => Some(1),
        "b16" | "u16" | "s16" | "f16" | "bf16" => Some(2),
        "b32" | "u32" | "s32" | "f32" | "f16x2" | "bf16x2" | "tf32" => Some(4),
        "b64" | "u64" | "s64" | "f64" => Some(8),
        "b128" => Some(16),
        _ => None,
    }
}

/// Reads `.extern .shared .align 16 .b8 name[64] = {…}` and its like.
fn variable(text: &str) -> Option<Variable> {
    let (declaration, init) = match text.split_once('=') {
        Some((declaration, init)) => (declaration, Some(init)),
        None => (text, None),
    };
    let (mut space, mut align, mut element, mut count) = (None, None, None, 1u32);
    let mut words = declaration.split_whitespace();
    // What follows `.ptr` tells of the memory pointed to.
    let mut pointee = false;
    let mut name = None;
    while let Some(word) = words.next() {
        match word {
            ".visible" | ".extern" | ".weak" | ".common" | ".managed" => {}
            ".ptr" => pointee = true,
            ".global" | ".shared" | ".const" | ".local" | ".param" if space.is_none() => {
                space = Some(word[1..].to_owned());
            }
            // The space that a pointer parameter points to.
            ".global" | ".shared" | ".const" | ".local" => {}
            ".align" => {
                let bytes = words.next()?.parse().ok()?;
                align = if pointee { align } else { Some(bytes) };
            }
            _ if word.starts_with('.') => element = Some(type_bytes(&word[1..])?),
            _ => {
                let rest: String = std::iter::once(word).chain(words.by_ref()).collect();
                let mut parts = rest.split('[');
                name = parts.next().map(str::to_owned);
                for extent in parts {
                    let digits = extent.trim_end_matches(']');
                    count *= if digits.is_empty() { 0 } else { digits.parse().ok()? };
                }
            }
        }
    }
    let element = element?;
    let mut bytes = Vec::new();
    for value in init.iter().flat_map(|init| split_list(init.trim().trim_matches(['{', '}']))) {
        let value = match value.strip_prefix("0f") {
            Some(bits) => u64::from_str_radix(bits, 16).ok()?,
            None => integer(value)?,
        };
        bytes.extend_from_slice(&value.to_le_bytes()[..element as usize]);
    }
    Some(Variable {
        space: space?,
        name: name?,
        align: align.unwrap_or(element),
        bytes: element * count,
        init: bytes,
    })
}
