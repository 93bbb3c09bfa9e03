//! Reads documents out of files of several formats, in bounded memory. Knows nothing of tokens.

mod find;
mod gsm8k;
mod json;
#[cfg(feature = "parquet")]
mod parquet;
mod records;
mod table;
mod text;

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(all(test, feature = "parquet"))]
pub(super) use self::parquet::tests::parquet_file;
use crate::{Error, Result};
pub(super) use find::{Found, find};
pub use gsm8k::{gsm8k_document, gsm8k_question};
pub use json::{Place, objects};

/// The key of JSON or the column of a table that holds the text unless another is given.
const DEFAULT_KEY: &str = "text";

/// A line of JSON or a record of a table is held in memory as a whole; a longer one is malformed.
const RECORD_BYTES: usize = 64 << 20;

/// How a file holds documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Plain text; documents are separated by lines containing only `<|endoftext|>`.
    Text,
    /// One JSON object per line, one document in each.
    Jsonl,
    /// A JSON array of objects, or one object per line; one document in each object.
    Json,
    /// Comma-separated values with quoting as in RFC 4180, one document per record: in a column that a header names, or in
    /// title and description of AG News's class, title, description.
    Csv,
    /// As [`Format::Csv`], separated by tabs.
    Tsv,
    /// A Parquet table, one document per row, in a column of strings.
    Parquet,
    /// GSM8K's problems as [`Format::Json`], a document of each question and answer: see [`gsm8k_document`]. Only where it
    /// is asked for.
    Gsm8k,
}

impl Format {
    /// The format that the extension of a file name stands for, in upper or lower case; `None` for any other extension.
    pub fn of_name(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        Some(match &*extension {
            "txt" | "text" => Self::Text,
            "jsonl" | "ndjson" => Self::Jsonl,
            "json" => Self::Json,
            "csv" => Self::Csv,
            "tsv" | "tab" => Self::Tsv,
            "parquet" | "pq" => Self::Parquet,
            _ => return None,
        })
    }

    /// The format of a file of text by its first bytes.
    fn of_content(start: &[u8]) -> Self {
        let start = ltm_files::without_bom(start);
        // `{"` and `[{` open JSON; prose that opens with a bracket goes on with letters.
        let mut marks = start.iter().filter(|byte| !byte.is_ascii_whitespace());
        match (marks.next(), marks.next()) {
            (Some(b'{'), Some(b'"')) => Self::Jsonl,
            (Some(b'['), Some(b'{')) => Self::Json,
            _ => Self::Text,
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Jsonl => "jsonl",
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::Parquet => "parquet",
            Self::Gsm8k => "gsm8k",
        })
    }
}

/// What to do with malformed parts of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Stop with an error that names file and line (or byte).
    Refuse,
    /// Skip the whole line or record, name it and count it.
    Skip,
}

/// How files are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// How the files hold documents. When `None`, the extension of each file decides, and its content where the extension
    /// is another one.
    pub format: Option<Format>,
    /// The key of JSON, or the column of a table, that holds the text. When `None`, `text`, and in a table without a
    /// header AG News's title and description.
    pub key: Option<String>,
    /// What to do with malformed parts and empty files.
    pub malformed: Malformed,
}

impl Default for ReadOptions {
    /// Each file's name or content decides on its format, the text is under `text`, and malformed parts are refused.
    fn default() -> Self {
        Self { format: None, key: None, malformed: Malformed::Refuse }
    }
}

/// One input file.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) format: Format,
    /// A copy of what cannot be read twice, such as a pipe.
    copy: Option<Arc<File>>,
}

impl Source {
    fn open(&self) -> Result<File> {
        let failed = |error| Error::io(&self.path, "open")(error);
        match &self.copy {
            None => File::open(&self.path).map_err(failed),
            // Readers follow one another, so that they may share a position.
            Some(copy) => {
                copy.try_clone().and_then(|mut file| file.rewind().map(|()| file)).map_err(failed)
            }
        }
    }
}

/// What a reader finds. A document that starts ends before its file does.
pub(super) enum Event<'a> {
    /// More text of the current document, and how many bytes of the file are read with it.
    Text(&'a str, u64),
    /// The current document ends here; it may have had no text.
    EndOfDocument,
    /// The text of a table is in these columns, which the reader chose itself.
    TextColumns(&'a [&'a str]),
}

/// Receives events until it breaks.
pub(super) type OnEvent<'a> = dyn FnMut(Event<'_>) -> Result<ControlFlow<()>> + 'a;

/// Reads a file as events until `on_event` breaks; passes the error of each malformed part that is skipped to `on_skip`.
///
/// In text, the line end before a line `<|endoftext|>` belongs to that line, not to the document. A byte order mark at
/// the start of a file is not part of its content.
///
/// # Errors
/// [`Error::File`] for malformed content that is not to be skipped and for a file that cannot be read; those of `on_event`.
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
    let file = source.open()?;
    let key = options.key.as_deref();
    match source.format {
        Format::Text => reader.text(after_bom(file, path)?, on_event),
        Format::Jsonl => reader.jsonl(after_bom(file, path)?, key, on_event),
        Format::Json => reader.json(after_bom(file, path)?, key, on_event),
        Format::Gsm8k => reader.gsm8k(after_bom(file, path)?, on_event),
        Format::Csv => reader.table(after_bom(file, path)?, b',', key, on_event),
        Format::Tsv => reader.table(after_bom(file, path)?, b'\t', key, on_event),
        #[cfg(feature = "parquet")]
        Format::Parquet => reader.parquet(file, source.bytes, key.unwrap_or(DEFAULT_KEY), on_event),
        #[cfg(not(feature = "parquet"))]
        Format::Parquet => {
            let expected = "a build with the feature `parquet`";
            Err(Error::content(path, "format", expected, "a build without it"))
        }
    }
}

/// The file, buffered, past a byte order mark at its start.
fn after_bom(file: File, path: &Path) -> Result<BufReader<File>> {
    let mut file = BufReader::with_capacity(1 << 18, file);
    let mut start = Vec::new();
    let read = file.by_ref().take(3).read_to_end(&mut start).map_err(Error::io(path, "read"))?;
    let bom = read - ltm_files::without_bom(&start).len();
    file.seek_relative(bom as i64 - read as i64).map_err(Error::io(path, "read"))?;
    Ok(file)
}

/// How far into its file a reader is.
fn position(file: &mut BufReader<File>, path: &Path) -> Result<u64> {
    file.stream_position().map_err(Error::io(path, "read"))
}

struct Reader<'a> {
    path: &'a Path,
    malformed: Malformed,
    on_skip: &'a mut dyn FnMut(Error),
}

impl Reader<'_> {
    /// Reports a malformed part as skipped, or fails.
    fn refuse(&mut self, what: String, expected: &str, found: String) -> Result<()> {
        self.skip_or_fail(Error::content(self.path, what, expected, found))
    }

    /// Reports a malformed part that `error` describes as skipped, or fails with it.
    fn skip_or_fail(&mut self, error: Error) -> Result<()> {
        match self.malformed {
            Malformed::Skip => {
                (self.on_skip)(error);
                Ok(())
            }
            Malformed::Refuse => Err(error),
        }
    }

    /// Passes on a whole document, `read` bytes into the file.
    fn document(text: &str, read: u64, on_event: &mut OnEvent<'_>) -> Result<ControlFlow<()>> {
        if on_event(Event::Text(text, read))?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        on_event(Event::EndOfDocument)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a file of this name and content: its documents, and how many parts were skipped.
    pub(super) fn documents(
        name: &str,
        content: &[u8],
        malformed: Malformed,
    ) -> Result<(Vec<String>, u64)> {
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
        std::fs::write(&path, content).expect("writable");
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
                Event::TextColumns(_) => {}
            }
            Ok(ControlFlow::Continue(()))
        };
        let sources = find(&[path], options.format, &mut |_| ())?;
        read(&sources[0], &options, &mut on_event, &mut |error| {
            assert!(error.to_string().contains(name), "{error}");
            skipped += 1;
        })?;
        assert_eq!(documents.pop().expect("never empty"), "", "the last document is ended");
        Ok((documents, skipped))
    }

    #[test]
    fn an_empty_file_is_named() {
        let error = documents("void.txt", b"", Malformed::Refuse).expect_err("empty").to_string();
        assert!(error.contains("void.txt") && error.contains("empty"), "{error}");
    }
}
