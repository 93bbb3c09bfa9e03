//! Expands files, folders and pipes into sources, and decides on their formats. Reads no more than the start and the
//! end of a file.

use std::fs::{self, File, FileType};
use std::io::{IsTerminal, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Format, Source};
use crate::{Error, Result};

/// Bytes at the start of a file by which its kind is recognised.
const START_BYTES: u64 = 512;

/// What compressed files and other encodings start with.
const NOT_TEXT: [(&[u8], &str); 13] = [
    (b"\x1f\x8b", "a gzip file; decompress it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd file; decompress it first"),
    (b"\xfd7zXZ\0", "an xz file; decompress it first"),
    (b"BZh", "a bzip2 file; decompress it first"),
    (b"PK\x03\x04", "a zip file; extract it first"),
    (b"\xff\xfe", "UTF-16 text; convert it to UTF-8 first"),
    (b"\xfe\xff", "UTF-16 text; convert it to UTF-8 first"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x04\x22\x4d\x18", "an lz4 file; decompress it first"),
    (b"\x89PNG", "a PNG image"),
    (b"%PDF-", "a PDF file; extract its text first"),
    (b"ARROW1\0\0", "an Arrow file; convert it to Parquet first"),
    (b"\x93NUMPY", "a NumPy file"),
];

/// Something to report about a file before it is read.
#[derive(Debug)]
pub(crate) enum Found {
    /// The file's extension is unknown; its content looks like this format.
    Guessed(PathBuf, Format),
    /// A folder contains this file or folder, which is not read.
    Ignored(PathBuf),
}

/// Expands files and folders into files, those of a folder in the order of their names. In folders, files with the
/// extension of a [`Format`] count, in upper or lower case; all others are reported as ignored, and so are hidden files,
/// hidden folders and links to folders.
///
/// What is not a regular file, such as a pipe, is copied to a temporary file first.
///
/// # Errors
/// [`Error::File`] for a path that cannot be read, a folder without any file to read, a device, a
/// compressed or binary file.
pub(crate) fn find(
    inputs: &[PathBuf],
    format: Option<Format>,
    on_found: &mut dyn FnMut(Found),
) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for input in inputs {
        if fs::metadata(input).map_err(Error::io(input, "open"))?.is_dir() {
            let before = sources.len();
            in_folder(input, format, &mut sources, on_found)?;
            if sources.len() == before {
                let expected = "*.txt, *.jsonl, *.json, *.csv, *.tsv or *.parquet files";
                return Err(Error::content(input, "content", expected, "none"));
            }
        } else {
            sources.push(source(input, format, on_found)?);
        }
    }
    Ok(sources)
}

fn in_folder(
    dir: &Path,
    format: Option<Format>,
    sources: &mut Vec<Source>,
    on_found: &mut dyn FnMut(Found),
) -> Result<()> {
    let mut entries = fs::read_dir(dir)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .map_err(Error::io(dir, "list"))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        // Links to folders are not followed: they may lead in circles.
        let is_folder = entry.file_type().map_err(Error::io(&path, "open"))?.is_dir();
        if is_folder && !hidden {
            in_folder(&path, format, sources, on_found)?;
        } else if !hidden
            && Format::of_name(&path).is_some()
            && fs::metadata(&path).map_err(Error::io(&path, "open"))?.is_file()
        {
            sources.push(source(&path, format, on_found)?);
        } else {
            on_found(Found::Ignored(path));
        }
    }
    Ok(())
}

fn source(path: &Path, format: Option<Format>, on_found: &mut dyn FnMut(Found)) -> Result<Source> {
    let mut file = File::open(path).map_err(Error::io(path, "open"))?;
    let metadata = file.metadata().map_err(Error::io(path, "open"))?;
    let (mut bytes, mut copy) = (metadata.len(), None);
    // Files that the system makes up, as under /proc, have no size either.
    if !metadata.is_file() || bytes == 0 {
        if is_endless(metadata.file_type()) && !file.is_terminal() {
            return Err(Error::content(path, "input", "a file, a folder or a pipe", "a device"));
        }
        let mut copied =
            tempfile::tempfile().map_err(Error::io(path, "copy to a temporary file"))?;
        bytes = std::io::copy(&mut file, &mut copied)
            .map_err(Error::io(path, "copy to a temporary file"))?;
        copy = Some(Arc::new(copied));
    }
    let mut source = Source { path: path.into(), bytes, format: Format::Text, copy };
    let mut start = Vec::new();
    let read = source.open()?.take(START_BYTES).read_to_end(&mut start);
    read.map_err(Error::io(path, "read"))?;
    if let Some((_, found)) = NOT_TEXT.iter().find(|(magic, _)| start.starts_with(magic)) {
        let expected = "UTF-8 text, JSON, CSV, TSV or Parquet";
        return Err(Error::content(path, "content", expected, *found));
    }
    let is_parquet = starts_and_ends_like_parquet(&source, &start)?;
    // No text starts and ends like a Parquet file, whatever its name.
    let named = Format::of_name(path).filter(|named| !is_parquet || *named == Format::Parquet);
    source.format = match format.or(named) {
        Some(format) => format,
        None => {
            let content = if is_parquet { Format::Parquet } else { Format::of_content(&start) };
            on_found(Found::Guessed(path.into(), content));
            content
        }
    };
    if source.format != Format::Parquet
        && let Some(at) = start.iter().position(|byte| *byte == 0)
    {
        let found = format!("binary data or UTF-16: byte {at} is 0");
        return Err(Error::content(path, "content", "UTF-8 text", found));
    }
    Ok(source)
}

fn starts_and_ends_like_parquet(source: &Source, start: &[u8]) -> Result<bool> {
    const MAGIC: &[u8] = b"PAR1";
    if !start.starts_with(MAGIC) || source.bytes < 2 * MAGIC.len() as u64 {
        return Ok(false);
    }
    let mut end = Vec::new();
    let mut file = source.open()?;
    file.seek(SeekFrom::End(-(MAGIC.len() as i64)))
        .and_then(|_| file.read_to_end(&mut end))
        .map_err(Error::io(&source.path, "read"))?;
    Ok(end == MAGIC)
}

/// Whether reading may never end.
#[cfg(unix)]
fn is_endless(kind: FileType) -> bool {
    use std::os::unix::fs::FileTypeExt;
    kind.is_char_device() || kind.is_block_device()
}

#[cfg(not(unix))]
fn is_endless(_: FileType) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names and formats of what `find` returns in a folder of these files, and its reports.
    fn check(files: &[(&str, &[u8])], inputs: &[&str]) -> Result<(Vec<String>, Vec<String>)> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for (name, content) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("in the folder")).expect("creatable");
            fs::write(path, content).expect("writable");
        }
        let inputs: Vec<PathBuf> = inputs.iter().map(|name| dir.path().join(name)).collect();
        let name = |path: &Path| {
            path.strip_prefix(dir.path()).expect("inside").to_string_lossy().into_owned()
        };
        let mut reports = Vec::new();
        let found = find(&inputs, None, &mut |found| {
            reports.push(match found {
                Found::Guessed(path, format) => format!("{} {format}", name(&path)),
                Found::Ignored(path) => name(&path),
            });
        })?;
        let found = found.iter().map(|s| format!("{} {}", name(&s.path), s.format)).collect();
        Ok((found, reports))
    }

    #[test]
    fn folders_are_searched_in_order_and_what_is_ignored_is_reported() {
        let files: [(&str, &[u8]); 9] = [
            ("in/c.txt", b"x"),
            ("in/b/z.JSONL", b"{}"),
            ("in/b/y.Txt", b"x"),
            ("in/a.json", b"[]"),
            ("in/t.TSV", b"text"),
            ("in/skip.md", b"x"),
            ("in/.git/config.txt", b"x"),
            ("in/.hidden.txt", b"x"),
            ("own.md", b"x"),
        ];
        let (found, reports) = check(&files, &["in", "own.md"]).expect("found");
        let expected = [
            "in/a.json json",
            "in/b/y.Txt text",
            "in/b/z.JSONL jsonl",
            "in/c.txt text",
            "in/t.TSV tsv",
        ];
        assert_eq!(found[..5], expected);
        assert_eq!(found[5..], ["own.md text"]);
        assert_eq!(reports, ["in/.git", "in/.hidden.txt", "in/skip.md", "own.md text"]);
    }

    #[test]
    fn content_decides_where_the_name_does_not() {
        for (name, content, expected) in [
            ("a", &b"{\"text\": \"a\"}\n"[..], "a jsonl"),
            ("a", b"\xef\xbb\xbf [\n {\"text\"", "a json"),
            ("a.log", b"[warning] {", "a.log text"),
            ("a.md", b"{braces}", "a.md text"),
            ("a.dat", b"PAR1\x15PAR1", "a.dat parquet"),
            ("a.txt", b"PAR1\x15PAR1", "a.txt parquet"),
            ("a.dat", b"PAR1 is text", "a.dat text"),
            ("a.xyz", b"", "a.xyz text"),
        ] {
            let (found, reports) = check(&[(name, content)], &[name]).expect("found");
            assert_eq!((&*found[0], &*reports[0]), (expected, expected));
        }
        let (found, reports) = check(&[("a.txt", b"{\"text\": 1}")], &["a.txt"]).expect("found");
        assert_eq!((&*found[0], reports.len()), ("a.txt text", 0), "the name is clear");
        let (found, reports) = check(&[("a.txt", b"PAR1 is text")], &["a.txt"]).expect("found");
        assert_eq!((&*found[0], reports.len()), ("a.txt text", 0), "its end is no Parquet");
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a");
        fs::write(&path, "PAR1 PAR1").expect("writable");
        let found = find(&[path], Some(Format::Text), &mut |_| ());
        assert_eq!(found.expect("found")[0].format, Format::Text);
    }

    #[test]
    fn files_that_are_not_text_are_refused_by_what_they_are() {
        for (content, kind) in [
            (&b"\x1f\x8b\x08\0"[..], "gzip"),
            (b"\x28\xb5\x2f\xfd..", "zstd"),
            (b"\xff\xfea\0", "UTF-16"),
            (b"a\0b\0", "binary data or UTF-16: byte 1 is 0"),
            (b"\x89PNG\r\n", "PNG"),
            (b"ARROW1\0\0", "Arrow"),
        ] {
            let error = check(&[("a.txt", content)], &["a.txt"]).expect_err("not text").to_string();
            assert!(error.contains("a.txt") && error.contains(kind), "{error}");
        }
    }

    #[test]
    fn missing_files_and_folders_without_text_are_named() {
        let error = check(&[], &["no.txt"]).expect_err("missing").to_string();
        assert!(error.contains("no.txt"), "{error}");
        let error = check(&[("in/a.md", b"x")], &["in"]).expect_err("no text").to_string();
        assert!(error.contains("*.txt"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn devices_are_refused_and_files_without_a_size_are_read() {
        let error =
            find(&["/dev/zero".into()], None, &mut |_| ()).expect_err("endless").to_string();
        assert!(error.contains("/dev/zero") && error.contains("a device"), "{error}");
        if Path::new("/proc/version").exists() {
            let found = find(&["/proc/version".into()], None, &mut |_| ()).expect("copied");
            assert!(found[0].bytes > 0 && found[0].copy.is_some());
        }
    }
}
