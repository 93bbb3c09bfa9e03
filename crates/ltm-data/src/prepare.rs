//! Text to shards, or to a corpus in memory. Knows nothing of how files are read or written, nor of how text becomes
//! tokens.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::memory::Memory;
use super::meta::Meta;
use super::pipeline::{PIECE_BYTES, Partition, Pipeline, Sink};
use super::shard::{Corpus, shard_files};
use super::source::{Event, Format, Found, ReadOptions, Source, find, read};
use super::tokenizer::{SharedTokenizer, Tokenizer, check};
use super::writer::CorpusWriter;
use crate::{Error, Result, Split};

/// In a text of more bytes only one piece in [`SAMPLED`] is tokenized to estimate where its tail starts.
const COUNTED_BYTES: u64 = 4 << 20;
const SAMPLED: u64 = 16;

/// A report of a reader of files while it works.
#[derive(Debug)]
pub enum Notice {
    /// Progress in bytes.
    Read {
        /// Bytes read.
        done: u64,
        /// Bytes in all files.
        total: u64,
    },
    /// A malformed part was skipped, and why; only with [`Malformed::Skip`](super::Malformed).
    Skipped(Error),
    /// The extension of a file is not one of a known format; its content looks like this one.
    Guessed {
        /// The file.
        path: PathBuf,
        /// The format it is read as.
        format: Format,
    },
    /// No column of a table was asked for, and the reader chose these for the text.
    TextColumns {
        /// The table.
        path: PathBuf,
        /// The names of the columns.
        columns: Vec<String>,
    },
    /// A file or folder in an input folder is not read: its extension is not one of a [`Format`], or it is hidden.
    Ignored(PathBuf),
}

impl Notice {
    pub(super) fn text_columns(path: &Path, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|column| String::from(*column)).collect();
        Self::TextColumns { path: path.into(), columns }
    }
}

impl From<Found> for Notice {
    fn from(found: Found) -> Self {
        match found {
            Found::Guessed(path, format) => Self::Guessed { path, format },
            Found::Ignored(path) => Self::Ignored(path),
        }
    }
}

/// How [`prepare`] works.
#[derive(Clone, Debug)]
pub struct PrepareOptions {
    /// The folder to write.
    pub out: PathBuf,
    /// Text to ids.
    pub tokenizer: SharedTokenizer,
    /// How files are read.
    pub read: ReadOptions,
    /// Tokens in a shard; the last one of a split has fewer.
    pub shard_tokens: u64,
    /// The validation split's share of the tokens, from 0 (no validation split) to 0.5.
    pub val_fraction: f64,
}

impl PrepareOptions {
    /// The default: each file's format by its extension, shards of 100 million tokens, 5 % for validation, nothing
    /// skipped.
    pub fn new(out: PathBuf, tokenizer: SharedTokenizer) -> Self {
        Self {
            out,
            tokenizer,
            read: ReadOptions::default(),
            shard_tokens: 100_000_000,
            val_fraction: 0.05,
        }
    }

    /// Checks the options.
    ///
    /// # Errors
    /// [`Error::Field`] naming the field.
    pub fn validate(&self) -> Result<()> {
        if !(0.0..=0.5).contains(&self.val_fraction) {
            return Err(Error::field("val_fraction", "0 to 0.5", self.val_fraction));
        }
        check(&*self.tokenizer)
    }
}

/// Tokenizes `inputs` into a corpus folder; reports progress and what is skipped to `observer`.
///
/// Inputs are files of a [`Format`], folders of them, and pipes. Every document is followed by the tokenizer's
/// separator; documents of white space alone, less than 1 MiB of it, are omitted.
///
/// Where there are enough documents, evenly spread ones form the validation split, chosen so that it has
/// `val_fraction` of the tokens; a corpus of few documents is cut instead, and its tail is the validation split, so that
/// even a single text gives both.
///
/// Long documents are tokenized in pieces, cut where a character that is not white space is followed by one that is:
/// the tokenizers `bytes`, `gpt2` and `words` start a new token there, so the ids are those of the whole document. Only a
/// run of 1 MiB without such a place is cut elsewhere. [Others](Tokenizer::cuts_at_white_space) get whole documents; one
/// of more than 1 MiB is cut at such a place after each MiB, where ids may differ from those of the whole.
///
/// # Errors
/// [`Error::Field`] for invalid options; [`Error::File`] naming the file for malformed content, an
/// empty file, a folder without text, a corpus too small to split, or an output folder that already holds a
/// corpus, and when reading or writing fails. After an error no shard has its final name.
pub fn prepare(
    inputs: &[PathBuf],
    options: &PrepareOptions,
    observer: &mut dyn FnMut(Notice),
) -> Result<Meta> {
    options.validate()?;
    if inputs.is_empty() {
        return Err(Error::field("inputs", "at least one file or folder", "none"));
    }
    let mut writer = CorpusWriter::create(&options.out, &options.tokenizer, options.shard_tokens)?;
    if let Some(path) = Split::ALL.into_iter().find_map(|split| foreign_shard(&options.out, split))
    {
        let expected = "a folder without shards; delete them or choose another";
        return Err(Error::content(&path, "output", expected, "a shard without a meta.json"));
    }
    let sources = find(inputs, options.read.format, &mut |found| observer(found.into()))?;
    let partition = partition(&sources, options)?;
    let skipped = tokenize(
        &sources,
        &options.read,
        &*options.tokenizer,
        partition,
        Limit::None,
        &mut writer,
        observer,
    )?;
    if Split::ALL.iter().all(|&split| writer.tokens(split) == 0) {
        return Err(no_text(&sources, skipped));
    }
    if options.val_fraction > 0.0
        && let Some(split) = Split::ALL.into_iter().find(|&split| writer.tokens(split) == 0)
    {
        let expected =
            "a corpus large enough to split (val_fraction = 0 makes no validation split)";
        let found = format!("too little text: the split `{split}` would be empty");
        return Err(Error::content(&sources[0].path, "corpus", expected, found));
    }
    let names = sources.iter().map(|source| source.path.display().to_string()).collect();
    writer.finish(names, skipped, None)
}

/// A shard in a folder without a sidecar, which must not be overwritten.
fn foreign_shard(dir: &Path, split: Split) -> Option<PathBuf> {
    shard_files(dir, split).ok()?.into_iter().next()
}

pub(super) fn no_text(sources: &[Source], skipped: u64) -> Error {
    let path = sources.first().map_or(Path::new(""), |source| &source.path);
    let found = match skipped {
        0 => "only white space and separators".into(),
        1 => String::from("none after 1 malformed record was skipped"),
        _ => format!("none after {skipped} malformed records were skipped"),
    };
    Error::content(path, "content", "some text", found)
}

/// Where reading may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// At the end of the files.
    None,
    /// After this number of tokens; the tokens of the last batch beyond it are kept.
    Tokens(u64),
}

/// Tokenizes `inputs` into a corpus in memory, at two bytes per token, or four for a vocabulary of more than 65,536 ids,
/// and returns it with the number of malformed
/// parts that were skipped. Reports progress and what is skipped to `observer`.
///
/// # Errors
/// As those of [`prepare`]; [`Error::File`] when the files contain no text.
pub fn load(
    inputs: &[PathBuf],
    tokenizer: &SharedTokenizer,
    options: &ReadOptions,
    limit: Limit,
    observer: &mut dyn FnMut(Notice),
) -> Result<(Corpus, u64)> {
    let mut memory = Memory::new(tokenizer)?;
    let sources = find(inputs, options.format, &mut |found| observer(found.into()))?;
    let partition = Partition::TrainOnly;
    let skipped =
        tokenize(&sources, options, &**tokenizer, partition, limit, &mut memory, observer)?;
    memory.finish().map(|corpus| (corpus, skipped)).ok_or_else(|| no_text(&sources, skipped))
}

/// Sends the documents of `sources` through a pipeline; returns how many malformed parts were skipped.
pub(super) fn tokenize(
    sources: &[Source],
    options: &ReadOptions,
    tokenizer: &dyn Tokenizer,
    partition: Partition,
    limit: Limit,
    sink: &mut dyn Sink,
    observer: &mut dyn FnMut(Notice),
) -> Result<u64> {
    let total: u64 = sources.iter().map(|source| source.bytes).sum();
    // Called by the pipeline and by the reader, never at once.
    let observer = RefCell::new(observer);
    let mut progress = |done| (observer.borrow_mut())(Notice::Read { done, total });
    let mut pipeline = Pipeline::new(sink, sources, tokenizer, partition, &mut progress);
    let mut skipped = 0;
    let mut before = 0; // bytes of the files already read
    for (index, source) in sources.iter().enumerate() {
        let mut position = before;
        let mut on_event = |event: Event<'_>| {
            match event {
                Event::Text(text, read) => {
                    position = before + read;
                    pipeline.push(text, index, position)?;
                }
                Event::EndOfDocument => pipeline.end_document(index, position)?,
                Event::TextColumns(columns) => {
                    (observer.borrow_mut())(Notice::text_columns(&source.path, columns));
                }
            }
            let enough = match limit {
                Limit::None => false,
                Limit::Tokens(tokens) => pipeline.reached(tokens, position)?,
            };
            Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        read(source, options, &mut on_event, &mut |error| {
            skipped += 1;
            (observer.borrow_mut())(Notice::Skipped(error));
        })?;
        before += source.bytes;
    }
    // A text that the limit cut short ends here.
    pipeline.end_document(sources.len().saturating_sub(1), total)?;
    pipeline.drain(total)?;
    Ok(skipped)
}

/// Reads the corpus until it is known to have documents enough to share out; otherwise to its end, to find where its tail
/// starts.
fn partition(sources: &[Source], options: &PrepareOptions) -> Result<Partition> {
    if options.val_fraction == 0.0 {
        return Ok(Partition::TrainOnly);
    }
    let enough = (10.0 / options.val_fraction) as u64;
    let total = sources.iter().map(|source| source.bytes).sum::<u64>();
    let stride = if total > COUNTED_BYTES { SAMPLED } else { 1 };
    let mut profile = Profile::new(&*options.tokenizer, stride);
    let mut documents = 0;
    for source in sources {
        let mut on_event = |event: Event<'_>| {
            match event {
                Event::Text(text, _) => profile.push(text),
                Event::EndOfDocument => documents += 1,
                Event::TextColumns(_) => {}
            }
            let done = documents >= enough;
            Ok(if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        read(source, &options.read, &mut on_event, &mut |_| ())?;
        if documents >= enough {
            return Ok(Partition::Share(options.val_fraction));
        }
    }
    Ok(Partition::Tail { cut: profile.finish(1.0 - options.val_fraction) })
}

/// How many tokens there are up to each place of a text.
struct Profile<'a> {
    tokenizer: &'a dyn Tokenizer,
    /// Every `stride`-th piece is tokenized; the others are assumed to have as many tokens per byte as the one before.
    stride: u64,
    piece: String,
    /// Bytes and tokens of each piece.
    pieces: Vec<(u64, f64)>,
}

impl<'a> Profile<'a> {
    fn new(tokenizer: &'a dyn Tokenizer, stride: u64) -> Self {
        Self { tokenizer, stride, piece: String::new(), pieces: Vec::new() }
    }

    fn push(&mut self, text: &str) {
        self.piece += text;
        if self.piece.len() >= PIECE_BYTES {
            self.end_piece();
        }
    }

    fn end_piece(&mut self) {
        let bytes = self.piece.len() as u64;
        let last = self.pieces.last().map_or(1.0, |(bytes, tokens)| tokens / *bytes as f64);
        let counted = (self.pieces.len() as u64).is_multiple_of(self.stride);
        // Words that the vocabulary lacks are refused when they are to be written.
        let tokens = counted.then(|| self.tokenizer.encode(&self.piece).ok()).flatten();
        let tokens = tokens.map_or(last * bytes as f64, |tokens| tokens.len() as f64);
        self.pieces.push((bytes, tokens));
        self.piece.clear();
    }

    /// The byte at which this share of the tokens ends.
    fn finish(mut self, share: f64) -> u64 {
        if !self.piece.is_empty() {
            self.end_piece();
        }
        let wanted = share * self.pieces.iter().map(|(_, tokens)| tokens).sum::<f64>();
        let (mut start, mut before) = (0, 0.0);
        for (bytes, tokens) in self.pieces {
            if before + tokens > wanted {
                return start + (bytes as f64 * (wanted - before) / tokens) as u64;
            }
            start += bytes;
            before += tokens;
        }
        start
    }
}

#[cfg(test)]
mod tests {
    use super::super::pipeline::{LONGEST_PIECE_BYTES, PIECE_BYTES, hash, last_cut};
    use super::super::source::Malformed;
    use super::super::tokenizer::{Bytes, Gpt2, Words};
    use super::*;
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    fn bytes() -> SharedTokenizer {
        Arc::new(Bytes)
    }

    /// Prepares files into `out/` next to them.
    fn run(
        dir: &Path,
        files: &[(&str, &str)],
        change: impl FnOnce(&mut PrepareOptions),
    ) -> Result<Meta> {
        let mut inputs = Vec::new();
        for (name, content) in files {
            inputs.push(dir.join(name));
            fs::write(dir.join(name), content).expect("writable");
        }
        let mut options = PrepareOptions::new(dir.join("out"), Arc::new(Bytes));
        change(&mut options);
        let mut last = (0, 0);
        let meta = prepare(&inputs, &options, &mut |notice| match notice {
            Notice::Read { done, total } => {
                assert!(last.0 <= done && done <= total);
                last = (done, total);
            }
            Notice::Skipped(error) => {
                assert_eq!(options.read.malformed, Malformed::Skip, "{error}")
            }
            Notice::TextColumns { .. } => {}
            Notice::Guessed { .. } | Notice::Ignored(_) => panic!("clear names"),
        })?;
        assert!(last.0 == last.1 && last.1 > 0, "progress ends at the total");
        Ok(meta)
    }

    fn split_text(dir: &Path, split: Split) -> String {
        let corpus = Corpus::open(&dir.join("out"), split, None).expect("opened");
        corpus.tokenizer().decode(&corpus.tokens(0..corpus.len()).expect("good ids"))
    }

    /// Prose of irregular words, white space and marks, `bytes` long.
    fn prose(bytes: usize) -> String {
        let mut text = String::new();
        for i in 0.. {
            if text.len() >= bytes {
                break;
            }
            let word = hash(i);
            let parts = ["the ", "don't", " \n\n", "été ", "12345", ", ", "  x\t", "東京", "\r\n"];
            text.push_str(parts[(word % 9) as usize]);
        }
        text
    }

    #[test]
    fn a_single_text_gives_both_splits_and_loses_nothing() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let text = prose(1_000_000);
        let meta = run(dir.path(), &[("a.txt", &text)], |_| ()).expect("prepared");
        let [train, val] = Split::ALL.map(|split| meta.split(split).expect("described").clone());
        assert_eq!((train.documents, val.documents), (1, 1));
        assert_eq!(train.bytes + val.bytes, text.len() as u64);
        assert!((val.bytes as f64 - 50_000.0).abs() < 100.0, "{}", val.bytes);
        let joined = split_text(dir.path(), Split::Train) + &split_text(dir.path(), Split::Val);
        assert_eq!(joined.replace("<|endoftext|>", ""), text);
        assert!(run(dir.path(), &[("a.txt", &text)], |_| ()).is_err(), "the folder is taken");
    }

    #[test]
    fn tiny_texts_and_lone_lines_split_too() {
        for text in ["ab", "one two three four five six", "{\"text\": \"one two three four five\"}"]
        {
            for name in ["a.txt", "a.jsonl"] {
                let dir = tempfile::tempdir().expect("a temporary folder");
                if name == "a.jsonl" && !text.starts_with('{') {
                    continue;
                }
                let meta = run(dir.path(), &[(name, text)], |_| ()).expect("prepared");
                assert!(
                    Split::ALL.iter().all(|&split| meta.split(split).expect("there").bytes > 0)
                );
            }
        }
        let dir = tempfile::tempdir().expect("a temporary folder");
        let error = run(dir.path(), &[("a.txt", "x")], |_| ()).expect_err("one byte");
        assert!(error.to_string().contains("val_fraction = 0"), "{error}");
        assert!(!dir.path().join("out").exists());
        let meta = run(dir.path(), &[("a.txt", "x")], |o| o.val_fraction = 0.0).expect("prepared");
        assert_eq!(meta.train.expect("described").tokens, 2);
    }

    #[test]
    fn many_documents_are_assigned_whole() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let documents: Vec<String> =
            (0..1000).map(|i| format!("document {i}\nof two lines")).collect();
        let text = documents.join("\n<|endoftext|>\n");
        let meta = run(dir.path(), &[("a.txt", &text)], |_| ()).expect("prepared");
        let [train, val] = Split::ALL.map(|split| meta.split(split).expect("described").clone());
        assert_eq!(train.documents + val.documents, 1000);
        assert_share(&meta, 0.05);
        let val = split_text(dir.path(), Split::Val);
        let mut found: Vec<String> = (split_text(dir.path(), Split::Train) + &val)
            .split("<|endoftext|>")
            .map(String::from)
            .collect();
        assert_eq!(found.pop().expect("the last is ended"), "");
        let mut expected = documents;
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
    }

    /// The validation split has this share of the tokens, give or take two documents of mean length.
    fn assert_share(meta: &Meta, share: f64) {
        let [train, val] = Split::ALL.map(|split| meta.split(split).expect("described"));
        let all = (train.tokens + val.tokens) as f64;
        let mean = all / (train.documents + val.documents) as f64;
        let off = (val.tokens as f64 - share * all).abs();
        assert!(off <= 2.0 * mean, "{} of {all} tokens, mean {mean}", val.tokens);
    }

    #[test]
    fn the_share_is_one_of_tokens_whatever_documents_are_like() {
        // Every 20th document is long: one document in 20 could take nearly all or nearly nothing.
        let long = |i: u64| if i.is_multiple_of(20) { 100 } else { 1 };
        // Fractions that are not one over a whole number, which a period of documents would round.
        for (share, words) in [(0.05, 1), (0.3, 1), (0.4, 3), (0.5, 1)] {
            let dir = tempfile::tempdir().expect("a temporary folder");
            let documents: Vec<String> =
                (0..2000).map(|i| "word ".repeat(words * long(i))).collect();
            let text = documents.join("\n<|endoftext|>\n");
            let meta = run(dir.path(), &[("a.txt", &text)], |o| o.val_fraction = share);
            let meta = meta.expect("prepared");
            let [train, val] = Split::ALL.map(|split| meta.split(split).expect("described"));
            let all = (train.tokens + val.tokens) as f64;
            // One document of the longest kind to either side.
            let off = (val.tokens as f64 - share * all).abs();
            assert!(off <= 500.0 * words as f64, "{share}: {} of {all}", val.tokens);
            assert!(val.documents > 0 && train.documents > 0);
        }
    }

    #[test]
    fn the_tail_of_a_text_has_its_share_of_the_tokens() {
        // The second half has three times as many tokens per byte.
        let text =
            "internationalization ".repeat(20_000) + &"a b c d e f g h i j k ".repeat(20_000);
        let dir = tempfile::tempdir().expect("a temporary folder");
        let meta = run(dir.path(), &[("a.txt", &text)], |options| {
            options.tokenizer = Arc::new(Gpt2);
            options.val_fraction = 0.25;
        });
        let meta = meta.expect("prepared");
        let [train, val] = Split::ALL.map(|split| meta.split(split).expect("described").tokens);
        let share = val as f64 / (train + val) as f64;
        // A place inside a piece of 256 KiB is interpolated.
        assert!((share - 0.25).abs() < 0.02, "{share}");
    }

    /// One token for each `a`, none for any other letter; no text with an `x` has tokens.
    #[derive(Debug)]
    struct CountsA;

    impl Tokenizer for CountsA {
        fn encode(&self, text: &str) -> Result<Vec<u32>> {
            match text.contains('x') {
                true => Err(Error::Word { word: "x".into() }),
                false => Ok(vec![0; text.matches('a').count()]),
            }
        }

        fn decode(&self, tokens: &[u32]) -> String {
            "a".repeat(tokens.len())
        }

        fn vocab_size(&self) -> usize {
            2
        }

        fn separator(&self) -> u32 {
            1
        }

        fn fingerprint(&self) -> String {
            "counts a".into()
        }
    }

    #[test]
    fn a_profile_finds_the_byte_at_which_a_share_of_the_tokens_ends() {
        const P: u64 = PIECE_BYTES as u64;
        let [dense, half, none, unknown] =
            ["a", "ab", "b", "ax"].map(|part| part.repeat(PIECE_BYTES / part.len()));
        let tail = "a".repeat(100);
        let close = |found: u64, expected: f64| (found as f64 - expected).abs() <= 1.0;
        for (pieces, stride, share, expected) in [
            // P and P/2 and 100 tokens: nine tenths of them are 0.35·P + 90 into the second piece of half a token each.
            ([&dense, &half, &tail], 1, 0.9, P as f64 + 2.0 * (0.35 * P as f64 + 90.0)),
            ([&dense, &half, &tail], 1, 0.5, 0.75 * P as f64 + 50.0),
            ([&dense, &half, &tail], 1, 1.0, 2.0 * P as f64 + 100.0),
            ([&dense, &half, &tail], 1, 0.0, 0.0),
            // Pieces without tokens are passed over.
            ([&dense, &none, &tail], 1, 1.0, 2.0 * P as f64 + 100.0),
            ([&none, &dense, &tail], 1, 0.5, 1.5 * P as f64 + 50.0),
            // Every second piece is taken to be like the one before.
            ([&half, &dense, &tail], 2, 0.5, P as f64 + 100.0),
            ([&dense, &none, &tail], 2, 0.5, P as f64 + 50.0),
            // What cannot be encoded has the tokens per byte of the piece before, or one at the start.
            ([&dense, &unknown, &tail], 1, 0.5, P as f64 + 50.0),
            ([&unknown, &dense, &tail], 1, 0.5, P as f64 + 50.0),
        ] {
            let mut profile = Profile::new(&CountsA, stride);
            for piece in pieces {
                profile.push(piece);
            }
            let found = profile.finish(share);
            assert!(close(found, expected), "{share} of stride {stride}: {found}, not {expected}");
        }
        // Parts are joined until they are a piece.
        let mut profile = Profile::new(&CountsA, 1);
        for _ in 0..1000 {
            profile.push("ab");
        }
        assert_eq!((profile.pieces.len(), profile.finish(0.5)), (0, 1000));
    }

    #[test]
    fn a_corpus_without_text_is_refused_as_such() {
        for (name, content) in
            [("a.txt", "<|endoftext|>\n"), ("a.txt", " \n\n"), ("a.jsonl", "{\"text\": \" \"}\n")]
        {
            for share in [0.0, 0.05] {
                let dir = tempfile::tempdir().expect("a temporary folder");
                let error = run(dir.path(), &[(name, content)], |o| o.val_fraction = share);
                let error = error.expect_err("no text").to_string();
                assert!(error.contains("some text, found only white space"), "{error}");
            }
        }
    }

    #[test]
    fn pieces_of_a_long_document_give_the_ids_of_the_whole() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let text = prose(3 * PIECE_BYTES);
        run(dir.path(), &[("a.txt", &text)], |options| {
            options.tokenizer = Arc::new(Gpt2);
            options.val_fraction = 0.0;
            options.shard_tokens = 100_000;
        })
        .expect("prepared");
        let corpus = Corpus::open(&dir.path().join("out"), Split::Train, None).expect("opened");
        let mut whole = Gpt2.encode(&text).expect("any text");
        whole.push(Gpt2.separator());
        assert_eq!(corpus.tokens(0..corpus.len()).expect("good ids"), whole);
    }

    #[test]
    fn every_cut_is_exact_for_gpt2() {
        let text = prose(3000);
        let whole = Gpt2.encode(&text).expect("any text");
        let mut end = text.len();
        while let Some(cut) = last_cut(&text[..end]) {
            let mut parts = Gpt2.encode(&text[..cut]).expect("any text");
            parts.extend(Gpt2.encode(&text[cut..]).expect("any text"));
            assert_eq!(parts, whole, "cut at {cut}");
            end = cut;
        }
    }

    #[test]
    fn text_without_a_place_to_cut_stays_bounded_and_whole() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let text = "x".repeat(3 * LONGEST_PIECE_BYTES) + &"\n".repeat(LONGEST_PIECE_BYTES);
        run(dir.path(), &[("a.txt", &text)], |options| options.val_fraction = 0.0)
            .expect("prepared");
        assert_eq!(split_text(dir.path(), Split::Train), text + "<|endoftext|>");
    }

    #[test]
    fn the_sidecar_lists_sources_and_counts_what_was_skipped() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let files =
            [("a.txt", "some words"), ("b.jsonl", "{\"body\": \"more words\"}\nnonsense\n")];
        let error =
            run(dir.path(), &files, |o| o.read.key = Some("body".into())).expect_err("nonsense");
        assert!(error.to_string().contains("b.jsonl: line 2"), "{error}");
        let meta = run(dir.path(), &files, |options| {
            options.read.key = Some("body".into());
            options.read.malformed = Malformed::Skip;
        })
        .expect("prepared");
        assert_eq!(meta.skipped, 1);
        assert!(meta.sources[1].ends_with("b.jsonl"));
        assert_eq!(Meta::read(&dir.path().join("out")).expect("readable"), Some(meta));
    }

    #[test]
    fn shards_of_another_program_are_not_overwritten() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let shard = dir.path().join("out/train-000.bin");
        fs::create_dir(dir.path().join("out")).expect("creatable");
        fs::write(&shard, b"precious").expect("writable");
        let error = run(dir.path(), &[("a.txt", "x y")], |_| ()).expect_err("occupied").to_string();
        assert!(error.contains("train-000.bin"), "{error}");
        assert_eq!(fs::read(&shard).expect("readable"), b"precious");
    }

    #[test]
    fn bad_options_and_unknown_words_are_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for fraction in [-0.1, 0.6, f64::NAN] {
            let error = run(dir.path(), &[("a.txt", "x y")], |o| o.val_fraction = fraction);
            assert!(error.expect_err("refused").to_string().contains("val_fraction"));
        }
        assert!(run(dir.path(), &[], |_| ()).is_err());
        assert!(run(dir.path(), &[("a.txt", "x y")], |o| o.shard_tokens = 0).is_err());
        let vocabulary = vec!["known".to_owned()];
        let error = run(dir.path(), &[("a.txt", "known zebra")], |options| {
            options.tokenizer = Arc::new(Words::new(vocabulary).expect("good"));
        })
        .expect_err("a closed vocabulary")
        .to_string();
        assert!(error.contains("a.txt") && error.contains("zebra"), "{error}");
    }

    #[test]
    fn in_memory_a_file_gives_the_tokens_that_shards_have() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let text = prose(2 * PIECE_BYTES) + "\n<|endoftext|>\nlast";
        for name in ["a.txt", "b.csv"] {
            let text = if name == "b.csv" { "id,text\n1,one\n2,two three\n" } else { &text };
            let out = dir.path().join(name.replace('.', "-"));
            run(dir.path(), &[(name, text)], |options| {
                options.val_fraction = 0.0;
                options.out = out.clone();
            })
            .expect("prepared");
            let written = Corpus::open(&out, Split::Train, None).expect("opened");
            let options = ReadOptions::default();
            let inputs = [dir.path().join(name)];
            let (held, skipped) =
                load(&inputs, &bytes(), &options, Limit::None, &mut |_| ()).expect("loaded");
            assert_eq!(skipped, 0);
            let [written_meta, held_meta] = [&written, &held].map(|c| c.meta().expect("there"));
            assert_eq!((written_meta.bytes, written_meta.documents), (held_meta.bytes, 2));
            assert_eq!(held.len(), written.len());
            let all = held.tokens(0..held.len()).expect("good ids");
            assert_eq!(all, written.tokens(0..written.len()).expect("good ids"));
            assert_eq!(held.tokens(3..9).expect("good ids"), all[3..9]);
        }
    }

    /// One id per call, so that pieces show.
    #[derive(Debug)]
    struct Calls {
        cuts: bool,
    }

    impl Tokenizer for Calls {
        fn encode(&self, _: &str) -> Result<Vec<u32>> {
            Ok(vec![0])
        }

        fn decode(&self, tokens: &[u32]) -> String {
            "x".repeat(tokens.len())
        }

        fn vocab_size(&self) -> usize {
            2
        }

        fn separator(&self) -> u32 {
            1
        }

        fn fingerprint(&self) -> String {
            "calls".into()
        }

        fn cuts_at_white_space(&self) -> bool {
            self.cuts
        }
    }

    #[test]
    fn tokenizers_that_look_past_white_space_get_whole_documents() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a.txt");
        for (bytes, cuts, calls) in [
            (5 * PIECE_BYTES / 2, true, 3),
            (5 * PIECE_BYTES / 2, false, 1),
            (LONGEST_PIECE_BYTES + PIECE_BYTES, false, 2),
        ] {
            fs::write(&path, "word ".repeat(bytes / 5)).expect("writable");
            let tokenizer: SharedTokenizer = Arc::new(Calls { cuts });
            let (inputs, options) = (std::slice::from_ref(&path), ReadOptions::default());
            let (corpus, _) =
                load(inputs, &tokenizer, &options, Limit::None, &mut |_| ()).expect("loaded");
            assert_eq!(corpus.len(), calls + 1, "{bytes} {cuts}");
        }
    }

    #[test]
    fn reading_ends_where_there_is_enough() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a.jsonl");
        fs::write(&path, "{\"text\": \"one\"}\n{\"text\": \"two\"}\nbroken\n").expect("written");
        let load = |limit| {
            let options = ReadOptions::default();
            load(std::slice::from_ref(&path), &bytes(), &options, limit, &mut |_| ())
        };
        let (corpus, _) = load(Limit::Tokens(6)).expect("eight tokens");
        assert_eq!((corpus.len(), corpus.meta().expect("there").documents), (8, 2));
        assert!(load(Limit::None).expect_err("broken").to_string().contains("line 3"));
        fs::write(&path, " \n").expect("written");
        assert!(load(Limit::None).expect_err("no text").to_string().contains("some text"));
    }
}
