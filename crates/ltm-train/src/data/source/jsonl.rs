//! Lines of JSON: a document each, a string in an object.

use std::fs::File;
use std::io::{BufRead, Read};
use std::path::Path;

use serde_json::{Map, Value};

use super::{Malformed, OnEvent, Reader, buffered};
use crate::{Error, Result};

/// A line of JSON has to be held whole; a longer one counts as malformed.
const LINE_BYTES: u64 = 256 << 20;

/// A line of a file, for errors to name.
pub(crate) struct Place<'a> {
    path: &'a Path,
    /// Counted from 1.
    pub(crate) line: u64,
    /// Bytes of the file up to the line's end.
    read: u64,
}

impl Place<'_> {
    /// An [`Error::Data`] on this line.
    pub(crate) fn error(&self, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::data(self.path, format!("line {}", self.line), expected, found)
    }

    /// The string under `key` of the line's object.
    ///
    /// # Errors
    /// [`Error::Data`] when there is none.
    pub(crate) fn string<'o>(&self, object: &'o Map<String, Value>, key: &str) -> Result<&'o str> {
        let found = match object.get(key) {
            Some(Value::String(text)) => return Ok(text),
            Some(_) => "another value under it".into(),
            None => {
                let keys: Vec<&str> = object.keys().map(String::as_str).collect();
                format!("only the keys {keys:?}")
            }
        };
        Err(self.error(format!("a JSON object with a string under `{key}`"), found))
    }
}

/// Takes an object; its error makes the line malformed.
pub(crate) type OnObject<'a> = dyn FnMut(&Place<'_>, &Map<String, Value>) -> Result<Flow> + 'a;

/// Hands on the object of each line of a file that is not blank, until `on_object` breaks; tells `on_skip` of each
/// malformed line left out.
///
/// # Errors
/// [`Error::Data`] for a malformed line that is not to be skipped, [`Error::Io`].
pub(crate) fn objects(
    path: &Path,
    malformed: Malformed,
    on_skip: &mut dyn FnMut(Error),
    on_object: &mut OnObject<'_>,
) -> Result<()> {
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    let mut reader = Reader { path, malformed, on_skip };
    reader.lines(buffered(file), &mut |place, line| {
        let object = parse(line).map_err(|found| place.error("a JSON object", found))?;
        let flow = object.map(|object| on_object(place, &object)).transpose()?;
        Ok(Ok(flow.unwrap_or(Flow::Continue(()))))
    })
}

/// Whether to read on.
type Flow = std::ops::ControlFlow<()>;

/// Takes a line. The outer error makes it malformed, the inner one ends all.
type OnLine<'a> = dyn FnMut(&Place<'_>, &[u8]) -> Result<Result<Flow>> + 'a;

impl Reader<'_> {
    /// Hands on each line until `on_line` breaks.
    fn lines(&mut self, mut file: impl BufRead, on_line: &mut OnLine<'_>) -> Result<()> {
        let mut text = Vec::new();
        let mut place = Place { path: self.path, line: 0, read: 0 };
        loop {
            text.clear();
            let read = file.by_ref().take(LINE_BYTES).read_until(b'\n', &mut text);
            let mut bytes = read.map_err(Error::io(self.path, "read"))? as u64;
            if bytes == 0 {
                return Ok(());
            }
            let whole = bytes < LINE_BYTES || text.ends_with(b"\n");
            if !whole {
                bytes += file.skip_until(b'\n').map_err(Error::io(self.path, "read"))? as u64;
            }
            place.line += 1;
            place.read += bytes;
            let flow = if whole {
                on_line(&place, &text)
            } else {
                Err(place.error("a line of JSON", format!("more than {LINE_BYTES} bytes")))
            };
            match flow {
                Ok(flow) => {
                    if flow?.is_break() {
                        return Ok(());
                    }
                }
                Err(error) => self.skip_or_fail(error)?,
            }
        }
    }

    pub(super) fn jsonl(
        &mut self,
        file: impl BufRead,
        key: &str,
        on_event: &mut OnEvent<'_>,
    ) -> Result<()> {
        self.lines(file, &mut |place, line| {
            let object = parse(line).map_err(|found| {
                place.error(format!("a JSON object with a string under `{key}`"), found)
            })?;
            let text = match &object {
                None => "",
                Some(object) => place.string(object, key)?,
            };
            Ok(Self::document(text, place.read, on_event))
        })
    }
}

/// The object that a line holds, `None` for white space; what is there instead as the error.
fn parse(line: &[u8]) -> std::result::Result<Option<Map<String, Value>>, String> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(line).map_err(|error| error.to_string())?;
    match serde_json::from_str(text).map_err(|error| error.to_string())? {
        Value::Object(object) => Ok(Some(object)),
        _ => Err("another value".into()),
    }
}
