//! Standard output and standard error, written without panics. Knows nothing of what is written; the
//! workspace's other programs include this file.

use std::error::Error as StdError;
use std::fmt::{self, Arguments, Write as _};
use std::io::{self, IsTerminal as _, Write};

/// Writes a line to standard output; an [`OutputError`] where `println!` would panic.
#[macro_export]
macro_rules! outln {
    () => { $crate::output::write_line(format_args!("")) };
    ($($arg:tt)*) => { $crate::output::write_line(format_args!($($arg)*)) };
}

/// Writes a line to standard error. It never fails: a message that cannot be shown stops no work.
#[macro_export]
macro_rules! note {
    ($($arg:tt)*) => { $crate::output::write_note(format_args!($($arg)*)) };
}

/// Standard output could not be written.
#[derive(Debug)]
pub struct OutputError(pub io::Error);

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot write to standard output")
    }
}

impl StdError for OutputError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

/// What [`outln!`](crate::outln) calls.
pub fn write_line(text: Arguments<'_>) -> Result<(), OutputError> {
    let mut stdout = io::stdout().lock();
    let terminal = stdout.is_terminal();
    write(&mut stdout, text, terminal).map_err(OutputError)
}

/// What [`note!`](crate::note) calls.
pub fn write_note(text: Arguments<'_>) {
    let mut stderr = io::stderr().lock();
    let terminal = stderr.is_terminal();
    // No stream is left to report to.
    let _ = write(&mut stderr, text, terminal);
}

/// A line in one piece, so that lines of several threads do not mix.
fn write(stream: &mut impl Write, text: Arguments<'_>, terminal: bool) -> io::Result<()> {
    let mut line = text.to_string();
    if terminal {
        line = escape(&line);
    }
    line.push('\n');
    stream.write_all(line.as_bytes())
}

/// Control characters, and those that reorder text, as Rust writes them: a terminal would obey them.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        let reorders = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c != '\n' && c != '\t' && (c.is_control() || reorders) {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "{}", c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_reach_files_and_not_terminals() {
        let shown = |terminal| {
            let mut stream = Vec::new();
            let text = "a\tb\nc\r\u{1b}[31m\u{7}\u{9b}\u{202e}é";
            write(&mut stream, format_args!("{text}"), terminal).unwrap();
            String::from_utf8(stream).unwrap()
        };
        assert_eq!(shown(false), "a\tb\nc\r\u{1b}[31m\u{7}\u{9b}\u{202e}é\n");
        assert_eq!(shown(true), "a\tb\nc\\r\\u{1b}[31m\\u{7}\\u{9b}\\u{202e}é\n");
    }
}
