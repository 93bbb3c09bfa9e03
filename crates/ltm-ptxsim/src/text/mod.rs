//! Parses PTX text into functions made of labels and instructions. Knows the grammar; must not know
//! instructions.
//!
//! Names are resolved while parsing, since PTX declares them before use: a name that an inner scope
//! redeclares is replaced by a unique one. Only labels are resolved later, when their scope closes.

mod directive;
mod error;
mod lex;
mod operand;
mod symbol;
mod syntax;
mod target;
mod variable;

use std::collections::HashMap;

use lex::{Kind, Token};
use symbol::Frame;
use target::Version;

pub use error::ParseError;
pub(crate) use syntax::{
    Frames, Function, Instruction, Operand, Statement, Text, Value, Variable, type_bytes,
};
pub(crate) use target::Target;

/// Maximum nesting of scopes.
const MAX_SCOPES: usize = 256;
/// Maximum length of the statement that an error or a fault quotes, in bytes.
const MAX_QUOTED: usize = 160;

/// A source position as in `.loc`: file, line and column.
type Place = (u32, u32, u32);

struct Parser<'t> {
    ptx: &'t str,
    tokens: Vec<Token>,
    at: usize,
    /// The first token of the current statement.
    start: usize,
    version: Option<Version>,
    target: Option<Target>,
    functions: Vec<Function>,
    variables: Vec<Variable>,
    files: HashMap<u32, String>,
    aliases: HashMap<String, String>,
    function: Option<Function>,
    /// The scopes: the module's first, the innermost last.
    frames: Vec<Frame<'t>>,
    n_scopes: usize,
    source: Option<Frames>,
    /// For positions in inlined functions, the position they were inlined at.
    inlined: HashMap<Place, Place>,
}

type Parsed<T> = Result<T, ParseError>;

pub(crate) fn parse(ptx: &str) -> Parsed<Text> {
    let mut parser = Parser {
        ptx,
        tokens: lex::tokens(ptx)?,
        at: 0,
        start: 0,
        version: None,
        target: None,
        functions: Vec::new(),
        variables: Vec::new(),
        files: HashMap::new(),
        aliases: HashMap::new(),
        function: None,
        frames: vec![Frame::default()],
        n_scopes: 0,
        source: None,
        inlined: HashMap::new(),
    };
    parser.module()?;
    let target = match parser.target {
        Some(target) => target,
        None => return Err(parser.fail("the text has no .version and .target directives")),
    };
    let Parser { functions, variables, files, aliases, .. } = parser;
    let named = functions.iter().enumerate().rev().filter(|(_, function)| !function.is_entry);
    let function_index = named.map(|(i, function)| (function.name.clone(), i)).collect();
    let mut variable_index = HashMap::new();
    for (i, variable) in variables.iter().enumerate() {
        if !variable.is_extern || !variable_index.contains_key(&variable.name) {
            variable_index.insert(variable.name.clone(), i);
        }
    }
    Ok(Text { target, functions, function_index, variables, variable_index, files, aliases })
}

impl<'t> Parser<'t> {
    fn peek(&self) -> &'t str {
        self.tokens.get(self.at).map_or("", |token| token.text(self.ptx))
    }

    fn peek_after(&self) -> &'t str {
        self.tokens.get(self.at + 1).map_or("", |token| token.text(self.ptx))
    }

    fn peek_kind(&self) -> Option<Kind> {
        self.tokens.get(self.at).map(|token| token.kind)
    }

    fn next(&mut self) -> &'t str {
        let text = self.peek();
        self.at += usize::from(self.at < self.tokens.len());
        text
    }

    /// Consumes the next token if it is this character.
    fn eat(&mut self, punct: u8) -> bool {
        let is_next = self.peek_kind() == Some(Kind::Punct(punct));
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, punct: u8) -> Parsed<()> {
        if self.eat(punct) {
            return Ok(());
        }
        let found = self.peek();
        let found = if found.is_empty() { "the end of the text" } else { found };
        Err(self.fail(format!("expected `{}`, found `{found}`", punct as char)))
    }

    /// A name or a number.
    fn word(&mut self) -> Parsed<&'t str> {
        match self.peek_kind() {
            Some(Kind::Word) => Ok(self.next()),
            _ => Err(self.fail(format!("expected a name, found `{}`", self.peek()))),
        }
    }

    /// A word that is neither a number nor a directive.
    fn name(&mut self) -> Parsed<&'t str> {
        let word = self.word()?;
        if word.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return Err(self.fail(format!("expected a name, found `{word}`")));
        }
        Ok(word)
    }

    fn line(&self) -> u32 {
        let token = self.tokens.get(self.start).or(self.tokens.last());
        token.map_or(1, |token| token.line)
    }

    /// The current statement as far as it has been read, with white space collapsed.
    fn quoted(&self) -> String {
        let read = self.start..self.at.max(self.start + 1).min(self.tokens.len());
        let Some([first, .., last] | [first @ last]) = self.tokens.get(read) else {
            return String::new();
        };
        let mut end = (last.end as usize).min(first.start as usize + MAX_QUOTED);
        while !self.ptx.is_char_boundary(end) {
            end -= 1;
        }
        let words: Vec<_> = self.ptx[first.start as usize..end].split_whitespace().collect();
        words.join(" ")
    }

    fn fail(&self, reason: impl Into<String>) -> ParseError {
        ParseError { line: self.line(), text: self.quoted(), reason: reason.into() }
    }

    /// Skips to the end of the statement.
    fn skip_statement(&mut self) -> Parsed<()> {
        while !self.eat(b';') {
            if self.next().is_empty() {
                return Err(self.fail("the text ends in the middle of a statement"));
            }
        }
        Ok(())
    }

    fn module(&mut self) -> Parsed<()> {
        while self.at < self.tokens.len() {
            self.start = self.at;
            match self.peek() {
                ".version" => self.version()?,
                ".target" => self.target()?,
                ".address_size" => self.address_size()?,
                ".file" => self.file()?,
                ".loc" => self.loc()?,
                ".section" => self.section()?,
                ".pragma" => self.skip_statement()?,
                ".alias" => self.alias()?,
                ";" => self.at += 1,
                word if word.starts_with('.') => self.declaration()?,
                word => return Err(self.fail(format!("expected a directive, found `{word}`"))),
            }
        }
        Ok(())
    }

    /// A function or a variable of the module.
    fn declaration(&mut self) -> Parsed<()> {
        if self.target.is_none() {
            return Err(self.fail("expected .version and .target before any declaration"));
        }
        let is_function = |word: &str| matches!(word, ".entry" | ".func");
        let ahead = self.tokens[self.at..].iter().take(3).map(|token| token.text(self.ptx));
        if ahead.clone().any(is_function) {
            return self.open_function();
        }
        let variables = self.variables()?;
        self.variables.extend(variables);
        Ok(())
    }

    /// Parses a function's statements, up to its closing brace.
    fn body(&mut self) -> Parsed<()> {
        let outside = self.frames.len() - 1;
        loop {
            self.start = self.at;
            match self.peek_kind() {
                None => return Err(self.fail("the text ends inside a function")),
                Some(Kind::Punct(b';')) => self.at += 1,
                Some(Kind::Punct(b'{')) => {
                    self.at += 1;
                    if self.frames.len() > MAX_SCOPES {
                        let reason = format!("more than {MAX_SCOPES} nested scopes");
                        return Err(self.fail(reason));
                    }
                    self.open_scope();
                }
                Some(Kind::Punct(b'}')) => {
                    self.at += 1;
                    self.close_scope();
                    if self.frames.len() == outside {
                        return Ok(());
                    }
                }
                Some(Kind::Punct(b'@')) => self.instruction()?,
                Some(Kind::Word) if self.peek().starts_with('.') => self.directive()?,
                Some(Kind::Word) if self.peek_after() == ":" => self.label()?,
                Some(Kind::Word) => self.instruction()?,
                Some(_) => {
                    let found = self.next();
                    return Err(self.fail(format!("expected a statement, found `{found}`")));
                }
            }
        }
    }

    fn push(&mut self, statement: Statement) {
        if let Some(function) = &mut self.function {
            function.statements.push(statement);
        }
    }

    fn instruction(&mut self) -> Parsed<()> {
        let mut guard = None;
        if self.eat(b'@') {
            let negated = self.eat(b'!');
            let predicate = self.operand()?;
            guard = Some(if negated { Operand::Not(predicate.into()) } else { predicate });
        }
        let mut opcode = self.name()?.to_owned();
        while self.peek_kind() == Some(Kind::Word) && self.peek().starts_with('.') {
            opcode += self.next();
        }
        let mut operands = Vec::new();
        let is_call = opcode == "call" || opcode.starts_with("call.");
        while self.peek_kind() != Some(Kind::Punct(b';')) {
            if !operands.is_empty() {
                self.expect(b',')?;
            }
            let operand = if is_call { self.call_operand()? } else { self.operand()? };
            operands.push(operand);
        }
        let ty = opcode.rsplit('.').next().unwrap_or_default();
        operands.iter_mut().for_each(|operand| operand.give_type(ty));
        let instruction = Instruction {
            guard,
            operands,
            line: self.line(),
            text: self.quoted().into(),
            source: self.source.clone(),
            opcode,
        };
        self.at += 1;
        if let Some(function) = &mut self.function {
            function.note_granule(&instruction);
        }
        self.push(Statement::Instruction(instruction));
        Ok(())
    }
}
