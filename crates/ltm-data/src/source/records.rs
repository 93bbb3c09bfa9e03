//! Records of delimited text, by RFC 4180 to the letter: a field is quoted as a whole or not at all, a quote inside it is
//! written twice. Lenient readers turn a quote that is never closed into one field with the rest of the file. Knows
//! nothing of columns.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};

use super::RECORD_BYTES;

/// Reads records one by one.
pub(super) struct Records {
    file: BufReader<File>,
    delimiter: u8,
    /// Bytes read so far.
    read: u64,
    /// The line of the next byte, counted from 1. Lines end in `\n`, `\r\n` or `\r`.
    line: u64,
    /// Whether the last byte was a carriage return, which a line feed may follow.
    after_return: bool,
    record: Record,
}

/// A record with its fields.
#[derive(Default)]
pub(super) struct Record {
    /// The line on which it starts, counted from 1.
    pub(super) line: u64,
    /// Bytes of the file up to its end.
    pub(super) read: u64,
    /// The content of all fields, one after the other, without quotes.
    text: Vec<u8>,
    /// Where each field ends in `text`.
    ends: Vec<usize>,
}

impl Record {
    pub(super) fn fields(&self) -> impl Iterator<Item = &[u8]> {
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.text[start..end])
    }
}

/// A record that breaks the rules.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) line: u64,
    pub(super) expected: String,
    pub(super) found: String,
}

/// Where in a field a byte is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    Plain,
    Quoted,
    /// After a quote in a quoted field: the field is over, or the quote is doubled.
    Quote,
}

/// What a byte does to a record.
enum Step {
    More,
    End,
    Broken { expected: &'static str },
}

/// Where a quoted field opens, and what follows the first line of it.
#[derive(Clone, Copy)]
struct Opened {
    line: u64,
    /// Position of the next line, its number, once it is known.
    next: Option<(u64, u64)>,
}

impl Records {
    /// `start` is the position of `file`.
    pub(super) fn new(file: BufReader<File>, start: u64, delimiter: u8) -> Self {
        let (line, after_return, record) = (1, false, Record::default());
        Self { file, delimiter, read: start, line, after_return, record }
    }

    /// The next record that is not a blank line. A broken one is skipped: up to the end of the line where the rules are
    /// broken, or, where a quote is never closed, the line on which it opens.
    pub(super) fn next(&mut self) -> io::Result<Option<Result<&Record, Broken>>> {
        loop {
            self.record.text.clear();
            self.record.ends.clear();
            let mut state = State::Start;
            let mut opened = Opened { line: self.line, next: None };
            let mut size = 0;
            let broken = loop {
                let Some(byte) = self.peek()? else {
                    match state {
                        State::Start if size == 0 => return Ok(None),
                        State::Quoted => break Some(self.never_closed(opened)?),
                        _ => self.end_field(),
                    }
                    break None;
                };
                if size == 0 {
                    // A line feed after the carriage return that ended the last record belongs to it.
                    if byte == b'\n' && self.after_return {
                        self.advance(byte);
                        continue;
                    }
                    self.record.line = self.line;
                }
                if size == RECORD_BYTES {
                    break Some(match state {
                        State::Quoted | State::Quote => self.never_closed(opened)?,
                        _ => self.too_long()?,
                    });
                }
                if byte == b'"' && state == State::Start {
                    opened = Opened { line: self.line, next: None };
                }
                let line = self.line;
                let step = self.step(byte, &mut state);
                self.advance(byte);
                size += 1;
                if self.line > line && opened.next.is_none() {
                    opened.next = Some((self.read, self.line));
                }
                match step {
                    Step::More => {}
                    Step::End => break None,
                    Step::Broken { expected } => {
                        self.skip_line()?;
                        let (expected, found) = (expected.into(), show(byte, line, opened.line));
                        break Some(Broken { line: opened.line, expected, found });
                    }
                }
            };
            match broken {
                Some(broken) => return Ok(Some(Err(broken))),
                // A blank line.
                None if size <= 1 && self.record.text.is_empty() && self.record.ends.len() == 1 => {
                }
                None => {
                    self.record.read = self.read;
                    return Ok(Some(Ok(&self.record)));
                }
            }
        }
    }

    fn step(&mut self, byte: u8, state: &mut State) -> Step {
        let ends_field = byte == self.delimiter || byte == b'\n' || byte == b'\r';
        match (*state, byte) {
            (State::Quoted, b'"') => *state = State::Quote,
            (State::Quoted, _) => self.record.text.push(byte),
            (State::Quote, b'"') => {
                self.record.text.push(b'"');
                *state = State::Quoted;
            }
            (State::Start, b'"') => *state = State::Quoted,
            _ if ends_field => {
                self.end_field();
                *state = State::Start;
                if byte != self.delimiter {
                    return Step::End;
                }
            }
            (State::Quote, _) => {
                let expected = "a field that ends after its closing quote (a quote inside a \
                                quoted field is written twice)";
                return Step::Broken { expected };
            }
            // Tables separated by tabs are often written without any quoting.
            (State::Plain, b'"') if self.delimiter != b'\t' => {
                let expected = "a field without quotes, or in quotes as a whole";
                return Step::Broken { expected };
            }
            _ => {
                self.record.text.push(byte);
                *state = State::Plain;
            }
        }
        Step::More
    }

    fn end_field(&mut self) {
        self.record.ends.push(self.record.text.len());
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        Ok(self.file.fill_buf()?.first().copied())
    }

    fn advance(&mut self, byte: u8) {
        self.file.consume(1);
        self.read += 1;
        let ends_line = byte == b'\r' || (byte == b'\n' && !self.after_return);
        self.line += u64::from(ends_line);
        self.after_return = byte == b'\r';
    }

    /// Goes on with the line after the one on which a quoted field opens.
    fn never_closed(&mut self, opened: Opened) -> io::Result<Broken> {
        let end = if self.peek()?.is_none() { "the end of the file".into() } else { too_long() };
        match opened.next {
            Some((read, line)) => {
                self.file.seek(SeekFrom::Start(read))?;
                (self.read, self.line, self.after_return) = (read, line, false);
            }
            None => self.skip_line()?,
        }
        let expected = "a closing quote for the quoted field that opens here".into();
        Ok(Broken { line: opened.line, expected, found: end })
    }

    fn too_long(&mut self) -> io::Result<Broken> {
        self.skip_line()?;
        Ok(Broken { line: self.record.line, expected: "a record".into(), found: too_long() })
    }

    /// Reads to the end of the line, unless the last byte ended it.
    fn skip_line(&mut self) -> io::Result<()> {
        let mut last = b' ';
        while let Some(byte) = self.peek()? {
            if last == b'\n' || (last == b'\r' && byte != b'\n') {
                break;
            }
            self.advance(byte);
            last = byte;
        }
        Ok(())
    }
}

fn too_long() -> String {
    format!("more than {RECORD_BYTES} bytes")
}

/// The byte that breaks the rules, and its line where that is another than the one of the error.
fn show(byte: u8, line: u64, error_line: u64) -> String {
    let byte = if byte.is_ascii_graphic() {
        format!("`{}`", char::from(byte))
    } else {
        format!("byte 0x{byte:02x}")
    };
    if line == error_line { byte } else { format!("{byte} on line {line}") }
}
