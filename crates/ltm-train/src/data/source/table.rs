//! Comma-separated records: a column that the header names, or AG News's class, title and description.

use std::fs::File;

use super::{DEFAULT_KEY, OnEvent, Reader};
use crate::{Error, Result};

/// What a table's first record says.
enum Columns {
    /// Class, title, description. Title and description make the text, a space between them.
    News,
    /// The text is in this column of so many.
    One { index: usize, width: usize },
}

const NEWS: &str = "AG News's class (a number), title, description";

impl Reader<'_> {
    pub(super) fn csv(
        &mut self,
        file: File,
        key: Option<&str>,
        on_event: &mut OnEvent<'_>,
    ) -> Result<()> {
        let path = self.path;
        let mut records =
            csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(file);
        let mut record = csv::ByteRecord::new();
        let mut columns = None;
        loop {
            let more = records.read_byte_record(&mut record).map_err(|error| {
                let line = error.position().map_or(0, csv::Position::line);
                match error.into_kind() {
                    csv::ErrorKind::Io(source) => Error::io(path, "read")(source),
                    other => {
                        Error::data(path, format!("line {line}"), "a record", format!("{other:?}"))
                    }
                }
            })?;
            if !more {
                return Ok(());
            }
            let line = record.position().map_or(0, csv::Position::line);
            let read = records.position().byte();
            let fields: Vec<&str> = match record.iter().map(std::str::from_utf8).collect() {
                Ok(fields) => fields,
                Err(error) => {
                    self.refuse(format!("line {line}"), "UTF-8 text", error.to_string())?;
                    continue;
                }
            };
            let known = match &columns {
                Some(columns) => columns,
                None => {
                    let (found, is_header) = first(&fields, key).map_err(|expected| {
                        Error::data(path, format!("line {line}"), expected, shown(&fields))
                    })?;
                    let found = columns.insert(found);
                    if is_header {
                        continue;
                    }
                    found
                }
            };
            match text(known, &fields) {
                Ok(text) => {
                    if Self::document(&text, read, on_event)?.is_break() {
                        return Ok(());
                    }
                }
                Err(expected) => self.refuse(format!("line {line}"), &expected, shown(&fields))?,
            }
        }
    }
}

/// What the first record says, and whether it is a header; what it should have been as the error.
fn first(fields: &[&str], key: Option<&str>) -> std::result::Result<(Columns, bool), String> {
    let column = |name: &str| fields.iter().position(|field| field.eq_ignore_ascii_case(name));
    let (name, width) = (key.unwrap_or(DEFAULT_KEY), fields.len());
    if let Some(index) = column(name) {
        return Ok((Columns::One { index, width }, true));
    }
    let news = key.is_none() && width == 3;
    if news && is_class(fields[0]) {
        return Ok((Columns::News, false));
    }
    if news && column("title") == Some(1) && column("description") == Some(2) {
        return Ok((Columns::News, true));
    }
    Err(match key {
        Some(key) => format!("a header with a column `{key}`"),
        None => format!("{NEWS}, or a header with a column `{name}` (or --key)"),
    })
}

/// A record's text; what the record should be as the error.
fn text(columns: &Columns, fields: &[&str]) -> std::result::Result<String, String> {
    match (columns, fields) {
        (Columns::News, [class, title, description]) if is_class(class) => {
            Ok(format!("{title} {description}"))
        }
        (Columns::News, _) => Err(NEWS.into()),
        (Columns::One { index, width }, _) if fields.len() == *width => Ok(fields[*index].into()),
        (Columns::One { width, .. }, _) => Err(format!("{width} columns")),
    }
}

fn is_class(field: &str) -> bool {
    field.trim().parse::<u32>().is_ok()
}

/// A record as an error shows it.
fn shown(fields: &[&str]) -> String {
    let first: String = fields.first().unwrap_or(&"").chars().take(20).collect();
    match fields.len() {
        1 => format!("1 column, which begins `{first}`"),
        n => format!("{n} columns, the first of which begins `{first}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::read_all;
    use super::super::{Malformed, ReadOptions};
    use super::*;

    fn documents(content: &str, key: Option<&str>, malformed: Malformed) -> Result<Vec<String>> {
        let options = ReadOptions { format: None, key: key.map(String::from), malformed };
        let (documents, skipped) = read_all("a.csv", content.as_bytes(), options)?;
        assert!(skipped == 0 || malformed == Malformed::Skip);
        Ok(documents)
    }

    #[test]
    fn quotes_commas_and_line_ends_inside_fields_are_text() {
        for (content, key, expected) in [
            ("\"3\",\"A \"\"big\"\" day\",\"One, two.\"\n", None, &["A \"big\" day One, two."][..]),
            ("1,a,b\r\n2,\"c\nd\",e", None, &["a b", "c\nd e"]),
            ("Class Index,Title,Description\n4,a,b\n", None, &["a b"]),
            ("id,text\n7,\"x, y\"\n", None, &["x, y"]),
            ("body,id\n\"\",1\nz,2\n", Some("body"), &["", "z"]),
        ] {
            assert_eq!(documents(content, key, Malformed::Refuse).expect("good"), expected);
        }
    }

    #[test]
    fn records_of_another_shape_are_refused_by_line_or_skipped() {
        for (content, key, parts, rest) in [
            ("1,a,b\n2,c\n3,d,e\n", None, ["line 2", "2 columns"], &["a b", "d e"]),
            ("1,a,b\nworld,c,d\n3,d,e\n", None, ["line 2", "`world`"], &["a b", "d e"]),
            ("text,n\na b,1\nc,2,3\nd e,4\n", None, ["line 3", "3 columns"], &["a b", "d e"]),
        ] {
            let error = documents(content, key, Malformed::Refuse).expect_err("bad").to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
            assert_eq!(documents(content, key, Malformed::Skip).expect("skipped"), rest);
        }
    }

    #[test]
    fn a_table_without_its_text_is_refused_even_if_lines_may_be_skipped() {
        for (content, key, expected) in [
            ("a,b\n1,2\n", Some("body"), "a header with a column `body`"),
            ("a,b,c,d\n", None, "AG News"),
        ] {
            let error = documents(content, key, Malformed::Skip).expect_err("no text").to_string();
            assert!(error.contains(expected) && error.contains("line 1"), "{error}");
        }
    }

    #[test]
    fn invalid_utf8_is_named() {
        let bad = b"1,a,b\n2,\xff,c\n";
        let error = read_all("a.csv", bad, ReadOptions::default()).expect_err("bad").to_string();
        assert!(error.contains("line 2") && error.contains("utf-8"), "{error}");
    }
}
