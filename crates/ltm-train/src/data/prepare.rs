//! Text to shards: reads documents, parts them into splits, tokenises on all cores and writes, in memory
//! that does not grow with the corpus. Knows nothing of how files are read or written.

use std::ops::ControlFlow;
use std::path::PathBuf;

use rayon::prelude::*;

use super::shard::{Meta, Split};
use super::source::{Event, Source, find, read};
use super::tokenizer::Tokenizer;
use super::writer::CorpusWriter;
use crate::{Error, Result};

/// Documents are tokenised in pieces of about this size, so that a long one keeps all cores busy.
const PIECE_BYTES: usize = 256 << 10;

/// A run of text without a place to cut is cut anyway at this size.
const LONGEST_PIECE_BYTES: usize = 4 * PIECE_BYTES;

/// Text waiting to be tokenised together.
const QUEUE_BYTES: usize = 4 << 20;

/// What to do with lines that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Stop with an error that names file and line (or byte).
    Refuse,
    /// Leave the line out and count it.
    Skip,
}

/// How [`prepare`] works.
#[derive(Clone, Debug, PartialEq)]
pub struct PrepareOptions {
    /// The folder to write.
    pub out: PathBuf,
    /// Text to ids.
    pub tokenizer: Tokenizer,
    /// Where a `*.jsonl` line holds its text.
    pub jsonl_key: String,
    /// Tokens in a shard; the last one of a split has fewer.
    pub shard_tokens: u64,
    /// The share of the corpus to measure on, from 0 (no validation split) to 0.5.
    pub val_fraction: f64,
    /// What to do with malformed lines and empty files.
    pub malformed: Malformed,
}

impl PrepareOptions {
    /// The usual: key `text`, shards of 100 million tokens, a twentieth to measure on, nothing skipped.
    pub fn new(out: PathBuf, tokenizer: Tokenizer) -> Self {
        Self {
            out,
            tokenizer,
            jsonl_key: "text".into(),
            shard_tokens: 100_000_000,
            val_fraction: 0.05,
            malformed: Malformed::Refuse,
        }
    }

    /// Refuses options that cannot work.
    ///
    /// # Errors
    /// [`Error::Field`] naming the field.
    pub fn validate(&self) -> Result<()> {
        if !(0.0..=0.5).contains(&self.val_fraction) {
            return Err(Error::field("val_fraction", "0 to 0.5", self.val_fraction));
        }
        self.tokenizer.validate()
    }
}

/// Tokenises `inputs` into a corpus folder; calls `progress(bytes done, bytes in all)` now and then.
///
/// Inputs are text files, `*.jsonl` files with a document a line, and folders of both. In text a line
/// `<|endoftext|>` parts documents. Every document is followed by the tokeniser's separator; documents of
/// white space alone are left out.
///
/// Where there are enough documents, evenly spread ones form the validation split; a corpus of few documents
/// is cut instead, and its tail is the validation split, so that even a single text gives both.
///
/// Long documents are tokenised in pieces, cut where a character that is not white space meets one that is:
/// every tokeniser here starts a new token there, so the ids are those of the whole document. Only a run of
/// 1 MiB without such a place is cut elsewhere.
///
/// # Errors
/// [`Error::Field`] for options that cannot work; [`Error::Data`] naming the file for malformed content, an
/// empty file, a folder without text, a corpus too small to split, or an output folder that already holds a
/// corpus; [`Error::Io`] when reading or writing fails. After an error no shard has its final name.
pub fn prepare(
    inputs: &[PathBuf],
    options: &PrepareOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Meta> {
    options.validate()?;
    if inputs.is_empty() {
        return Err(Error::field("inputs", "at least one file or folder", "none"));
    }
    let sources = find(inputs)?;
    let total: u64 = sources.iter().map(|source| source.bytes).sum();
    let mut pipeline = Pipeline {
        writer: CorpusWriter::create(&options.out, &options.tokenizer, options.shard_tokens)?,
        sources: &sources,
        tokenizer: &options.tokenizer,
        partition: partition(&sources, options)?,
        split: Split::Train,
        documents: 0,
        bytes: 0,
        text: String::new(),
        try_cut_at: PIECE_BYTES,
        started: false,
        queue: Vec::new(),
        queued_bytes: 0,
        progress: &mut |done| progress(done, total),
    };
    pipeline.split = pipeline.next_split();

    let mut skipped = 0;
    let mut before = 0; // bytes of the files already read
    for (index, source) in sources.iter().enumerate() {
        let mut position = before;
        skipped += read(source, &options.jsonl_key, options.malformed, &mut |event| {
            match event {
                Event::Text(text, read) => {
                    position = before + read;
                    pipeline.push(text, index, position)?;
                }
                Event::EndOfDocument => pipeline.end_document(index, position)?,
            }
            Ok(ControlFlow::Continue(()))
        })?;
        before += source.bytes;
    }
    pipeline.drain(total)?;

    let wanted = if options.val_fraction > 0.0 { &Split::ALL[..] } else { &Split::ALL[..1] };
    for &split in wanted {
        if pipeline.writer.tokens(split) == 0 {
            let found = format!("{total} bytes, which leave nothing for {split}");
            let expected = "a corpus large enough to split; val_fraction = 0 makes no val split";
            return Err(Error::data(&sources[0].path, "corpus", expected, found));
        }
    }
    let names = sources.iter().map(|source| source.path.display().to_string()).collect();
    pipeline.writer.finish(names, skipped)
}

/// How documents are dealt to the splits.
#[derive(Clone, Copy, Debug)]
enum Partition {
    /// All to train.
    TrainOnly,
    /// One document of every `period`, at a place in each period that a hash chooses.
    OneIn { period: u64 },
    /// What lies past this byte of the text.
    Tail { cut: u64 },
}

/// Looks at the corpus until it is known to have documents enough.
fn partition(sources: &[Source], options: &PrepareOptions) -> Result<Partition> {
    if options.val_fraction == 0.0 {
        return Ok(Partition::TrainOnly);
    }
    let period = (1.0 / options.val_fraction).round() as u64;
    let enough = period.saturating_mul(10);
    let (mut documents, mut bytes) = (0, 0);
    for source in sources {
        read(source, &options.jsonl_key, options.malformed, &mut |event| {
            match event {
                Event::Text(text, _) => bytes += text.len() as u64,
                Event::EndOfDocument => documents += 1,
            }
            let done = documents >= enough;
            Ok(if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        if documents >= enough {
            return Ok(Partition::OneIn { period });
        }
    }
    Ok(Partition::Tail { cut: ((1.0 - options.val_fraction) * bytes as f64) as u64 })
}

/// A piece of a document on its way to the tokeniser.
struct Job {
    split: Split,
    text: String,
    ends_document: bool,
    source: usize,
}

struct Pipeline<'a> {
    writer: CorpusWriter,
    sources: &'a [Source],
    tokenizer: &'a Tokenizer,
    partition: Partition,
    /// Where the current document goes.
    split: Split,
    /// Documents ended so far.
    documents: u64,
    /// Bytes of text pushed so far.
    bytes: u64,
    /// The current document's text that is not queued yet.
    text: String,
    /// Text shorter than this is not searched for a place to cut.
    try_cut_at: usize,
    /// Whether a piece of the current document has been queued.
    started: bool,
    queue: Vec<Job>,
    queued_bytes: usize,
    progress: &'a mut dyn FnMut(u64),
}

impl Pipeline<'_> {
    /// Takes more text of the current document, read up to byte `position` of the whole input.
    fn push(&mut self, text: &str, source: usize, position: u64) -> Result<()> {
        let mut rest = text;
        let before = self.bytes;
        self.bytes += text.len() as u64;
        if let (Partition::Tail { cut }, Split::Train) = (self.partition, self.split)
            && self.bytes > cut
        {
            let (head, tail) = text.split_at(floor_boundary(text, (cut - before) as usize));
            self.append(head, source, position)?;
            self.cut_to_val(source, position)?;
            rest = tail;
        }
        self.append(rest, source, position)
    }

    fn append(&mut self, mut text: &str, source: usize, position: u64) -> Result<()> {
        while !text.is_empty() {
            // In small steps, so that one huge string is cut as finely as many small ones.
            let (now, later) = text.split_at(floor_boundary(text, PIECE_BYTES.min(text.len())));
            self.text.push_str(now);
            text = later;
            if self.text.len() < self.try_cut_at {
                continue;
            }
            match last_cut(&self.text) {
                Some(cut) => self.queue_head(cut, source, position)?,
                None if self.text.len() >= LONGEST_PIECE_BYTES => {
                    self.queue_head(self.text.len(), source, position)?;
                }
                None => self.try_cut_at *= 2,
            }
        }
        Ok(())
    }

    fn queue_head(&mut self, cut: usize, source: usize, position: u64) -> Result<()> {
        let later = self.text.split_off(cut);
        self.try_cut_at = PIECE_BYTES;
        self.started = true;
        self.enqueue(later, false, source, position)
    }

    fn end_document(&mut self, source: usize, position: u64) -> Result<()> {
        if self.started || !self.text.trim().is_empty() {
            self.started = false;
            self.documents += 1;
            self.enqueue(String::new(), true, source, position)?;
            self.split = self.next_split();
        }
        self.text.clear();
        self.try_cut_at = PIECE_BYTES;
        Ok(())
    }

    /// Queues the current text, and goes on with `later` in its place.
    fn enqueue(
        &mut self,
        later: String,
        ends_document: bool,
        source: usize,
        position: u64,
    ) -> Result<()> {
        let text = std::mem::replace(&mut self.text, later);
        self.queued_bytes += text.len();
        self.queue.push(Job { split: self.split, text, ends_document, source });
        // The count of jobs is bounded too: documents may be short.
        if self.queued_bytes >= QUEUE_BYTES || self.queue.len() >= QUEUE_BYTES / 64 {
            self.drain(position)?;
        }
        Ok(())
    }

    /// Ends the training part of the current document at the last place to cut, and turns to validation.
    fn cut_to_val(&mut self, source: usize, position: u64) -> Result<()> {
        let cut = last_cut(&self.text).unwrap_or(self.text.len());
        let later = self.text.split_off(cut);
        self.end_document(source, position)?;
        self.split = Split::Val;
        self.append(&later, source, position)
    }

    fn next_split(&self) -> Split {
        match self.partition {
            Partition::TrainOnly => Split::Train,
            Partition::Tail { .. } => self.split,
            Partition::OneIn { period } => {
                let chosen = hash(self.documents / period) % period;
                if self.documents % period == chosen { Split::Val } else { Split::Train }
            }
        }
    }

    /// Tokenises what is queued on all cores and writes it in order.
    fn drain(&mut self, position: u64) -> Result<()> {
        let jobs = std::mem::take(&mut self.queue);
        self.queued_bytes = 0;
        let encoded: Vec<Result<Vec<u16>>> =
            jobs.par_iter().map(|job| self.tokenizer.encode(&job.text)).collect();
        for (job, tokens) in jobs.iter().zip(encoded) {
            let tokens = tokens.map_err(|error| match error {
                Error::Word { word } => {
                    let path = &self.sources[job.source].path;
                    Error::data(path, "content", "words of the vocabulary", format!("`{word}`"))
                }
                error => error,
            })?;
            self.writer.push(job.split, &tokens, job.text.len() as u64)?;
            if job.ends_document {
                self.writer.end_document(job.split)?;
            }
        }
        (self.progress)(position);
        Ok(())
    }
}

/// The last place where white space follows something else. No GPT-2 pre-token reaches across such a place
/// nor looks past it, and a byte or a word does not either, so cutting there changes no token.
fn last_cut(text: &str) -> Option<usize> {
    let mut next: Option<(usize, char)> = None;
    for (at, c) in text.char_indices().rev() {
        if let Some((cut, _)) = next.filter(|(_, next)| next.is_whitespace())
            && !c.is_whitespace()
        {
            return Some(cut);
        }
        next = Some((at, c));
    }
    None
}

/// The last character boundary at or before `at`.
fn floor_boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Spreads consecutive numbers over 64 bits (the finaliser of MurmurHash3).
fn hash(mut x: u64) -> u64 {
    x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

#[cfg(test)]
mod tests {
    use super::super::shard::Corpus;
    use super::*;
    use std::fs;
    use std::path::Path;

    /// Prepares files into `out/` beside them.
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
        let mut options = PrepareOptions::new(dir.join("out"), Tokenizer::Bytes);
        change(&mut options);
        let mut last = (0, 0);
        let meta = prepare(&inputs, &options, &mut |done, total| {
            assert!(last.0 <= done && done <= total);
            last = (done, total);
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
        assert_eq!(fs::read_dir(dir.path().join("out")).expect("listable").count(), 0);
        let meta = run(dir.path(), &[("a.txt", "x")], |o| o.val_fraction = 0.0).expect("prepared");
        assert_eq!(meta.train.expect("described").tokens, 2);
    }

    #[test]
    fn many_documents_are_dealt_whole() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let documents: Vec<String> =
            (0..1000).map(|i| format!("document {i}\nof two lines")).collect();
        let text = documents.join("\n<|endoftext|>\n");
        let meta = run(dir.path(), &[("a.txt", &text)], |_| ()).expect("prepared");
        let counts = Split::ALL.map(|split| meta.split(split).expect("described").documents);
        assert_eq!(counts, [950, 50]);
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

    #[test]
    fn pieces_of_a_long_document_give_the_ids_of_the_whole() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let text = prose(3 * PIECE_BYTES);
        run(dir.path(), &[("a.txt", &text)], |options| {
            options.tokenizer = Tokenizer::Gpt2;
            options.val_fraction = 0.0;
            options.shard_tokens = 100_000;
        })
        .expect("prepared");
        let corpus = Corpus::open(&dir.path().join("out"), Split::Train, None).expect("opened");
        let mut whole = Tokenizer::Gpt2.encode(&text).expect("any text");
        whole.push(Tokenizer::Gpt2.separator());
        assert_eq!(corpus.tokens(0..corpus.len()).expect("good ids"), whole);
    }

    #[test]
    fn every_cut_is_exact_for_gpt2() {
        let text = prose(3000);
        let whole = Tokenizer::Gpt2.encode(&text).expect("any text");
        let mut end = text.len();
        while let Some(cut) = last_cut(&text[..end]) {
            let mut parts = Tokenizer::Gpt2.encode(&text[..cut]).expect("any text");
            parts.extend(Tokenizer::Gpt2.encode(&text[cut..]).expect("any text"));
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
    fn the_sidecar_says_where_the_text_came_from_and_what_was_skipped() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let files =
            [("a.txt", "some words"), ("b.jsonl", "{\"body\": \"more words\"}\nnonsense\n")];
        let error = run(dir.path(), &files, |o| o.jsonl_key = "body".into()).expect_err("nonsense");
        assert!(error.to_string().contains("b.jsonl: line 2"), "{error}");
        let meta = run(dir.path(), &files, |options| {
            options.jsonl_key = "body".into();
            options.malformed = Malformed::Skip;
        })
        .expect("prepared");
        assert_eq!(meta.skipped, 1);
        assert!(meta.sources[1].ends_with("b.jsonl"));
        assert_eq!(Meta::read(&dir.path().join("out")).expect("readable"), Some(meta));
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
            options.tokenizer = Tokenizer::Words { vocabulary };
        })
        .expect_err("a closed vocabulary")
        .to_string();
        assert!(error.contains("a.txt") && error.contains("zebra"), "{error}");
    }
}
