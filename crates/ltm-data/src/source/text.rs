//! Plain text, in pieces, however long its lines.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use super::super::tokenizer::END_OF_TEXT;
use super::{Event, Malformed, OnEvent, Reader, position};
use crate::{Error, Result};

/// Text is passed on in pieces of at most this size.
const PIECE_BYTES: u64 = 64 << 10;

impl Reader<'_> {
    pub(super) fn text(
        &mut self,
        mut file: BufReader<File>,
        on_event: &mut OnEvent<'_>,
    ) -> Result<()> {
        let mut piece = Vec::new();
        let mut offset = position(&mut file, self.path)?; // of the piece in the file
        let mut line_end = ""; // held back until it is known not to belong to a separator
        let mut at_line_start = true;
        loop {
            // What the last piece ended with may still be in front: a part of a character or of a line end.
            let carried = piece.len();
            let read = file.by_ref().take(PIECE_BYTES).read_until(b'\n', &mut piece);
            let read = read.map_err(Error::io(self.path, "read"))? as u64;
            if read == 0 && carried == 0 {
                break;
            }
            let ends_line = piece.ends_with(b"\n");
            let at_end = read < PIECE_BYTES && !ends_line;
            let mut valid = match std::str::from_utf8(&piece) {
                Ok(_) => piece.len(),
                Err(error) => {
                    let valid = error.valid_up_to();
                    if error.error_len().is_some() || at_end {
                        // In a line of several pieces this happens only where nothing is skipped.
                        self.refuse_byte(offset + valid as u64, piece[valid])?;
                        let line = piece.len() as u64 + self.skip_line(&mut file, &piece)?;
                        offset += line;
                        piece.clear();
                        continue;
                    }
                    valid
                }
            };
            if self.malformed == Malformed::Skip && at_line_start && !ends_line && !at_end {
                // The start of a line must not be passed on before the rest is known to be good.
                if let Some((byte, value)) = self.invalid_in_line(&mut file, &piece[valid..])? {
                    self.refuse_byte(offset + valid as u64 + byte, value)?;
                    let line = piece.len() as u64 + self.skip_line(&mut file, &piece)?;
                    offset += line;
                    piece.clear();
                    continue;
                }
            }
            if !ends_line && !at_end && valid == piece.len() && piece.ends_with(b"\r") {
                valid -= 1; // half a line end
            }
            let text = std::str::from_utf8(&piece[..valid]).expect("cut where it is valid");
            let line = text.trim_end_matches(['\r', '\n']);
            let flow = if at_line_start && (ends_line || at_end) && line == END_OF_TEXT {
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
            offset += valid as u64;
            piece.drain(..valid);
            at_line_start = ends_line;
            if at_end {
                break;
            }
        }
        if !line_end.is_empty() && on_event(Event::Text(line_end, offset))?.is_break() {
            return Ok(());
        }
        on_event(Event::EndOfDocument).map(|_| ())
    }

    fn refuse_byte(&mut self, offset: u64, value: u8) -> Result<()> {
        self.refuse(format!("byte {offset}"), "UTF-8 text", format!("0x{value:02x}"))
    }

    /// Reads to the end of the line that `piece` is the start of, and returns how many bytes that are.
    fn skip_line(&self, file: &mut BufReader<File>, piece: &[u8]) -> Result<u64> {
        if piece.ends_with(b"\n") {
            return Ok(0);
        }
        file.skip_until(b'\n').map(|read| read as u64).map_err(Error::io(self.path, "read"))
    }

    /// The first byte of a line that is not UTF-8, counted from `start`, the beginning of a character at the end of what
    /// is read already. The file's position stays.
    fn invalid_in_line(
        &self,
        file: &mut BufReader<File>,
        start: &[u8],
    ) -> Result<Option<(u64, u8)>> {
        let failed = |error| Error::io(self.path, "read")(error);
        let mut piece = start.to_vec();
        let (mut before, mut ahead) = (0, 0);
        let invalid = loop {
            let read = file.by_ref().take(PIECE_BYTES).read_until(b'\n', &mut piece);
            let read = read.map_err(failed)? as u64;
            ahead += read;
            let ends = piece.ends_with(b"\n") || read < PIECE_BYTES;
            let valid = match std::str::from_utf8(&piece) {
                Ok(_) => piece.len(),
                Err(error) if error.error_len().is_some() || ends => {
                    let valid = error.valid_up_to();
                    break Some((before + valid as u64, piece[valid]));
                }
                Err(error) => error.valid_up_to(),
            };
            if ends {
                break None;
            }
            before += valid as u64;
            piece.drain(..valid);
        };
        file.seek_relative(-(ahead as i64)).map_err(failed)?;
        Ok(invalid)
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
    use super::super::tests::documents;
    use super::*;

    fn good(content: &[u8]) -> Vec<String> {
        documents("a.txt", content, Malformed::Refuse).expect("good text").0
    }

    #[test]
    fn text_is_split_at_separator_lines_and_kept_verbatim_otherwise() {
        for (content, expected) in [
            ("one\ntwo\n", vec!["one\ntwo\n"]),
            ("one\n<|endoftext|>\ntwo\n\nthree", vec!["one", "two\n\nthree"]),
            ("one\r\n\r\n<|endoftext|>\r\ntwo\r\n", vec!["one\r\n", "two\r\n"]),
            ("a <|endoftext|>\n <|endoftext|>", vec!["a <|endoftext|>\n <|endoftext|>"]),
            ("<|endoftext|>\n<|endoftext|>", vec!["", "", ""]),
            ("\r\r\na\rb", vec!["\r\r\na\rb"]),
        ] {
            assert_eq!(good(content.as_bytes()), expected);
        }
    }

    #[test]
    fn a_byte_order_mark_is_not_text() {
        assert_eq!(good(b"\xef\xbb\xbfhello"), ["hello"]);
        assert_eq!(good(b"\xef\xbb\xbf<|endoftext|>\nhello\n"), ["", "hello\n"]);
        assert_eq!(good(b"\xef\xbb\xbf"), [""]);
        let error = documents("a.txt", b"\xef\xbb\xbfab\xff", Malformed::Refuse).expect_err("bad");
        assert!(error.to_string().contains("byte 5"), "{error}");
    }

    #[test]
    fn lines_longer_than_a_piece_lose_nothing() {
        // Three bytes per character: no power of two ends between characters.
        let long =
            "東".repeat(100_000) + "\n<|endoftext|>\n" + &"x".repeat(200_000) + "<|endoftext|>";
        let expected = ["東".repeat(100_000), "x".repeat(200_000) + "<|endoftext|>"];
        for malformed in [Malformed::Refuse, Malformed::Skip] {
            let found = documents("a.txt", long.as_bytes(), malformed).expect("good text");
            assert_eq!(found, (expected.to_vec(), 0));
        }
    }

    #[test]
    fn a_line_end_at_the_edge_of_a_piece_stays_whole() {
        let piece = PIECE_BYTES as usize;
        for length in [piece - 2, piece - 1, piece, 2 * piece - 1] {
            let text = "a".repeat(length);
            let found = good(format!("{text}\r\n<|endoftext|>\r\nb").as_bytes());
            assert_eq!(found, [&*text, "b"], "{length}");
            let found = good(format!("{text}\r\rb").as_bytes());
            assert_eq!(found, [format!("{text}\r\rb")], "{length}");
            let found = good(format!("{text}\r").as_bytes());
            assert_eq!(found, [format!("{text}\r")], "{length}");
        }
    }

    #[test]
    fn invalid_utf8_is_refused_at_its_offset_or_its_line_skipped() {
        for (content, offset, rest) in [
            (&b"good\nb\xffd\nend"[..], "byte 6: expected UTF-8 text, found 0xff", "good\nend"),
            (b"good\ncut \xe6\x9d", "byte 9: expected UTF-8 text, found 0xe6", "good\n"),
        ] {
            let error = documents("a.txt", content, Malformed::Refuse).expect_err("bad text");
            assert!(error.to_string().contains(offset), "{error}");
            let skipped = documents("a.txt", content, Malformed::Skip).expect("skipped");
            assert_eq!(skipped, (vec![rest.into()], 1));
        }
    }

    #[test]
    fn a_long_line_is_skipped_from_its_start() {
        let long = "é".repeat(100_000);
        for (before, after) in [("", ""), ("", &*long), (&*long, ""), (&*long, &*long)] {
            let content = [
                b"good\n",
                before.as_bytes(),
                b"\xff",
                after.as_bytes(),
                b"\nmore\n<|endoftext|>\nend",
            ]
            .concat();
            let found = documents("a.txt", &content, Malformed::Skip).expect("skipped");
            assert_eq!(found, (vec!["good\nmore".into(), "end".into()], 1));
            let offset = format!("byte {}", 5 + before.len());
            let error = documents("a.txt", &content, Malformed::Refuse).expect_err("bad text");
            assert!(error.to_string().contains(&offset), "{error}");
        }
    }
}
