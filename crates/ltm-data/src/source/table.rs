//! Tables of records: a column that the header names, or AG News's class, title and description.

use std::fs::File;
use std::io::BufReader;

use super::records::Records;
use super::{DEFAULT_KEY, Event, OnEvent, Reader, position};
use crate::{Error, Result};

/// Where a table has its text, according to its first record.
enum Columns {
    /// Class, title, description. Title and description make the text, with a space between them.
    News,
    /// In the column `index` of `width` columns.
    One { index: usize, width: usize },
}

const NEWS: &str = "AG News's class (a number), title, description";

impl Reader<'_> {
    pub(super) fn table(
        &mut self,
        mut file: BufReader<File>,
        delimiter: u8,
        key: Option<&str>,
        on_event: &mut OnEvent<'_>,
    ) -> Result<()> {
        let path = self.path;
        let start = position(&mut file, path)?;
        let mut records = Records::new(file, start, delimiter);
        let mut columns = None;
        loop {
            let (what, read, fields) = match records.next().map_err(Error::io(path, "read"))? {
                None => return Ok(()),
                Some(Err(broken)) => {
                    self.refuse(format!("line {}", broken.line), &broken.expected, broken.found)?;
                    continue;
                }
                Some(Ok(record)) => {
                    let fields: std::result::Result<Vec<_>, _> =
                        record.fields().map(std::str::from_utf8).collect();
                    (format!("line {}", record.line), record.read, fields)
                }
            };
            let fields = match fields {
                Ok(fields) => fields,
                Err(error) => {
                    self.refuse(what, "UTF-8 text", error.to_string())?;
                    continue;
                }
            };
            let known = match &columns {
                Some(columns) => columns,
                None => {
                    let (found, is_header) = first(&fields, key).map_err(|expected| {
                        Error::content(path, &*what, expected, shown(&fields))
                    })?;
                    if key.is_none() {
                        let names = match found {
                            Columns::News => vec!["title", "description"],
                            Columns::One { index, .. } => vec![fields[index]],
                        };
                        if on_event(Event::TextColumns(&names))?.is_break() {
                            return Ok(());
                        }
                    }
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
                Err(expected) => self.refuse(what, &expected, shown(&fields))?,
            }
        }
    }
}

/// What the first record shows, and whether it is a header; what it should have been as the error.
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
        None => {
            format!("{NEWS}, or a header with a column `{name}`, or the name of another column")
        }
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
            // Half of the header of AG News.
            ("a,title,b\n1,2,3\n", None, "AG News"),
            ("a,b,description\n1,2,3\n", None, "AG News"),
        ] {
            let error = documents(content, key, Malformed::Skip).expect_err("no text").to_string();
            assert!(error.contains(expected) && error.contains("line 1"), "{error}");
        }
    }

    #[test]
    fn quotes_that_break_the_rules_are_refused_by_line_or_their_record_skipped() {
        const SKIP: Malformed = Malformed::Skip;
        for (content, parts, rest) in [
            // A quote that is never closed, which lenient readers close at the end of the file.
            (
                "text\nfirst\n\"never closed\nthird\nfourth\n",
                ["line 3:", "closing quote"],
                &["first", "third", "fourth"][..],
            ),
            ("text\r\n\r\nfirst\r\n\"x", ["line 4:", "the end of the file"], &["first"]),
            ("text,n\n\"a\nb\",\"1\n", ["line 3:", "closing quote"], &[]),
            // A quote escaped by a backslash, as MySQL writes it.
            ("text,n\na,1\n\"b \\\"c\\\" d\",2\ne,3\n", ["line 3:", "found `c`"], &["a", "e"]),
            ("text,n\n\"a \\\"\",1\n\"b\",2\nc,3\n", ["line 2:", "found `b` on line 3"], &["c"]),
            ("text,n\nab\"c,1\nd,2\n", ["line 2:", "found `\"`"], &["d"]),
            ("text,n\n \"a\",1\nd,2\n", ["line 2:", "found `\"`"], &["d"]),
        ] {
            let error = documents(content, None, Malformed::Refuse).expect_err("bad").to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{content}\n{error}");
            assert_eq!(documents(content, None, SKIP).expect("skipped"), rest, "{content}");
        }
    }

    #[test]
    fn lines_are_counted_through_blank_lines_line_ends_and_quotes() {
        for end in ["\n", "\r\n", "\r"] {
            let content = ["text,n", "", "\"a", "", "b\",1", "", "c,2,3", ""].join(end);
            let error = documents(&content, None, Malformed::Refuse).expect_err("bad").to_string();
            assert!(error.contains("line 7: expected 2 columns"), "{error}");
            let found = documents(&content, None, Malformed::Skip).expect("skipped");
            assert_eq!(found, [["a", "", "b"].join(end)]);
        }
    }

    #[test]
    fn tabs_separate_where_the_name_says_so() {
        let read = |name, content: &str| {
            read_all(name, content.as_bytes(), ReadOptions::default()).expect("good").0
        };
        let content = "label\ttext\n1\thello, there\n2\t\"a\tb\"\n3\t5\" disk\n";
        for name in ["a.tsv", "A.TSV"] {
            assert_eq!(read(name, content), ["hello, there", "a\tb", "5\" disk"]);
        }
        assert_eq!(read("A.CSV", "\u{FEFF}\"text\",n\nhi,1"), ["hi"]);
    }

    #[test]
    fn invalid_utf8_is_named() {
        let bad = b"1,a,b\n2,\xff,c\n";
        let error = read_all("a.csv", bad, ReadOptions::default()).expect_err("bad").to_string();
        assert!(error.contains("line 2") && error.contains("utf-8"), "{error}");
    }
}
