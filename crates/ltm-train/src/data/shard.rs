//! Corpora: shards of 16-bit token ids on disk, mapped rather than read, with the sidecar beside them, or in memory.
//! Knows nothing of text or of batches.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use serde::{Deserialize, Serialize};

use super::mmap;
use super::tokenizer::Tokenizer;
use crate::{Error, Result};

/// The sidecar's name in a corpus folder.
pub const META_FILE: &str = "meta.json";

/// llm.c's shards start with 256 32-bit integers: this magic, the version, the number of tokens.
const LLMC_MAGIC: i32 = 20240520;
const LLMC_VERSION: i32 = 1;
const LLMC_HEADER_BYTES: usize = 256 * 4;

/// What a part of a corpus is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// To learn from.
    Train,
    /// To measure on.
    Val,
}

impl Split {
    /// Both, in the order of their discriminants.
    pub const ALL: [Self; 2] = [Self::Train, Self::Val];
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Val => "val",
        })
    }
}

/// The sidecar `meta.json`. Beside shards made elsewhere, `{"tokenizer": {"name": "gpt2"}}` is enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// What the ids mean.
    pub tokenizer: Tokenizer,
    /// The tokeniser's number of ids, for readers that do not know it.
    pub vocab_size: Option<usize>,
    /// The id that ends a document, likewise.
    pub separator: Option<u16>,
    /// The training part.
    pub train: Option<SplitMeta>,
    /// The validation part.
    pub val: Option<SplitMeta>,
    /// The files the text came from.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Malformed lines that were left out.
    #[serde(default)]
    pub skipped: u64,
}

/// What the sidecar says of one part of a corpus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitMeta {
    /// Documents, each ended by the separator.
    pub documents: u64,
    /// Tokens, separators included.
    pub tokens: u64,
    /// Bytes of text, separators excluded: nats per token become bits per byte through it.
    pub bytes: u64,
    /// The files in order.
    pub shards: Vec<Shard>,
}

/// One file of a corpus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Its name in the corpus folder.
    pub file: String,
    /// Its tokens.
    pub tokens: u64,
}

impl Meta {
    /// Reads the sidecar of `dir`; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::Data`] when it is not a sidecar or contradicts itself.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(META_FILE);
        let json = match fs::read_to_string(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(&path, "read")(error)),
        };
        let meta: Self = serde_json::from_str(&json).map_err(|error| {
            Error::data(&path, "content", "a corpus sidecar", error.to_string())
        })?;
        meta.tokenizer.validate()?;
        let (vocab_size, separator) = (meta.tokenizer.vocab_size(), meta.tokenizer.separator());
        for (what, said, is) in [
            ("vocab_size", meta.vocab_size, vocab_size),
            ("separator", meta.separator.map(usize::from), separator.into()),
        ] {
            if let Some(said) = said.filter(|&said| said != is) {
                let expected = format!("{is}, which is what {} has", meta.tokenizer);
                return Err(Error::data(&path, what, expected, said.to_string()));
            }
        }
        Ok(Some(meta))
    }

    /// What the sidecar says of `split`.
    pub fn split(&self, split: Split) -> Option<&SplitMeta> {
        match split {
            Split::Train => self.train.as_ref(),
            Split::Val => self.val.as_ref(),
        }
    }
}

/// One split of a corpus, open for reading. Clones share the maps.
#[derive(Clone, Debug)]
pub struct Corpus {
    tokenizer: Tokenizer,
    meta: Option<SplitMeta>,
    shards: Arc<[OpenShard]>,
    len: u64,
}

/// What a shard's tokens lie in.
#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Held(Vec<u8>),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Held(bytes) => bytes,
        }
    }
}

#[derive(Debug)]
struct OpenShard {
    path: PathBuf,
    bytes: Bytes,
    header_bytes: usize,
    /// Index in the corpus of the shard's first token.
    start: u64,
    tokens: u64,
}

impl Corpus {
    /// Opens one split of the corpus in `dir`.
    ///
    /// With a sidecar that lists shards, exactly those are opened; otherwise all of `train*.bin` or
    /// `val*.bin` in the order of their names, headerless as nanoGPT writes them or with llm.c's header. The latter need
    /// `tokenizer` when no sidecar names one.
    ///
    /// # Errors
    /// [`Error::Data`] when there is nothing to open, a shard has an odd length or other tokens than
    /// its header or the sidecar promises, the tokeniser is not known, or `tokenizer` is not the sidecar's;
    /// [`Error::Io`] when a file cannot be read.
    pub fn open(dir: &Path, split: Split, tokenizer: Option<&Tokenizer>) -> Result<Self> {
        let meta = Meta::read(dir)?;
        let tokenizer = match (&meta, tokenizer) {
            (Some(meta), Some(asked)) if meta.tokenizer != *asked => {
                let found = format!("a corpus of {}", meta.tokenizer);
                return Err(Error::data(dir, "tokenizer", asked.to_string(), found));
            }
            (Some(meta), _) => meta.tokenizer.clone(),
            (None, Some(asked)) => asked.clone(),
            (None, None) => {
                let expected = format!("a {META_FILE}, or to be told the tokenizer");
                return Err(Error::data(dir, "tokenizer", expected, "neither"));
            }
        };
        tokenizer.validate()?;
        let described = meta.as_ref().and_then(|meta| meta.split(split)).cloned();
        let mut shards = Vec::new();
        let mut len = 0;
        match &described {
            Some(described) => {
                for shard in &described.shards {
                    shards.push(OpenShard::open(&dir.join(&shard.file), len, Some(shard.tokens))?);
                    len += shard.tokens;
                }
            }
            None => {
                for path in shard_files(dir, split)? {
                    let shard = OpenShard::open(&path, len, None)?;
                    len += shard.tokens;
                    shards.push(shard);
                }
            }
        }
        if len == 0 {
            let expected = format!("tokens in {split}*.bin");
            return Err(Error::data(dir, split.to_string(), expected, "none"));
        }
        Ok(Self { tokenizer, meta: described, shards: shards.into(), len })
    }

    /// A corpus of one shard of 16-bit little-endian ids in memory; `None` when there are none.
    pub(super) fn in_memory(tokenizer: &Tokenizer, ids: Vec<u8>, meta: SplitMeta) -> Option<Self> {
        let len = ids.len() as u64 / 2;
        let (path, bytes) = (PathBuf::from("memory"), Bytes::Held(ids));
        let shard = OpenShard { path, bytes, header_bytes: 0, start: 0, tokens: len };
        let tokenizer = tokenizer.clone();
        (len > 0).then(|| Self { tokenizer, meta: Some(meta), shards: [shard].into(), len })
    }

    /// Tokens in the split; never 0.
    #[expect(clippy::len_without_is_empty, reason = "open() refuses an empty split")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// What the ids mean.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What the sidecar says of this split, if there is one.
    pub fn meta(&self) -> Option<&SplitMeta> {
        self.meta.as_ref()
    }

    /// Copies out the tokens of `range`, which may cross shards.
    ///
    /// # Errors
    /// [`Error::Field`] when `range` leaves the corpus, [`Error::Token`] when an id is not in the vocabulary.
    pub fn tokens(&self, range: Range<u64>) -> Result<Vec<u16>> {
        if range.start > range.end || range.end > self.len {
            return Err(Error::field(
                "range",
                format!("within 0..{}", self.len),
                format!("{range:?}"),
            ));
        }
        let vocab_size = self.tokenizer.vocab_size();
        let mut tokens = Vec::with_capacity((range.end - range.start) as usize);
        // The last shard that starts at or before the range.
        let first = self.shards.partition_point(|shard| shard.start <= range.start).max(1) - 1;
        for shard in &self.shards[first..] {
            if shard.start >= range.end {
                break;
            }
            let from = range.start.max(shard.start) - shard.start;
            let to = range.end.min(shard.start + shard.tokens) - shard.start;
            for (position, id) in (from..to).zip(shard.ids(from, to)) {
                if usize::from(id) >= vocab_size {
                    return Err(Error::Token {
                        path: shard.path.clone(),
                        position,
                        id,
                        vocab_size,
                    });
                }
                tokens.push(id);
            }
        }
        Ok(tokens)
    }
}

impl OpenShard {
    /// Maps a shard and holds its size against its header and against `promised`.
    fn open(path: &Path, start: u64, promised: Option<u64>) -> Result<Self> {
        let bytes = fs::metadata(path).map_err(Error::io(path, "open"))?.len();
        // Nothing cannot be mapped.
        let content =
            if bytes == 0 { Bytes::Held(Vec::new()) } else { Bytes::Mapped(mmap::map(path)?) };
        let header = llmc_header(&content);
        let header_bytes = if header.is_some() { LLMC_HEADER_BYTES } else { 0 };
        let payload = bytes - header_bytes as u64;
        if !payload.is_multiple_of(2) {
            let found = format!("{bytes} bytes; the file is cut short or is no shard");
            return Err(Error::data(path, "size", "an even number of bytes", found));
        }
        let tokens = payload / 2;
        let mut promises = promised.map(|count| ("sidecar", count)).into_iter().collect::<Vec<_>>();
        if let Some([version, count]) = header {
            if version != LLMC_VERSION {
                let expected = LLMC_VERSION.to_string();
                return Err(Error::data(path, "header version", expected, version.to_string()));
            }
            // A negative count is as wrong as any other that the file does not hold.
            promises.push(("header", u64::try_from(count).unwrap_or(u64::MAX)));
        }
        for (by, count) in promises {
            if count != tokens {
                let expected = format!("{count}, as the {by} says");
                return Err(Error::data(path, "tokens", expected, tokens.to_string()));
            }
        }
        Ok(Self { path: path.into(), bytes: content, header_bytes, start, tokens })
    }

    /// The ids of tokens `from..to` of this shard.
    fn ids(&self, from: u64, to: u64) -> impl Iterator<Item = u16> + '_ {
        let at = |token: u64| self.header_bytes + 2 * token as usize;
        self.bytes[at(from)..at(to)]
            .chunks_exact(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
    }
}

/// Version and token count of an llm.c header, when the bytes start with one.
fn llmc_header(bytes: &[u8]) -> Option<[i32; 2]> {
    let header = bytes.get(..LLMC_HEADER_BYTES)?;
    let field = |i: usize| {
        i32::from_le_bytes([header[4 * i], header[4 * i + 1], header[4 * i + 2], header[4 * i + 3]])
    };
    (field(0) == LLMC_MAGIC).then(|| [field(1), field(2)])
}

fn shard_files(dir: &Path, split: Split) -> Result<Vec<PathBuf>> {
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
    use super::super::writer::CorpusWriter;
    use super::*;

    fn bytes(ids: &[u16]) -> Vec<u8> {
        ids.iter().flat_map(|id| id.to_le_bytes()).collect()
    }

    fn with_header(version: i32, count: i32, ids: &[u16]) -> Vec<u8> {
        let mut header = vec![0_i32; 256];
        header[..3].copy_from_slice(&[LLMC_MAGIC, version, count]);
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

    fn refusal(dir: &Path, tokenizer: Option<&Tokenizer>) -> String {
        Corpus::open(dir, Split::Train, tokenizer).expect_err("refused").to_string()
    }

    #[test]
    fn our_own_folder_reads_back_across_shards() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let ids: Vec<u16> = (0..100).collect();
        let mut writer = CorpusWriter::create(dir.path(), &Tokenizer::Bytes, 7).expect("new");
        writer.push(Split::Train, &ids, 100).expect("written");
        writer.end_document(Split::Train).expect("written");
        writer.finish(vec![], 0).expect("finished");
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
            ("train_001.bin", with_header(1, 2, &[4, 5])),
            ("val.bin", bytes(&[9])),
        ]);
        let corpus =
            Corpus::open(dir.path(), Split::Train, Some(&Tokenizer::Gpt2)).expect("opened");
        assert_eq!(corpus.tokens(0..5).expect("inside"), [1, 2, 3, 4, 5]);
        assert!(refusal(dir.path(), None).contains("told the tokenizer"));
        fs::write(dir.path().join(META_FILE), r#"{"tokenizer": {"name": "gpt2"}}"#)
            .expect("writable");
        assert_eq!(Corpus::open(dir.path(), Split::Val, None).expect("opened").len(), 1);
        assert!(refusal(dir.path(), Some(&Tokenizer::Bytes)).contains("expected bytes"));
    }

    #[test]
    fn cut_and_foreign_shards_are_refused_by_name() {
        for (content, reason) in [
            (vec![1, 2, 3], "3 bytes"),
            (with_header(1, 3, &[1, 2]), "expected 3, as the header says, found 2"),
            (with_header(1, -1, &[1, 2]), "as the header says"),
            (with_header(2, 2, &[1, 2]), "version: expected 1, found 2"),
            (vec![], "found none"),
        ] {
            let dir = folder(&[("train.bin", content)]);
            let error = refusal(dir.path(), Some(&Tokenizer::Gpt2));
            assert!(error.contains(reason) && error.contains("train"), "{error}");
        }
        let meta = r#"{"tokenizer": {"name": "bytes"}, "train": {"documents": 1, "tokens": 3,
            "bytes": 2, "shards": [{"file": "train-000.bin", "tokens": 3}]}}"#;
        let dir = folder(&[("train-000.bin", bytes(&[1, 2])), (META_FILE, meta.into())]);
        assert!(refusal(dir.path(), None).contains("expected 3, as the sidecar says, found 2"));
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
        assert!(refusal(Path::new("/no/such/folder"), Some(&Tokenizer::Gpt2)).contains("/no/such"));
    }

    #[test]
    fn an_id_past_the_vocabulary_is_named_when_its_window_is_read() {
        let dir = folder(&[("train.bin", bytes(&[1, 2, 256, 257, 3]))]);
        let corpus =
            Corpus::open(dir.path(), Split::Train, Some(&Tokenizer::Bytes)).expect("opened");
        assert_eq!(corpus.tokens(0..3).expect("good ids"), [1, 2, 256]);
        let error = corpus.tokens(2..5).expect_err("a bad id");
        let Error::Token { path, position, id, vocab_size } = error else { panic!("{error}") };
        assert_eq!((position, id, vocab_size), (3, 257, 257));
        assert!(path.ends_with("train.bin"));
    }
}
