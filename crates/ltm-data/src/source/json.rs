//! JSON: one object per line, or an array of objects. One document each, a string in the object.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::ops::ControlFlow;
use std::path::Path;

use serde_json::{Map, Value};

use super::gsm8k::gsm8k_document;
use super::{DEFAULT_KEY, Malformed, OnEvent, RECORD_BYTES, Reader, after_bom, position};
use crate::{Error, Result};

/// A line of a file, for errors to name.
pub struct Place<'a> {
    path: &'a Path,
    /// Counted from 1.
    pub line: u64,
    /// Bytes of the file up to the end of the object.
    read: u64,
}

impl Place<'_> {
    /// An [`Error::File`] on this line.
    pub fn error(&self, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::content(self.path, format!("line {}", self.line), expected, found)
    }

    /// The string under `key` of the object.
    ///
    /// # Errors
    /// [`Error::File`] when there is none.
    pub fn string<'o>(&self, object: &'o Map<String, Value>, key: &str) -> Result<&'o str> {
        let found = match object.get(key) {
            Some(Value::String(text)) => return Ok(text),
            Some(_) => "another value under it".into(),
            None => {
                let keys: Vec<&str> = object.keys().map(String::as_str).take(20).collect();
                format!("only the keys {keys:?}")
            }
        };
        Err(self.error(format!("a JSON object with a string under `{key}`"), found))
    }
}

/// Takes an object; its error makes the object malformed.
pub(super) type OnObject<'a> = dyn FnMut(&Place<'_>, &Map<String, Value>) -> Result<Flow> + 'a;

/// Passes on the object of each line of a file that is not blank, or the objects of an array, until `on_object` breaks;
/// passes the error of each malformed one that is skipped to `on_skip`.
///
/// # Errors
/// [`Error::File`] for a malformed object that is not to be skipped and for a file that cannot be read.
pub fn objects(
    path: &Path,
    malformed: Malformed,
    on_skip: &mut dyn FnMut(Error),
    on_object: &mut OnObject<'_>,
) -> Result<()> {
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    let mut reader = Reader { path, malformed, on_skip };
    reader.values(after_bom(file, path)?, &mut |place, json| {
        let object = parse(json).map_err(|found| place.error("a JSON object", found))?;
        let flow = object.map(|object| on_object(place, &object)).transpose()?;
        Ok(Ok(flow.unwrap_or(Flow::Continue(()))))
    })
}

/// Whether to read on.
type Flow = ControlFlow<()>;

/// Takes the text of a value. The outer error makes it malformed, the inner one ends everything.
type OnValue<'a> = dyn FnMut(&Place<'_>, &[u8]) -> Result<Result<Flow>> + 'a;

impl Reader<'_> {
    pub(super) fn jsonl(
        &mut self,
        file: BufReader<File>,
        key: Option<&str>,
        on_event: &mut OnEvent<'_>,
    ) -> Result<()> {
        self.lines(file, &mut |place, json| document(place, json, key, on_event))
    }

    pub(super) fn json(
        &mut self,
        file: BufReader<File>,
        key: Option<&str>,
        on_event: &mut OnEvent<'_>,
    ) -> Result<()> {
        self.values(file, &mut |place, json| document(place, json, key, on_event))
    }

    pub(super) fn gsm8k(
        &mut self,
        file: BufReader<File>,
        on_event: &mut OnEvent<'_>,
    ) -> Result<()> {
        self.values(file, &mut |place, json| {
            made_of_object(place, json, "question", on_event, |object| {
                let text = |key| place.string(object, key);
                Ok(gsm8k_document(text("question")?, text("answer")?).into())
            })
        })
    }

    /// Passes on the elements of an array, or otherwise each line, until `on_value` breaks.
    fn values(&mut self, mut file: BufReader<File>, on_value: &mut OnValue<'_>) -> Result<()> {
        let path = self.path;
        let start = position(&mut file, path)?;
        let failed = |error| Error::io(path, "read")(error);
        let mut lines = 0;
        let first = loop {
            let mut byte = [0];
            if file.read(&mut byte).map_err(failed)? == 0 {
                return Ok(());
            }
            lines += u64::from(byte[0] == b'\n');
            if !byte[0].is_ascii_whitespace() {
                break byte[0];
            }
        };
        if first == b'[' {
            return self.elements(file, lines + 1, on_value);
        }
        file.seek(std::io::SeekFrom::Start(start)).map_err(failed)?;
        self.lines(file, on_value)
    }

    /// Passes on each line until `on_line` breaks.
    fn lines(&mut self, mut file: BufReader<File>, on_line: &mut OnValue<'_>) -> Result<()> {
        let mut text = Vec::new();
        let read = position(&mut file, self.path)?;
        let mut place = Place { path: self.path, line: 0, read };
        loop {
            text.clear();
            let limit = RECORD_BYTES as u64;
            let read = file.by_ref().take(limit).read_until(b'\n', &mut text);
            let mut bytes = read.map_err(Error::io(self.path, "read"))? as u64;
            if bytes == 0 {
                return Ok(());
            }
            let whole = bytes < limit || text.ends_with(b"\n");
            if !whole {
                bytes += file.skip_until(b'\n').map_err(Error::io(self.path, "read"))? as u64;
            }
            place.line += 1;
            place.read += bytes;
            if self.value(&place, &text, whole, on_line)?.is_break() {
                return Ok(());
            }
        }
    }

    /// Passes on the elements of an array that opens on line `line` until `on_element` breaks.
    fn elements(
        &mut self,
        mut file: BufReader<File>,
        mut line: u64,
        on_element: &mut OnValue<'_>,
    ) -> Result<()> {
        let path = self.path;
        let mut read = position(&mut file, path)?;
        let mut element = Element::default();
        let mut place = Place { path, line, read };
        let mut after = false; // the end of the array
        loop {
            let buffer = file.fill_buf().map_err(Error::io(path, "read"))?;
            if buffer.is_empty() {
                if after {
                    return Ok(());
                }
                place.line = line;
                return self.skip_or_fail(
                    place.error("`]` at the end of the array", "the end of the file"),
                );
            }
            let used = buffer.len();
            for (&byte, read) in buffer.iter().zip(read + 1..) {
                line += u64::from(byte == b'\n');
                place.read = read;
                if after {
                    if !byte.is_ascii_whitespace() {
                        place.line = line;
                        return self
                            .skip_or_fail(place.error("nothing after the array", "more text"));
                    }
                    continue;
                }
                if element.text.is_empty() && byte.is_ascii_whitespace() {
                    continue;
                }
                if element.text.is_empty() {
                    place.line = line;
                }
                let Some(end) = element.push(byte) else { continue };
                after = end == b']';
                if !element.text.is_empty() {
                    let Element { text, whole, .. } = &element;
                    if self.value(&place, text, *whole, on_element)?.is_break() {
                        return Ok(());
                    }
                } else if !(after && element.count == 0) {
                    place.line = line;
                    self.skip_or_fail(place.error("a JSON object", "nothing"))?;
                }
                element = Element { count: element.count + 1, ..Element::default() };
            }
            file.consume(used);
            read += used as u64;
        }
    }

    /// Passes on the text of a value, if it is whole, and skips or refuses a malformed one.
    fn value(
        &mut self,
        place: &Place<'_>,
        json: &[u8],
        whole: bool,
        on_value: &mut OnValue<'_>,
    ) -> Result<Flow> {
        let flow = if whole {
            on_value(place, json)
        } else {
            Err(place.error("a JSON object", format!("more than {RECORD_BYTES} bytes")))
        };
        match flow {
            Ok(flow) => flow,
            Err(error) => self.skip_or_fail(error).map(|()| Flow::Continue(())),
        }
    }
}

fn document(
    place: &Place<'_>,
    json: &[u8],
    key: Option<&str>,
    on_event: &mut OnEvent<'_>,
) -> Result<Result<Flow>> {
    let key = key.unwrap_or(DEFAULT_KEY);
    made_of_object(place, json, key, on_event, |object| place.string(object, key).map(Into::into))
}

/// Passes on the document that `text` makes of an object, which has a string under `key`.
fn made_of_object(
    place: &Place<'_>,
    json: &[u8],
    key: &str,
    on_event: &mut OnEvent<'_>,
    text: impl for<'o> Fn(&'o Map<String, Value>) -> Result<Cow<'o, str>>,
) -> Result<Result<Flow>> {
    let object = parse(json).map_err(|found| {
        place.error(format!("a JSON object with a string under `{key}`"), found)
    })?;
    let text = match &object {
        None => "".into(),
        Some(object) => text(object)?,
    };
    Ok(Reader::document(&text, place.read, on_event))
}

/// The element of an array that is being read.
struct Element {
    text: Vec<u8>,
    /// False once the element is too long; its text then stops growing.
    whole: bool,
    /// Brackets and braces that are open inside the element.
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Elements before this one.
    count: u64,
}

impl Default for Element {
    fn default() -> Self {
        let (text, whole, depth, in_string) = (Vec::new(), true, 0, false);
        Self { text, whole, depth, in_string, escaped: false, count: 0 }
    }
}

impl Element {
    /// Takes a byte; returns it when it ends the element: a comma or the bracket that closes the array.
    fn push(&mut self, byte: u8) -> Option<u8> {
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
        } else {
            match byte {
                b',' | b']' if self.depth == 0 => return Some(byte),
                b'"' => self.in_string = true,
                b'[' | b'{' => self.depth += 1,
                b']' | b'}' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        if self.text.len() < RECORD_BYTES {
            self.text.push(byte);
        } else {
            self.whole = false;
        }
        None
    }
}

/// The object that a text holds, `None` for a blank line; otherwise what is there.
fn parse(json: &[u8]) -> std::result::Result<Option<Map<String, Value>>, String> {
    if json.trim_ascii().is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(json).map_err(|error| error.to_string())?;
    // Without the line's end, past which an error at the end would be in column 0.
    match serde_json::from_str(text.trim_end_matches(['\r', '\n'])) {
        Ok(Value::Object(object)) => Ok(Some(object)),
        Ok(_) => Err("another value".into()),
        Err(error) => {
            // Its line is counted from the start of the text, not of the file.
            let place = format!(" at line {} column {}", error.line(), error.column());
            let reason = error.to_string();
            Err(match reason.strip_suffix(&place) {
                Some(reason) => format!("{reason} (column {})", error.column()),
                None => reason,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::documents;
    use super::*;

    #[test]
    fn each_line_is_a_document() {
        let content = "{\"text\": \"one\\ntwo\"}\n\n{\"id\": 1, \"text\": \"<|endoftext|>\"}";
        let expected = (vec!["one\ntwo".into(), String::new(), "<|endoftext|>".into()], 0);
        for name in ["a.jsonl", "a.json", "A.JSONL", "a.ndjson"] {
            for bom in ["", "\u{FEFF}"] {
                let content = format!("{bom}{content}");
                let found = documents(name, content.as_bytes(), Malformed::Refuse).expect("good");
                assert_eq!(found, expected);
            }
        }
    }

    /// The positions in a file that a reader reports with each document.
    fn positions(name: &str, content: &str) -> Vec<u64> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join(name);
        std::fs::write(&path, content).expect("writable");
        let mut positions = Vec::new();
        let mut on_event = |event: super::super::Event<'_>| {
            if let super::super::Event::Text(_, read) = event {
                positions.push(read);
            }
            Ok(Flow::Continue(()))
        };
        let sources = super::super::find(&[path], None, &mut |_| ()).expect("found");
        let options = super::super::ReadOptions::default();
        super::super::read(&sources[0], &options, &mut on_event, &mut |_| ()).expect("good");
        positions
    }

    #[test]
    fn progress_is_the_end_of_each_object() {
        let [a, b] = ["{\"text\": \"a\"}", "{\"text\": \"bé\"}"];
        for bom in ["", "\u{FEFF}"] {
            let start = bom.len() as u64;
            let (first, second) = (a.len() as u64, b.len() as u64);
            let lines = format!("{bom}\n{a}\n\n{b}");
            let found = positions("a.jsonl", &lines);
            let ends = [start + first + 2, start + first + 3 + second];
            assert_eq!(found.iter().filter(|at| ends.contains(at)).count(), 2, "{found:?}");
            assert_eq!(found.last(), Some(&(lines.len() as u64)));
            // The comma or bracket after an element is read with it.
            let array = format!("{bom} [{a},\n{b} ]\n");
            assert_eq!(
                positions("a.json", &array),
                [start + first + 3, start + first + second + 6]
            );
        }
    }

    #[test]
    fn lines_before_an_array_are_counted() {
        let error = documents("a.json", b"\n \n[{\"text\": \"a\"},\n3]", Malformed::Refuse);
        let error = error.expect_err("malformed").to_string();
        assert!(error.contains("line 4: ") && error.contains("another value"), "{error}");
    }

    #[test]
    fn reading_ends_where_the_reader_is_told_to() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for (name, content) in [
            ("a.jsonl", "{\"n\": 1}\n{\"n\": 2}\n[broken\n"),
            ("a.json", "[{\"n\": 1}, {\"n\": 2}, broken"),
        ] {
            let path = dir.path().join(name);
            std::fs::write(&path, content).expect("writable");
            for (until, expected) in
                [(1, Ok(vec![(1, 1)])), (2, Ok(vec![(1, 1), (2, 2)])), (9, Err(()))]
            {
                let mut found = Vec::new();
                let read = objects(&path, Malformed::Refuse, &mut |_| (), &mut |place, object| {
                    let n = object["n"].as_u64().expect("a number");
                    found.push((n, if name == "a.json" { n } else { place.line }));
                    Ok(if n == until { Flow::Break(()) } else { Flow::Continue(()) })
                });
                assert_eq!(read.map(|()| found).map_err(|_| ()), expected, "{name} {until}");
            }
        }
    }

    #[test]
    fn malformed_lines_are_refused_by_number_or_skipped() {
        for (bad, reason) in [
            (&b"{\"text\": "[..], "EOF while parsing a value (column 9)"),
            (b"{\"body\": \"x\"}", "only the keys [\"body\"]"),
            (b"{\"text\": 3}", "another value under it"),
            (b"[1]", "another value"),
            (b"{\"text\": \"\xff\"}", "invalid utf-8"),
        ] {
            let content = [b"{\"text\": \"a\"}\n", bad, b"\n{\"text\": \"b\"}"].concat();
            let error = documents("a.jsonl", &content, Malformed::Refuse).expect_err("malformed");
            let error = error.to_string();
            assert!(error.contains("line 2") && error.contains(reason), "{error}");
            assert!(!error.contains("line 1"), "{error}");
            let found = documents("a.jsonl", &content, Malformed::Skip).expect("skipped");
            assert_eq!(found, (vec!["a".into(), "b".into()], 1));
        }
    }

    #[test]
    fn an_array_has_a_document_per_object() {
        for (content, expected) in [
            ("[]", &[] as &[&str]),
            (" [\n ] \n", &[]),
            ("[{\"text\": \"a\"}]", &["a"]),
            (
                "\u{FEFF}[{\"text\": \"a,]\\\"}\"},\n {\"n\": [{}, 1], \"text\": \"b\"}\r\n]\n",
                &["a,]\"}", "b"],
            ),
        ] {
            let found = documents("a.json", content.as_bytes(), Malformed::Refuse).expect("good");
            assert_eq!(found.0, expected, "{content}");
        }
    }

    #[test]
    fn malformed_elements_are_refused_by_line_or_skipped() {
        let good = |text: &str| format!("{{\"text\":\n\"{text}\"}}");
        for (bad, line, reason) in [
            ("3", 3, "another value"),
            ("", 3, "a JSON object, found nothing"),
            ("{\"body\": 1}", 3, "only the keys"),
            ("{\"text\": }", 3, "expected value"),
            ("\n\n{\"text\": 1}", 5, "another value under it"),
        ] {
            let content = format!("[{},\n{bad},\n{}]", good("a"), good("b"));
            let error = documents("a.json", content.as_bytes(), Malformed::Refuse);
            let error = error.expect_err("malformed").to_string();
            assert!(error.contains(reason), "{error}");
            assert!(error.contains(&format!("line {line}:")), "{error}");
            let found = documents("a.json", content.as_bytes(), Malformed::Skip).expect("skipped");
            assert_eq!(found, (vec!["a".into(), "b".into()], 1), "{bad}");
        }
        for (content, reason, rest) in [
            ("[{\"text\": \"a\"}", "line 1: expected `]`", &[] as &[&str]),
            ("[{\"text\": \"a\"},\n{\"te", "line 2: expected `]`", &["a"]),
            ("[{\"text\": \"a\"}]\n, 2", "line 2: expected nothing after", &["a"]),
            ("[{\"text\": \"a\"},\n]", "line 2: expected a JSON object, found nothing", &["a"]),
        ] {
            let error = documents("a.json", content.as_bytes(), Malformed::Refuse);
            let error = error.expect_err("malformed").to_string();
            assert!(error.contains(reason), "{error}");
            let found = documents("a.json", content.as_bytes(), Malformed::Skip).expect("skipped");
            assert_eq!(
                (&found.0[..], found.1),
                (&rest.iter().map(|s| (*s).to_owned()).collect::<Vec<String>>()[..], 1)
            );
        }
    }
}
