//! Documents as text, one after the other, for callers that split them before tokenizing. Knows nothing of tokens.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ltm_files::Error as FileError;

use super::prepare::Notice;
use super::source::{Event, Malformed, ReadOptions, find, read};
use crate::{Error, Result};

/// A document and its place.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    /// The file.
    pub path: &'a Path,
    /// Its number in the file, counted from 1 with malformed ones: in JSON lines the number of its line.
    pub number: u64,
    /// Its text, which is not white space alone.
    pub text: &'a str,
}

/// Passes the documents of `inputs` to `on_document` until it breaks; returns how many were malformed and skipped. Reports
/// progress and what is skipped to `observer`.
///
/// # Errors
/// [`Error::File`] naming the file for malformed content that is not to be skipped, which is also a document that
/// `on_document` answers with such an error; any other error of `on_document`.
pub fn documents(
    inputs: &[PathBuf],
    options: &ReadOptions,
    on_document: &mut dyn FnMut(Document<'_>) -> Result<ControlFlow<()>>,
    observer: &mut dyn FnMut(Notice),
) -> Result<u64> {
    let sources = find(inputs, options.format, &mut |found| observer(found.into()))?;
    let total: u64 = sources.iter().map(|source| source.bytes).sum();
    // Called here and by the reader, never at once.
    let observer = RefCell::new(observer);
    let skipped = RefCell::new(0);
    let skip = |error| {
        *skipped.borrow_mut() += 1;
        (observer.borrow_mut())(Notice::Skipped(error));
    };
    let mut before = 0; // bytes of the files already read
    let mut enough = false;
    for source in &sources {
        let mut text = String::new();
        let (mut ended, skipped_before) = (0, *skipped.borrow());
        let mut refused = 0; // by `on_document`, and so already among those that ended
        let mut on_event = |event: Event<'_>| {
            match event {
                Event::Text(more, read) => {
                    text.push_str(more);
                    (observer.borrow_mut())(Notice::Read { done: before + read, total });
                    return Ok(ControlFlow::Continue(()));
                }
                Event::EndOfDocument => ended += 1,
                Event::TextColumns(columns) => {
                    (observer.borrow_mut())(Notice::text_columns(&source.path, columns));
                    return Ok(ControlFlow::Continue(()));
                }
            }
            let text = std::mem::take(&mut text);
            if text.trim().is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            let number = ended + *skipped.borrow() - skipped_before - refused;
            match on_document(Document { path: &source.path, number, text: &text }) {
                Err(error @ Error::File(FileError::Content { .. }))
                    if options.malformed == Malformed::Skip =>
                {
                    refused += 1;
                    skip(error);
                    Ok(ControlFlow::Continue(()))
                }
                Ok(flow) => {
                    enough = flow.is_break();
                    Ok(flow)
                }
                Err(error) => Err(error),
            }
        };
        read(source, options, &mut on_event, &mut |error| skip(error))?;
        before += source.bytes;
        if enough {
            break;
        }
    }
    (observer.into_inner())(Notice::Read { done: total, total });
    Ok(skipped.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_lines_whatever_is_skipped() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a.jsonl");
        let lines =
            "{\"text\": \"one\"}\n\nnonsense\n{\"text\": \"bad\"}\n{\"text\": \"five\"}\n{\n";
        std::fs::write(&path, lines).expect("writable");
        let read = |malformed, last: &str| {
            let options = ReadOptions { malformed, ..ReadOptions::default() };
            let (mut found, mut told) = (Vec::new(), Vec::new());
            let skipped = documents(
                std::slice::from_ref(&path),
                &options,
                &mut |Document { path, number, text }| {
                    if text == "bad" {
                        return Err(Error::content(path, format!("line {number}"), "better", text));
                    }
                    found.push((number, text.to_owned()));
                    let end = text == last;
                    Ok(if end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
                },
                &mut |notice| {
                    if let Notice::Skipped(error) = notice {
                        told.push(error.to_string());
                    }
                },
            );
            (skipped, found, told)
        };
        let (skipped, found, told) = read(Malformed::Skip, "");
        assert_eq!(skipped.expect("skipping"), 3);
        assert_eq!(found, [(1, "one".into()), (5, "five".into())]);
        for (told, line) in told.iter().zip(["line 3", "line 4: expected better", "line 6"]) {
            assert!(told.contains("a.jsonl") && told.contains(line), "{told}");
        }
        assert_eq!(read(Malformed::Skip, "five").0.expect("no further"), 2);
        assert_eq!(read(Malformed::Refuse, "one").0.expect("no further"), 0);
        let error = read(Malformed::Refuse, "").0.expect_err("refused").to_string();
        assert!(error.contains("line 3"), "{error}");
    }
}
