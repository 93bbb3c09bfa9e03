//! Corpora: shards of token ids on disk, read at any position, or in memory. Knows nothing of text or of batches.

use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::fingerprint::Fingerprint;
use super::hash::{hex, sha256};
use super::layout::{HEADER_BYTES, Width, read_header};
use super::meta::{META_FILE, Meta, Shard, SplitMeta};
use super::positioned::read_exact_at;
use super::stories;
use super::tokenizer::{SharedTokenizer, check};
use crate::{Error, Result, Split};

/// Files of a corpus that stay open; the others are opened for each read, so that a corpus may have more files than a
/// process.
const OPEN_FILES: usize = 128;

/// One split of a corpus, open for reading. Clones share the files.
#[derive(Clone, Debug)]
pub struct Corpus {
    tokenizer: SharedTokenizer,
    meta: Option<SplitMeta>,
    storyworld: Option<stories::Parameters>,
    shards: Arc<[OpenShard]>,
    len: u64,
}

/// Where a shard's bytes are.
#[derive(Debug)]
enum Content {
    /// In an open file.
    Open(File),
    /// In a file that is opened for each read.
    Closed,
    /// In memory.
    Held(Vec<u8>),
}

#[derive(Debug)]
struct OpenShard {
    path: PathBuf,
    content: Content,
    width: Width,
    header_bytes: u64,
    /// Index in the corpus of the shard's first token.
    start: u64,
    tokens: u64,
    /// The hash in the sidecar.
    sha256: Option<String>,
}

impl Corpus {
    /// Opens one split of the corpus in `dir`.
    ///
    /// With a sidecar that lists shards, exactly those are opened; otherwise all of `train*.bin` or
    /// `val*.bin` in the order of their names, without a header as nanoGPT writes ids of 16 bits, or with llm.c's header of
    /// ids of 16 or 32 bits. Shards without a sidecar need `tokenizer`, and so does a corpus of a program's own tokenizer.
    ///
    /// # Errors
    /// [`Error::EmptySplit`] when there is nothing to open; [`Error::File`] when the size of a shard is odd or does not agree with
    /// its header or the sidecar, a shard has a header of another format, the tokenizer is not known, or `tokenizer` is
    /// not the sidecar's, and when a file cannot be read.
    pub fn open(dir: &Path, split: Split, tokenizer: Option<&SharedTokenizer>) -> Result<Self> {
        fs::metadata(dir).map_err(Error::io(dir, "open"))?;
        let meta = Meta::read(dir)?;
        let tokenizer = match (&meta, tokenizer) {
            (Some(meta), asked) => meta.tokenizer(dir, asked)?,
            (None, Some(asked)) => Arc::clone(asked),
            (None, None) => {
                let expected =
                    format!("a {META_FILE} that names it, or a tokenizer given explicitly");
                return Err(Error::content(dir, "tokenizer", expected, "neither"));
            }
        };
        check(&*tokenizer)?;
        let described = meta.as_ref().and_then(|meta| meta.split(split)).cloned();
        let listed: Vec<(PathBuf, Option<&Shard>)> = match &described {
            Some(described) => {
                described.shards.iter().map(|shard| (dir.join(&shard.file), Some(shard))).collect()
            }
            None => shard_files(dir, split)?.into_iter().map(|path| (path, None)).collect(),
        };
        let vocab_size = tokenizer.vocab_size();
        let mut shards = Vec::with_capacity(listed.len());
        let mut len = 0;
        for (path, described) in listed {
            let keep_open = shards.len() < OPEN_FILES;
            let shard = OpenShard::open(&path, len, described, vocab_size, keep_open)?;
            len += shard.tokens;
            shards.push(shard);
        }
        if len == 0 {
            return Err(Error::EmptySplit { dir: dir.into(), split });
        }
        let storyworld = meta.and_then(|meta| meta.storyworld);
        Ok(Self { tokenizer, meta: described, storyworld, shards: shards.into(), len })
    }

    /// A corpus of one shard of ids in memory; `None` when there are none.
    pub(crate) fn in_memory(
        tokenizer: &SharedTokenizer,
        width: Width,
        ids: Vec<u8>,
        meta: SplitMeta,
    ) -> Option<Self> {
        let len = ids.len() as u64 / width.bytes();
        let shard = OpenShard {
            path: PathBuf::from("memory"),
            content: Content::Held(ids),
            width,
            header_bytes: 0,
            start: 0,
            tokens: len,
            sha256: None,
        };
        let (tokenizer, meta) = (Arc::clone(tokenizer), Some(meta));
        let shards = [shard].into();
        (len > 0).then(|| Self { tokenizer, meta, storyworld: None, shards, len })
    }

    /// Tokens in the split; never 0.
    #[expect(clippy::len_without_is_empty, reason = "open() refuses an empty split")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// What the ids mean.
    pub fn tokenizer(&self) -> &SharedTokenizer {
        &self.tokenizer
    }

    /// The sidecar's description of this split, if there is one.
    pub fn meta(&self) -> Option<&SplitMeta> {
        self.meta.as_ref()
    }

    /// What identifies this split. Hashes come from the sidecar; those that it does not have are computed, which reads
    /// the whole file.
    ///
    /// # Errors
    /// [`Error::File`] when a file cannot be read.
    pub fn fingerprint(&self) -> Result<Fingerprint> {
        let shards = self.shards.iter().map(|shard| {
            let sha256 = match &shard.sha256 {
                Some(recorded) => recorded.clone(),
                None => shard.sha256()?,
            };
            let file = shard.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok(Shard { file, tokens: shard.tokens, sha256: Some(sha256) })
        });
        let shards = shards.collect::<Result<_>>()?;
        Ok(Fingerprint::new(&*self.tokenizer, self.storyworld.clone(), shards))
    }

    /// Reads every file and compares its hash with the sidecar's; files without a recorded hash pass.
    ///
    /// # Errors
    /// [`Error::File`] naming the first file whose content is not what was written or that cannot be read.
    pub fn verify(&self) -> Result<()> {
        for shard in self.shards.iter() {
            let Some(recorded) = &shard.sha256 else { continue };
            let found = shard.sha256()?;
            if found != *recorded {
                let expected = format!("{recorded}, as recorded in {META_FILE}");
                let found = format!("{found}; the file was changed or damaged");
                return Err(Error::content(&shard.path, "SHA-256", expected, found));
            }
        }
        Ok(())
    }

    /// Copies out the tokens of `range`, which may cross shards.
    ///
    /// # Errors
    /// [`Error::Field`] when `range` leaves the corpus, [`Error::Token`] when an id is not in the vocabulary;
    /// [`Error::File`] naming a file that became shorter since it was opened or cannot be read.
    pub fn tokens(&self, range: Range<u64>) -> Result<Vec<u32>> {
        if range.start > range.end || range.end > self.len {
            return Err(Error::field(
                "range",
                format!("within 0..{}", self.len),
                format!("{range:?}"),
            ));
        }
        let vocab_size = self.tokenizer.vocab_size();
        let mut tokens = Vec::with_capacity((range.end - range.start) as usize);
        let mut bytes = Vec::new();
        // The last shard that starts at or before the range.
        let first = self.shards.partition_point(|shard| shard.start <= range.start).max(1) - 1;
        for shard in &self.shards[first..] {
            if shard.start >= range.end {
                break;
            }
            let from = range.start.max(shard.start) - shard.start;
            let to = range.end.min(shard.start + shard.tokens) - shard.start;
            let ids = shard.width.unpack(shard.ids(from, to, &mut bytes)?);
            for (position, id) in (from..to).zip(ids) {
                if id as usize >= vocab_size {
                    let path = shard.path.clone();
                    return Err(Error::Token { path, position, id, vocab_size });
                }
                tokens.push(id);
            }
        }
        Ok(tokens)
    }
}

impl OpenShard {
    /// Opens a shard and compares its size with its header and with the sidecar.
    fn open(
        path: &Path,
        start: u64,
        described: Option<&Shard>,
        vocab_size: usize,
        keep_open: bool,
    ) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        let bytes = file.metadata().map_err(Error::io(path, "open"))?.len();
        let mut counts = Vec::new();
        if let Some(shard) = described {
            counts.push(("sidecar", shard.tokens));
        }
        let (mut width, mut header_bytes) = (Width::Two, 0);
        match read_header(&file, bytes).map_err(Error::io(path, "read"))? {
            Some(_) if bytes < HEADER_BYTES => {
                let expected = format!("the {HEADER_BYTES} bytes of a header of llm.c");
                let found = format!("{bytes}; the file is cut short");
                return Err(Error::content(path, "size", expected, found));
            }
            Some([magic, version, count]) => {
                width = Width::of_header([magic, version]).ok_or_else(|| {
                    let [[m2, v2], [m4, v4]] = [Width::Two, Width::Four].map(Width::magic);
                    let expected = format!(
                        "magic {m2}, version {v2} (16-bit ids), magic {m4}, version {v4} \
                         (32-bit ids), or no header"
                    );
                    let found = format!("magic {magic}, version {version}, which is not supported");
                    Error::content(path, "header", expected, found)
                })?;
                header_bytes = HEADER_BYTES;
                // A negative count is as wrong as any other that the file does not hold.
                counts.push(("header", u64::try_from(count).unwrap_or(u64::MAX)));
            }
            // Ids of 32 bits read as twice as many of 16 would all be valid.
            None if Width::of(vocab_size) == Width::Four && bytes > 0 => {
                let expected = format!(
                    "llm.c's header of 32-bit ids, because the vocabulary has {vocab_size} ids"
                );
                return Err(Error::content(path, "header", expected, "none"));
            }
            None => {}
        }
        let payload = bytes - header_bytes;
        if !payload.is_multiple_of(width.bytes()) {
            let found = format!("{bytes} bytes; the file is cut short or is not a shard");
            let expected = match width {
                Width::Two => "an even number of bytes",
                Width::Four => "a multiple of 4 bytes",
            };
            return Err(Error::content(path, "size", expected, found));
        }
        let tokens = payload / width.bytes();
        for (by, count) in counts {
            if count != tokens {
                let expected = format!("{count}, the number in the {by}");
                return Err(Error::content(path, "tokens", expected, tokens.to_string()));
            }
        }
        let content = if keep_open { Content::Open(file) } else { Content::Closed };
        let sha256 = described.and_then(|shard| shard.sha256.clone());
        Ok(Self { path: path.into(), content, width, header_bytes, start, tokens, sha256 })
    }

    /// The bytes of tokens `from..to` of this shard, in `buffer` or in memory.
    fn ids<'a>(&'a self, from: u64, to: u64, buffer: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        let width = self.width.bytes();
        let opened;
        let file = match &self.content {
            Content::Held(bytes) => {
                return Ok(&bytes[(width * from) as usize..(width * to) as usize]);
            }
            Content::Open(file) => file,
            Content::Closed => {
                opened = File::open(&self.path).map_err(Error::io(&self.path, "open"))?;
                &opened
            }
        };
        buffer.resize((width * (to - from)) as usize, 0);
        read_exact_at(file, buffer, self.header_bytes + width * from).map_err(|error| {
            if error.kind() != std::io::ErrorKind::UnexpectedEof {
                return Error::io(&self.path, "read")(error);
            }
            let expected = format!("{} bytes, as when it was opened", self.bytes());
            let found = file.metadata().map_or("fewer".into(), |now| now.len().to_string());
            Error::content(&self.path, "size", expected, format!("{found}; the file was cut short"))
        })?;
        Ok(buffer)
    }

    /// The size of the file.
    fn bytes(&self) -> u64 {
        self.header_bytes + self.width.bytes() * self.tokens
    }

    /// The hash of the whole file.
    fn sha256(&self) -> Result<String> {
        if let Content::Held(bytes) = &self.content {
            return Ok(sha256(bytes));
        }
        let mut file = File::open(&self.path).map_err(Error::io(&self.path, "open"))?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 18];
        loop {
            match file.read(&mut buffer).map_err(Error::io(&self.path, "read"))? {
                0 => return Ok(hex(hash)),
                read => hash.update(&buffer[..read]),
            }
        }
    }
}

/// Files in `dir` that may be shards of `split`, in the order of their names.
pub(super) fn shard_files(dir: &Path, split: Split) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io(dir, "list"))? {
        let path = entry.map_err(Error::io(dir, "list"))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(&split.to_string()) && name.ends_with(".bin") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::super::pipeline::Sink;
    use super::super::tokenizer::{Bytes, Gpt2, Words};
    use super::super::writer::CorpusWriter;
    use super::*;

    /// Magic number and version of shards with 16-bit ids.
    const U16: [i32; 2] = [20240520, 1];
    /// Those of shards with 32-bit ids.
    const U32: [i32; 2] = [20240801, 7];

    fn byte_tokens() -> SharedTokenizer {
        Arc::new(Bytes)
    }

    fn gpt2() -> SharedTokenizer {
        Arc::new(Gpt2)
    }

    fn bytes(ids: &[u16]) -> Vec<u8> {
        ids.iter().flat_map(|id| id.to_le_bytes()).collect()
    }

    fn with_header([magic, version]: [i32; 2], count: i32, ids: &[u16]) -> Vec<u8> {
        let mut header = vec![0_i32; 256];
        header[..3].copy_from_slice(&[magic, version, count]);
        let mut file: Vec<u8> = header.iter().flat_map(|field| field.to_le_bytes()).collect();
        file.extend(bytes(ids));
        file
    }

    fn folder(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for (name, content) in files {
            fs::write(dir.path().join(name), content).expect("writable");
        }
        dir
    }

    fn refusal(dir: &Path, tokenizer: Option<&SharedTokenizer>) -> String {
        Corpus::open(dir, Split::Train, tokenizer).expect_err("refused").to_string()
    }

    #[test]
    fn our_own_folder_reads_back_across_shards() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let ids: Vec<u32> = (0..100).collect();
        let mut writer = CorpusWriter::create(dir.path(), &byte_tokens(), 7).expect("new");
        writer.push(Split::Train, &ids, 100).expect("written");
        writer.end_document(Split::Train).expect("written");
        writer.finish(vec![], 0, None).expect("finished");
        let corpus = Corpus::open(dir.path(), Split::Train, None).expect("opened");
        assert_eq!((corpus.len(), corpus.meta().expect("described").documents), (101, 1));
        for range in [0..0, 0..7, 6..8, 3..99, 7..14, 100..101, 101..101] {
            let mut expected = ids.clone();
            expected.push(256);
            let expected = &expected[range.start as usize..range.end as usize];
            assert_eq!(corpus.tokens(range.clone()).expect("inside"), expected, "{range:?}");
        }
        assert!(corpus.tokens(100..102).is_err());
        let none = Corpus::open(dir.path(), Split::Val, None).expect_err("no val");
        assert!(none.to_string().contains("val"), "{none}");
    }

    #[test]
    fn shards_of_other_projects_are_read() {
        let dir = folder(&[
            ("train_000.bin", bytes(&[1, 2, 3])),
            ("train_001.bin", with_header(U16, 2, &[4, 5])),
            ("val.bin", bytes(&[9])),
        ]);
        let corpus = Corpus::open(dir.path(), Split::Train, Some(&gpt2())).expect("opened");
        assert_eq!(corpus.tokens(0..5).expect("inside"), [1, 2, 3, 4, 5]);
        assert!(refusal(dir.path(), None).contains("given explicitly"));
        fs::write(dir.path().join(META_FILE), r#"{"tokenizer": {"name": "gpt2"}}"#)
            .expect("writable");
        assert_eq!(Corpus::open(dir.path(), Split::Val, None).expect("opened").len(), 1);
        assert!(refusal(dir.path(), Some(&byte_tokens())).contains("expected bytes"));
    }

    #[test]
    fn ids_of_32_bits_are_written_and_read_as_llm_c_does() {
        let words = Words::new((0..70_000).map(|i| format!("w{i}")).collect()).expect("differ");
        let words: SharedTokenizer = Arc::new(words);
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut writer = CorpusWriter::create(dir.path(), &words, 3).expect("new");
        writer.push(Split::Train, &[1, 65_536, 69_999, 2], 9).expect("written");
        writer.end_document(Split::Train).expect("written");
        writer.finish(vec![], 0, None).expect("finished");
        let halves = |ids: &[u32]| -> Vec<u16> {
            ids.iter().flat_map(|id| [*id as u16, (id >> 16) as u16]).collect()
        };
        let [first, last] = ["train-000.bin", "train-001.bin"].map(|name| dir.path().join(name));
        let read = |path: &Path| fs::read(path).expect("readable");
        assert_eq!(read(&first), with_header(U32, 3, &halves(&[1, 65_536, 69_999])));
        assert_eq!(read(&last), with_header(U32, 2, &halves(&[2, 70_000])));
        let corpus = Corpus::open(dir.path(), Split::Train, None).expect("opened");
        corpus.verify().expect("as written");
        assert_eq!(corpus.tokens(0..5).expect("inside"), [1, 65_536, 69_999, 2, 70_000]);
        assert_eq!(corpus.tokens(2..4).expect("inside"), [69_999, 2]);

        // A small vocabulary may have them too; a large one has no others.
        let dir = folder(&[("train.bin", with_header(U32, 2, &[7, 0, 256, 0]))]);
        let corpus = Corpus::open(dir.path(), Split::Train, Some(&byte_tokens())).expect("opened");
        assert_eq!(corpus.tokens(0..2).expect("inside"), [7, 256]);
        let dir = folder(&[("train.bin", bytes(&[7, 0, 8, 0]))]);
        let error = refusal(dir.path(), Some(&words));
        assert!(error.contains("train.bin: header: expected llm.c's header of 32-bit"), "{error}");
    }

    #[test]
    fn cut_and_foreign_shards_are_refused_by_name() {
        for (content, reason) in [
            (vec![1, 2, 3], "3 bytes"),
            (with_header(U16, 3, &[1, 2]), "expected 3, the number in the header, found 2"),
            (with_header(U16, -1, &[1, 2]), "the number in the header"),
            (with_header([U16[0], 2], 2, &[1, 2]), "found magic 20240520, version 2"),
            (with_header([U32[0], 1], 1, &[1, 0]), "found magic 20240801, version 1, which is not"),
            (with_header(U32, 2, &[1, 0, 2]), "expected a multiple of 4 bytes, found 1030 bytes"),
            (with_header(U32, 2, &[1, 0]), "expected 2, the number in the header, found 1"),
            (with_header(U32, 1, &[1, 0])[..9].into(), "the 1024 bytes of a header"),
            (vec![], "found none"),
        ] {
            let dir = folder(&[("train.bin", content)]);
            let error = refusal(dir.path(), Some(&gpt2()));
            assert!(error.contains(reason) && error.contains("train"), "{error}");
        }
        let meta = r#"{"tokenizer": {"name": "bytes"}, "train": {"documents": 1, "tokens": 3,
            "bytes": 2, "shards": [{"file": "train-000.bin", "tokens": 3}]}}"#;
        let dir = folder(&[("train-000.bin", bytes(&[1, 2])), (META_FILE, meta.into())]);
        assert!(
            refusal(dir.path(), None).contains("expected 3, the number in the sidecar, found 2")
        );
        fs::remove_file(dir.path().join("train-000.bin")).expect("removable");
        assert!(refusal(dir.path(), None).contains("train-000.bin: cannot open"));
    }

    #[test]
    fn bad_sidecars_are_refused() {
        for (meta, reason) in [
            ("{", "sidecar"),
            (r#"{"tokenizer": {"name": "gpt3"}}"#, "gpt3"),
            (r#"{"tokenizer": {"name": "gpt2"}, "vocab_size": 7}"#, "expected 50258"),
            (r#"{"tokenizer": {"name": "gpt2"}, "separator": 7}"#, "expected 50256"),
        ] {
            let dir = folder(&[("train.bin", bytes(&[1])), (META_FILE, meta.into())]);
            let error = refusal(dir.path(), None);
            assert!(error.contains(reason) && error.contains(META_FILE), "{error}");
        }
        for tokenizer in [None, Some(gpt2())] {
            let error = refusal(Path::new("/no/such/folder"), tokenizer.as_ref());
            assert!(error.contains("/no/such/folder: cannot open"), "{error}");
        }
    }

    #[test]
    fn an_id_past_the_vocabulary_is_named_when_its_window_is_read() {
        let dir = folder(&[("train.bin", bytes(&[1, 2, 256, 257, 3]))]);
        let corpus = Corpus::open(dir.path(), Split::Train, Some(&byte_tokens())).expect("opened");
        assert_eq!(corpus.tokens(0..3).expect("good ids"), [1, 2, 256]);
        let error = corpus.tokens(2..5).expect_err("a bad id");
        let Error::Token { path, position, id, vocab_size } = error else { panic!("{error}") };
        assert_eq!((position, id, vocab_size), (3, 257, 257));
        assert!(path.ends_with("train.bin"));
    }

    #[test]
    fn a_shard_cut_short_while_it_is_open_is_an_error_that_names_it() {
        let dir = folder(&[("train.bin", bytes(&[1; 1000]))]);
        let corpus = Corpus::open(dir.path(), Split::Train, Some(&byte_tokens())).expect("opened");
        let file = fs::File::options().write(true).open(dir.path().join("train.bin"));
        file.expect("there").set_len(100).expect("cut");
        assert_eq!(corpus.tokens(0..50).expect("still there"), [1; 50]);
        let error = corpus.tokens(40..60).expect_err("gone").to_string();
        for part in ["train.bin", "expected 2000 bytes", "found 100; the file was cut short"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_corpus_may_have_more_files_than_stay_open() {
        let names: Vec<String> = (0..OPEN_FILES + 2).map(|i| format!("train-{i:03}.bin")).collect();
        let files: Vec<(&str, Vec<u8>)> =
            names.iter().zip(0..).map(|(name, id)| (&**name, bytes(&[id]))).collect();
        let dir = folder(&files);
        let corpus = Corpus::open(dir.path(), Split::Train, Some(&gpt2())).expect("opened");
        let expected: Vec<u32> = (0..OPEN_FILES as u32 + 2).collect();
        assert_eq!(corpus.tokens(0..corpus.len()).expect("good ids"), expected);
    }

    #[test]
    fn a_fingerprint_is_recorded_or_computed_and_notices_other_content() {
        let write = |dir: &Path, ids: &[u32]| {
            let mut writer = CorpusWriter::create(dir, &byte_tokens(), 4).expect("new");
            writer.push(Split::Train, ids, 9).expect("written");
            writer.finish(vec![], 0, None).expect("finished")
        };
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        let mut meta = write(&one, &[1, 2, 3, 4, 5]);
        write(&other, &[1, 2, 3, 4, 6]);
        let open = |dir: &Path| Corpus::open(dir, Split::Train, None).expect("opened");
        let recorded = open(&one).fingerprint().expect("recorded");
        assert_eq!(recorded.shards[0].sha256.as_deref(), Some(&*sha256(&bytes(&[1, 2, 3, 4]))));
        assert_eq!((recorded.tokens(), &*recorded.tokenizer), (5, "bytes"));
        let differences = recorded.differences(&open(&other).fingerprint().expect("recorded"));
        assert_eq!(differences.len(), 1);
        assert_eq!(differences[0].key, "train-001.bin");

        // As older sidecars are: without hashes.
        for shard in &mut meta.train.as_mut().expect("there").shards {
            shard.sha256 = None;
        }
        fs::write(one.join(META_FILE), serde_json::to_vec(&meta).expect("plain")).expect("written");
        assert_eq!(open(&one).fingerprint().expect("computed"), recorded);
    }

    #[test]
    fn a_damaged_shard_is_found_by_its_hash() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut writer = CorpusWriter::create(dir.path(), &byte_tokens(), 4).expect("new");
        writer.push(Split::Train, &[1, 2, 3, 4, 5], 5).expect("written");
        writer.finish(vec![], 0, None).expect("finished");
        let corpus = Corpus::open(dir.path(), Split::Train, None).expect("opened");
        corpus.verify().expect("as written");
        fs::write(dir.path().join("train-001.bin"), bytes(&[6])).expect("writable");
        let error = corpus.verify().expect_err("damaged").to_string();
        assert!(error.contains("train-001.bin: SHA-256"), "{error}");
    }
}
