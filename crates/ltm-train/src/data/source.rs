//! Finds text files and reads documents out of them in bounded memory. Knows nothing of tokens.

mod jsonl;
#[cfg(feature = "parquet")]
mod parquet;
mod table;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::tokenizer::END_OF_TEXT;
use crate::{Error, Result};
pub(crate) use jsonl::objects;

/// Text is handed on in pieces of at most this size, however long its lines.
const PIECE_BYTES: u64 = 64 << 10;

/// Where text lies when nothing else is said: a key of JSON, a column of a table.
const DEFAULT_KEY: &str = "text";

/// How a file holds documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Plain text; a line `<|endoftext|>` parts documents.
    Text,
    /// A document a line, a string in a JSON object.
    Jsonl,
    /// A document a record: AG News's class, title, description, or a column that a header names.
    Csv,
    /// A document a row, in a column of strings.
    Parquet,
}

impl Format {
    /// The format that a file's extension tells; any other than `jsonl`, `csv` and `parquet` is text.
    pub fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("jsonl") => Self::Jsonl,
            Some("csv") => Self::Csv,
            Some("parquet") => Self::Parquet,
            _ => Self::Text,
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        })
    }
}

/// What to do with parts of a file that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Stop with an error that names file and line (or byte).
    Refuse,
    /// Leave the part out, name it and count it.
    Skip,
}

/// How files are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// How the files hold documents; each file's extension tells when `None`.
    pub format: Option<Format>,
    /// The key of JSON, or the column of a table, that holds the text. When `None`, `text`, and in a table without a
    /// header AG News's title and description.
    pub key: Option<String>,
    /// What to do with malformed parts and empty files.
    pub malformed: Malformed,
}

impl Default for ReadOptions {
    /// The extension tells the format, the text is under `text`, and nothing malformed is taken.
    fn default() -> Self {
        Self { format: None, key: None, malformed: Malformed::Refuse }
    }
}

/// One input file.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

/// What a reader finds. A document that starts ends before its file does.
pub(super) enum Event<'a> {
    /// More text of the current document, and how many bytes of the file are read with it.
    Text(&'a str, u64),
    /// The current document ends here; it may have had no text.
    EndOfDocument,
}

/// Expands files and folders (searched for `*.txt`, `*.jsonl`, `*.csv` and `*.parquet`, sorted) into files.
///
/// # Errors
/// [`Error::Io`] for a path that cannot be read, [`Error::Data`] for a folder without text.
pub(super) fn find(inputs: &[PathBuf]) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for input in inputs {
        if fs::metadata(input).map_err(Error::io(input, "open"))?.is_dir() {
            let before = sources.len();
            find_in_folder(input, &mut sources)?;
            if sources.len() == before {
                return Err(Error::data(
                    input,
                    "content",
                    "*.txt, *.jsonl, *.csv or *.parquet files",
                    "none",
                ));
            }
        } else {
            sources.push(source(input)?);
        }
    }
    Ok(sources)
}

fn find_in_folder(dir: &Path, sources: &mut Vec<Source>) -> Result<()> {
    let mut entries = fs::read_dir(dir)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .map_err(Error::io(dir, "list"))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        // Links to folders are not followed: they may lead in circles.
        if entry.file_type().map_err(Error::io(&path, "open"))?.is_dir() {
            find_in_folder(&path, sources)?;
        } else if Format::of(&path) != Format::Text
            || path.extension().is_some_and(|ext| ext == "txt")
        {
            sources.push(source(&path)?);
        }
    }
    Ok(())
}

fn source(path: &Path) -> Result<Source> {
    let bytes = fs::metadata(path).map_err(Error::io(path, "open"))?.len();
    Ok(Source { path: path.into(), bytes })
}

/// Where events go, until one breaks.
pub(super) type OnEvent<'a> = dyn FnMut(Event<'_>) -> Result<ControlFlow<()>> + 'a;

/// Reads a file as events until `on_event` breaks; tells `on_skip` of each malformed part that is left out.
///
/// In text, the line end before a line `<|endoftext|>` belongs to it, not to the document.
///
/// # Errors
/// [`Error::Data`] for malformed content that is not to be skipped, [`Error::Io`], and those of `on_event`.
pub(super) fn read(
    source: &Source,
    options: &ReadOptions,
    on_event: &mut OnEvent<'_>,
    on_skip: &mut dyn FnMut(Error),
) -> Result<()> {
    let path = &source.path;
    let mut reader = Reader { path, malformed: options.malformed, on_skip };
    if source.bytes == 0 {
        return reader.refuse("size".into(), "some text", "an empty file".into());
    }
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    let key = options.key.as_deref();
    match options.format.unwrap_or_else(|| Format::of(path)) {
        Format::Text => reader.text(buffered(file), on_event),
        Format::Jsonl => reader.jsonl(buffered(file), key.unwrap_or(DEFAULT_KEY), on_event),
        Format::Csv => reader.csv(file, key, on_event),
        #[cfg(feature = "parquet")]
        Format::Parquet => reader.parquet(file, source.bytes, key.unwrap_or(DEFAULT_KEY), on_event),
        #[cfg(not(feature = "parquet"))]
        Format::Parquet => {
            let expected = "a build with the feature `parquet`";
            Err(Error::data(path, "format", expected, "a build without it"))
        }
    }
}

fn buffered(file: File) -> BufReader<File> {
    BufReader::with_capacity(1 << 18, file)
}

struct Reader<'a> {
    path: &'a Path,
    malformed: Malformed,
    on_skip: &'a mut dyn FnMut(Error),
}

impl Reader<'_> {
    /// Tells of a malformed part, or makes it an error.
    fn refuse(&mut self, what: String, expected: &str, found: String) -> Result<()> {
        self.skip_or_fail(Error::data(self.path, what, expected, found))
    }

    /// Tells of a malformed part that `error` describes, or fails with it.
    fn skip_or_fail(&mut self, error: Error) -> Result<()> {
        match self.malformed {
            Malformed::Skip => {
                (self.on_skip)(error);
                Ok(())
            }
            Malformed::Refuse => Err(error),
        }
    }

    /// Hands on a whole document, `read` bytes into the file.
    fn document(text: &str, read: u64, on_event: &mut OnEvent<'_>) -> Result<ControlFlow<()>> {
        if on_event(Event::Text(text, read))?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        on_event(Event::EndOfDocument)
    }

    fn text(&mut self, mut file: impl BufRead, on_event: &mut OnEvent<'_>) -> Result<()> {
        let mut piece = Vec::new();
        let mut offset = 0; // of the piece in the file
        let mut line_end = ""; // held back until it is known not to belong to a separator
        let mut at_line_start = true;
        let mut skipping_line = false;
        loop {
            // A character cut by the last piece's end is still in front.
            let carried = piece.len();
            let read = file.by_ref().take(PIECE_BYTES).read_until(b'\n', &mut piece);
            let read = read.map_err(Error::io(self.path, "read"))? as u64;
            if read == 0 && carried == 0 {
                break;
            }
            let ends_line = piece.ends_with(b"\n");
            let at_end = read < PIECE_BYTES && !ends_line;
            let mut valid = piece.len();
            if let (false, Err(error)) = (skipping_line, std::str::from_utf8(&piece)) {
                valid = error.valid_up_to();
                if error.error_len().is_some() || at_end {
                    let what = format!("byte {}", offset + valid as u64);
                    self.refuse(what, "UTF-8 text", format!("0x{:02x}", piece[valid]))?;
                    skipping_line = true;
                }
            }
            if skipping_line {
                valid = piece.len();
            } else {
                let text = std::str::from_utf8(&piece[..valid]).expect("cut where it is valid");
                let line = text.trim_end_matches(['\r', '\n']);
                let flow = if at_line_start && line == END_OF_TEXT {
                    line_end = "";
                    on_event(Event::EndOfDocument)?
                } else {
                    let body = text.strip_suffix('\n').unwrap_or(text);
                    let body = body.strip_suffix('\r').filter(|_| ends_line).unwrap_or(body);
                    let held = std::mem::replace(&mut line_end, ending(&text[body.len()..]));
                    if !held.is_empty() && on_event(Event::Text(held, offset))?.is_break() {
                        return Ok(());
                    }
                    on_event(Event::Text(body, offset + valid as u64))?
                };
                if flow.is_break() {
                    return Ok(());
                }
            }
            offset += valid as u64;
            piece.drain(..valid);
            at_line_start = ends_line;
            skipping_line &= !ends_line;
            if at_end {
                break;
            }
        }
        if !line_end.is_empty() && on_event(Event::Text(line_end, offset))?.is_break() {
            return Ok(());
        }
        on_event(Event::EndOfDocument).map(|_| ())
    }
}

fn ending(line_end: &str) -> &'static str {
    match line_end {
        "\n" => "\n",
        "\r\n" => "\r\n",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a file of this name and content: its documents, and how many parts were skipped.
    fn documents(name: &str, content: &[u8], malformed: Malformed) -> Result<(Vec<String>, u64)> {
        read_all(name, content, ReadOptions { malformed, ..ReadOptions::default() })
    }

    /// As [`documents`], by all options.
    pub(super) fn read_all(
        name: &str,
        content: &[u8],
        options: ReadOptions,
    ) -> Result<(Vec<String>, u64)> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join(name);
        fs::write(&path, content).expect("writable");
        let mut documents = vec![String::new()];
        let (mut position, mut skipped) = (0, 0);
        let mut on_event = |event: Event<'_>| {
            match event {
                Event::Text(text, read) => {
                    assert!(position <= read && read <= content.len() as u64);
                    position = read;
                    documents.last_mut().expect("never empty").push_str(text);
                }
                Event::EndOfDocument => documents.push(String::new()),
            }
            Ok(ControlFlow::Continue(()))
        };
        read(&source(&path)?, &options, &mut on_event, &mut |error| {
            assert!(error.to_string().contains(name), "{error}");
            skipped += 1;
        })?;
        assert_eq!(documents.pop().expect("never empty"), "", "the last document is ended");
        Ok((documents, skipped))
    }

    #[test]
    fn text_is_parted_at_separator_lines_and_kept_verbatim_otherwise() {
        for (content, expected) in [
            ("one\ntwo\n", vec!["one\ntwo\n"]),
            ("one\n<|endoftext|>\ntwo\n\nthree", vec!["one", "two\n\nthree"]),
            ("one\r\n\r\n<|endoftext|>\r\ntwo\r\n", vec!["one\r\n", "two\r\n"]),
            ("a <|endoftext|>\n <|endoftext|>", vec!["a <|endoftext|>\n <|endoftext|>"]),
            ("<|endoftext|>\n<|endoftext|>", vec!["", "", ""]),
            ("\r\r\na\rb", vec!["\r\r\na\rb"]),
        ] {
            let (found, _) =
                documents("a.txt", content.as_bytes(), Malformed::Refuse).expect("good text");
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn lines_longer_than_a_piece_lose_nothing() {
        // Three bytes a character: no power of two ends between characters.
        let long =
            "東".repeat(100_000) + "\n<|endoftext|>\n" + &"x".repeat(200_000) + "<|endoftext|>";
        let (found, _) = documents("a.txt", long.as_bytes(), Malformed::Refuse).expect("good text");
        assert_eq!(found, ["東".repeat(100_000), "x".repeat(200_000) + "<|endoftext|>"]);
    }

    #[test]
    fn invalid_utf8_is_refused_at_its_offset_or_its_line_skipped() {
        for (content, offset, rest) in [
            (&b"good\nb\xffd\nend"[..], "byte 6: expected UTF-8 text, found 0xff", "good\nend"),
            (&b"good\ncut \xe6\x9d"[..], "byte 9: expected UTF-8 text, found 0xe6", "good\n"),
        ] {
            let error = documents("a.txt", content, Malformed::Refuse).expect_err("bad text");
            assert!(error.to_string().contains(offset), "{error}");
            let skipped = documents("a.txt", content, Malformed::Skip).expect("skipped");
            assert_eq!(skipped, (vec![rest.into()], 1));
        }
    }

    #[test]
    fn jsonl_has_a_document_a_line() {
        let content = "{\"text\": \"one\\ntwo\"}\n\n{\"id\": 1, \"text\": \"<|endoftext|>\"}";
        let found = documents("a.jsonl", content.as_bytes(), Malformed::Refuse).expect("good");
        assert_eq!(found, (vec!["one\ntwo".into(), String::new(), "<|endoftext|>".into()], 0));
    }

    #[test]
    fn malformed_json_is_refused_by_line_or_skipped() {
        for (bad, reason) in [
            (&b"{\"text\": "[..], "EOF"),
            (b"{\"body\": \"x\"}", "only the keys [\"body\"]"),
            (b"{\"text\": 3}", "another value under it"),
            (b"[1]", "another value"),
            (b"{\"text\": \"\xff\"}", "invalid utf-8"),
        ] {
            let content = [b"{\"text\": \"a\"}\n", bad, b"\n{\"text\": \"b\"}"].concat();
            let error = documents("a.jsonl", &content, Malformed::Refuse).expect_err("malformed");
            let error = error.to_string();
            assert!(error.contains("line 2") && error.contains(reason), "{error}");
            let found = documents("a.jsonl", &content, Malformed::Skip).expect("skipped");
            assert_eq!(found, (vec!["a".into(), "b".into()], 1));
        }
    }

    #[test]
    fn missing_and_empty_files_and_folders_are_named() {
        let error = find(&["/no/such.txt".into()]).expect_err("missing").to_string();
        assert!(error.contains("/no/such.txt"), "{error}");
        let error = documents("void.txt", b"", Malformed::Refuse).expect_err("empty").to_string();
        assert!(error.contains("void.txt") && error.contains("empty"), "{error}");
        let dir = tempfile::tempdir().expect("a temporary folder");
        let error = find(&[dir.path().into()]).expect_err("no text").to_string();
        assert!(error.contains("*.txt"), "{error}");
    }

    #[test]
    fn folders_are_searched_in_order() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(dir.path().join("b")).expect("creatable");
        for name in ["c.txt", "b/z.jsonl", "b/y.txt", "a.txt", "skip.md"] {
            fs::write(dir.path().join(name), "x").expect("writable");
        }
        let found = find(&[dir.path().into(), dir.path().join("skip.md")]).expect("found");
        let names: Vec<_> = found
            .iter()
            .map(|s| {
                s.path.strip_prefix(dir.path()).expect("inside").to_string_lossy().into_owned()
            })
            .collect();
        assert_eq!(names, ["a.txt", "b/y.txt", "b/z.jsonl", "c.txt", "skip.md"]);
    }
}
