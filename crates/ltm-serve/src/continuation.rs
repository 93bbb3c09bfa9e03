//! The text of a completion as its tokens come: no half character is sent, no stop string, and nothing is lost. Knows no
//! model.

use ltm_eval::ltm_train::data::SharedTokenizer;

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// The document ended, or a stop string came.
    Stop,
    /// The most tokens were written.
    Length,
}

impl Finish {
    /// Its name in an answer.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// When a text ends.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// The most tokens, at least 1.
    pub(crate) max_tokens: usize,
    /// Strings at which the text ends, without them; none is empty.
    pub(crate) stop: Vec<String>,
}

/// What a token added.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Piece {
    /// Text to send.
    pub(crate) text: String,
    /// Whether it was the last.
    pub(crate) finish: Option<Finish>,
}

/// A completion that is being written.
#[derive(Debug)]
pub(crate) struct Continuation {
    tokenizer: SharedTokenizer,
    limits: Limits,
    /// The prompt's tokens and those written: a space or a character may span both.
    tokens: Vec<u32>,
    /// Bytes of text before the completion.
    prompt_bytes: usize,
    written: usize,
    /// The completion as far as it was sent.
    sent: String,
}

impl Continuation {
    /// Of a text that begins with the tokens `prompt`, without the one that documents begin with.
    pub(crate) fn new(tokenizer: SharedTokenizer, prompt: &[u32], limits: Limits) -> Self {
        let prompt_bytes = tokenizer.decode(prompt).trim_end_matches('\u{fffd}').len();
        let tokens = prompt.to_vec();
        Self { tokenizer, limits, tokens, prompt_bytes, written: 0, sent: String::new() }
    }

    /// Adds a token.
    pub(crate) fn push(&mut self, token: u32) -> Piece {
        self.written += 1;
        if token == self.tokenizer.separator() {
            return self.end(Finish::Stop);
        }
        self.tokens.push(token);
        let text = self.text();
        if let Some(at) = self.limits.stop.iter().filter_map(|stop| text.find(stop.as_str())).min()
        {
            return Piece { text: self.send(&text[..at]), finish: Some(Finish::Stop) };
        }
        if self.written >= self.limits.max_tokens {
            return self.end(Finish::Length);
        }
        let ready = text.trim_end_matches('\u{fffd}').len();
        let ready = ready.min(text.len() - self.begun_stop(&text));
        Piece { text: self.send(&text[..ready]), finish: None }
    }

    /// Everything that was written and not sent.
    fn end(&mut self, finish: Finish) -> Piece {
        let text = self.text();
        Piece { text: self.send(&text), finish: Some(finish) }
    }

    /// The completion so far.
    fn text(&self) -> String {
        let mut text = self.tokenizer.decode(&self.tokens);
        let is_boundary = |at: &usize| text.is_char_boundary(*at);
        let start = (0..=self.prompt_bytes).rev().find(is_boundary).unwrap_or(0);
        text.split_off(start)
    }

    /// Bytes at the end of a text that a stop string may have begun with.
    fn begun_stop(&self, text: &str) -> usize {
        let begun = |stop: &String| {
            let ends = stop.char_indices().map(|(at, _)| at).skip(1);
            ends.filter(|at| text.ends_with(&stop[..*at])).max().unwrap_or(0)
        };
        self.limits.stop.iter().map(begun).max().unwrap_or(0)
    }

    /// What `text` has after what was sent. A tokenizer that changes what it decoded before sends nothing until it has
    /// more than that.
    fn send(&mut self, text: &str) -> String {
        let Some(new) = text.get(self.sent.len()..) else { return String::new() };
        self.sent.push_str(new);
        new.into()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ltm_eval::ltm_train::data::{Bytes, Tokenizer};

    use super::*;

    /// The pieces of a text that is written byte by byte after a prompt.
    fn check(
        prompt: &[u8],
        written: &[u8],
        stop: &[&str],
        expected: &[&str],
        finish: Option<Finish>,
    ) {
        let ids = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).collect::<Vec<_>>();
        let stop = stop.iter().map(|stop| stop.to_string()).collect();
        let limits = Limits { max_tokens: 8, stop };
        let mut continuation = Continuation::new(Arc::new(Bytes), &ids(prompt), limits);
        let mut pieces = Vec::new();
        let mut found = None;
        for id in ids(written) {
            let id = if id == 0 { Bytes.separator() } else { id };
            let Piece { text, finish } = continuation.push(id);
            pieces.push(text);
            found = finish;
            if found.is_some() {
                break;
            }
        }
        assert_eq!(
            (pieces.iter().map(String::as_str).collect::<Vec<_>>(), found),
            (expected.to_vec(), finish)
        );
    }

    #[test]
    fn a_text_ends_at_its_end_or_at_the_most_tokens() {
        check(b"ab", b"cd\0", &[], &["c", "d", ""], Some(Finish::Stop));
        check(
            b"",
            b"12345678",
            &[],
            &["1", "2", "3", "4", "5", "6", "7", "8"],
            Some(Finish::Length),
        );
    }

    #[test]
    fn characters_are_whole() {
        check(b"", "aé".as_bytes(), &[], &["a", "", "é"], None);
        check(b"", "€x".as_bytes(), &[], &["", "", "€", "x"], None);
        // One that begins in the prompt.
        check(&"é".as_bytes()[..1], &[&"é".as_bytes()[1..], b"!"].concat(), &[], &["é", "!"], None);
        // Bytes that never become one are sent once the next one shows it, or at the end.
        check(b"", &[b'a', 0xc3, b'b'], &[], &["a", "", "\u{fffd}b"], None);
        check(b"", &[0xc3, 0], &[], &["", "\u{fffd}"], Some(Finish::Stop));
    }

    #[test]
    fn stop_strings_are_not_sent_and_what_only_begins_like_one_is() {
        check(b"", b"one END", &["END"], &["o", "n", "e", " ", "", "", ""], Some(Finish::Stop));
        check(b"", b"EEND", &["END"], &["", "E", "", ""], Some(Finish::Stop));
        check(b"", b"ENx", &["END"], &["", "", "ENx"], None);
        check(b"", b"EN\0", &["END"], &["", "", "EN"], Some(Finish::Stop));
        check(
            b"",
            b"1234567E",
            &["END"],
            &["1", "2", "3", "4", "5", "6", "7", "E"],
            Some(Finish::Length),
        );
        // The one that comes first, and not in the prompt.
        check(b"b", b"axb", &["b", "x"], &["a", ""], Some(Finish::Stop));
    }
}
