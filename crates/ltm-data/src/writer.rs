//! Writes a corpus folder: shards under temporary names, synced, renamed, and the sidecar last. Knows nothing of where
//! the tokens come from.

use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ltm_files::{AtomicFile, FinishedFile, FolderLock, write_whole};
use sha2::{Digest, Sha256};

use super::hash::hex;
use super::layout::{COUNT_AT, MOST_TOKENS, Width};
use super::meta::{META_FILE, Meta, Shard, SplitMeta};
use super::pipeline::Sink;
use super::stories::Parameters;
use super::tokenizer::{SharedTokenizer, TOKENIZER_FILE, check};
use crate::{Error, Result, Split};

/// A corpus folder being written, document by document, by the only writer of the folder. Dropped before
/// [`CorpusWriter::close`], it leaves nothing.
///
/// ```
/// use std::sync::Arc;
/// use ltm_data::{Bytes, Corpus, CorpusWriter, SharedTokenizer, Split};
///
/// let bytes: SharedTokenizer = Arc::new(Bytes);
/// let dir = std::env::temp_dir().join(format!("ltm-data-example-{}", std::process::id()));
/// let mut writer = CorpusWriter::create(&dir, &bytes, 1_000_000)?;
/// for number in 0..100 {
///     writer.document(Split::Train, &format!("document {number}"))?;
/// }
/// writer.close()?;
/// assert_eq!(Corpus::open(&dir, Split::Train, None)?.meta().expect("described").documents, 100);
/// # std::fs::remove_dir_all(&dir).expect("removable");
/// # Ok::<(), ltm_data::Error>(())
/// ```
pub struct CorpusWriter {
    tokenizer: SharedTokenizer,
    splits: [SplitWriter; 2],
    dir: PathBuf,
    // Dropped last.
    _lock: FolderLock,
}

impl CorpusWriter {
    /// Starts a corpus in `dir`, creating the folder, with shards of `shard_tokens` tokens; the last one of a split has
    /// fewer.
    ///
    /// # Errors
    /// [`Error::Field`] for shards of no tokens or an invalid word list, [`Error::File`] when `dir` already contains
    /// a corpus, another process writes there, or it cannot be created.
    pub fn create(dir: &Path, tokenizer: &SharedTokenizer, shard_tokens: u64) -> Result<Self> {
        check(&**tokenizer)?;
        let width = Width::of(tokenizer.vocab_size());
        if shard_tokens == 0 {
            return Err(Error::field("shard_tokens", "at least 1", shard_tokens));
        }
        if width == Width::Four && shard_tokens > MOST_TOKENS {
            let expected = format!("at most {MOST_TOKENS} for a vocabulary of this size");
            return Err(Error::field("shard_tokens", expected, shard_tokens));
        }
        let lock = FolderLock::acquire(dir)?;
        if dir.join(META_FILE).exists() {
            let expected = "a folder without a corpus; delete it or choose another";
            return Err(Error::content(dir, "output", expected, META_FILE));
        }
        let file = dir.join(TOKENIZER_FILE);
        if let Some(content) = tokenizer.file()
            && let Ok(found) = std::fs::read(&file)
            && found != content
        {
            let expected = "no file of this name, or that of the tokenizer; choose another folder";
            return Err(Error::content(&file, "output", expected, "another tokenizer"));
        }
        let splits = Split::ALL.map(|split| SplitWriter::new(dir, split, shard_tokens, width));
        Ok(Self { tokenizer: Arc::clone(tokenizer), splits, dir: dir.into(), _lock: lock })
    }

    /// Encodes a document and appends it with the separator.
    ///
    /// # Errors
    /// Those of the tokenizer; [`Error::File`] when it cannot be written.
    pub fn document(&mut self, split: Split, text: &str) -> Result<()> {
        let tokens = self.tokenizer.encode(text)?;
        self.push(split, &tokens, text.len() as u64)?;
        self.end_document(split)
    }

    /// Appends a document in token ids, without the separator, and then the separator.
    ///
    /// # Errors
    /// [`Error::Field`] for the separator or an id outside the vocabulary, [`Error::File`] when it cannot be written.
    pub fn tokens_of_document(&mut self, split: Split, tokens: &[u32]) -> Result<()> {
        let (vocab_size, separator) = (self.tokenizer.vocab_size(), self.tokenizer.separator());
        let (mut bytes, mut before) = (0, separator);
        for &id in tokens {
            if id as usize >= vocab_size || id == separator {
                let expected = format!("ids in 0..{vocab_size} without the separator {separator}");
                return Err(Error::field("tokens", expected, id));
            }
            bytes += self.tokenizer.text_bytes(before, id) as u64;
            before = id;
        }
        self.push(split, tokens, bytes)?;
        self.end_document(split)
    }

    /// Ends the corpus: the files get their names, and the sidecar is written.
    ///
    /// # Errors
    /// [`Error::File`] when that fails; no file then has its final name.
    pub fn close(self) -> Result<Meta> {
        self.finish(Vec::new(), 0, None)
    }

    /// Tokens written to `split` so far.
    pub(super) fn tokens(&self, split: Split) -> u64 {
        self.splits[split as usize].meta.tokens
    }

    /// Puts the shards under their final names, then the sidecar that describes them. After an error none of them has
    /// its final name.
    pub(super) fn finish(
        mut self,
        sources: Vec<String>,
        skipped: u64,
        storyworld: Option<Parameters>,
    ) -> Result<Meta> {
        for writer in &mut self.splits {
            writer.close()?;
        }
        let mut published = Vec::new();
        let meta = self.publish(sources, skipped, storyworld, &mut published);
        if meta.is_err() {
            // The sidecar first, which describes the others.
            for path in published.iter().rev() {
                let _ = std::fs::remove_file(path);
            }
        }
        meta
    }

    /// Lists in `published` the files that may have their final names.
    fn publish(
        &mut self,
        sources: Vec<String>,
        skipped: u64,
        storyworld: Option<Parameters>,
        published: &mut Vec<PathBuf>,
    ) -> Result<Meta> {
        for writer in &mut self.splits {
            writer.publish(published)?;
        }
        let [train, val] = self.splits.each_mut().map(|writer| std::mem::take(&mut writer.meta));
        let meta = Meta {
            vocab_size: Some(self.tokenizer.vocab_size()),
            separator: Some(self.tokenizer.separator()),
            tokenizer: self.tokenizer.spec(),
            train: Some(train),
            val: Some(val),
            sources,
            skipped,
            storyworld,
        };
        let json = serde_json::to_string_pretty(&meta).expect("plain data serialises");
        if let Some(content) = self.tokenizer.file() {
            let path = self.dir.join(TOKENIZER_FILE);
            if !path.exists() {
                published.push(path.clone());
                write_whole(&path, content)?;
            }
        }
        let path = self.dir.join(META_FILE);
        published.push(path.clone());
        write_whole(&path, json.as_bytes())?;
        Ok(meta)
    }
}

impl Sink for CorpusWriter {
    fn push(&mut self, split: Split, tokens: &[u32], bytes: u64) -> Result<()> {
        let writer = &mut self.splits[split as usize];
        writer.meta.bytes += bytes;
        writer.push(tokens)
    }

    fn end_document(&mut self, split: Split) -> Result<()> {
        let writer = &mut self.splits[split as usize];
        writer.meta.documents += 1;
        writer.push(&[self.tokenizer.separator()])
    }
}

struct SplitWriter {
    dir: PathBuf,
    split: Split,
    shard_tokens: u64,
    width: Width,
    open: Option<BufWriter<AtomicFile>>,
    /// Of the open shard.
    hash: Sha256,
    /// Shards that are complete.
    finished: Vec<FinishedFile>,
    meta: SplitMeta,
}

impl SplitWriter {
    fn new(dir: &Path, split: Split, shard_tokens: u64, width: Width) -> Self {
        let (meta, hash, finished) = (SplitMeta::default(), Sha256::new(), Vec::new());
        Self { dir: dir.into(), split, shard_tokens, width, open: None, hash, finished, meta }
    }

    fn push(&mut self, mut tokens: &[u32]) -> Result<()> {
        while !tokens.is_empty() {
            if self.open.is_none() {
                self.start_shard()?;
            }
            let shard = self.meta.shards.last_mut().expect("start_shard() lists the open shard");
            let file = self.open.as_mut().expect("start_shard() opens the shard");
            let room = usize::try_from(self.shard_tokens - shard.tokens).unwrap_or(usize::MAX);
            let (now, later) = tokens.split_at(room.min(tokens.len()));
            let mut bytes = Vec::new();
            self.width.pack(now, &mut bytes);
            self.hash.update(&bytes);
            file.write_all(&bytes).map_err(Error::io(&self.dir.join(&shard.file), "write"))?;
            shard.tokens += now.len() as u64;
            self.meta.tokens += now.len() as u64;
            if shard.tokens == self.shard_tokens {
                self.close()?;
            }
            tokens = later;
        }
        Ok(())
    }

    fn start_shard(&mut self) -> Result<()> {
        let file = format!("{}-{:03}.bin", self.split, self.meta.shards.len());
        let path = self.dir.join(&file);
        let mut open = BufWriter::new(AtomicFile::create(&path)?);
        if self.width == Width::Four {
            // As if it became full; the last one does not, see `close`.
            let header = self.width.header(self.shard_tokens);
            self.hash.update(&header);
            open.write_all(&header).map_err(Error::io(&path, "write"))?;
        }
        self.open = Some(open);
        self.meta.shards.push(Shard { file, tokens: 0, sha256: None });
        Ok(())
    }

    /// Flushes and syncs the open shard, if there is one.
    fn close(&mut self) -> Result<()> {
        let (Some(file), Some(shard)) = (self.open.take(), self.meta.shards.last_mut()) else {
            return Ok(());
        };
        let path = self.dir.join(&shard.file);
        let file = file.into_inner().map_err(|error| error.into_error());
        let mut file = file.map_err(Error::io(&path, "write"))?;
        let mut hash = std::mem::take(&mut self.hash);
        if self.width == Width::Four && shard.tokens < self.shard_tokens {
            hash = recount(&mut file, shard.tokens).map_err(Error::io(&path, "write"))?;
        }
        shard.sha256 = Some(hex(hash));
        self.finished.push(file.finish()?);
        Ok(())
    }

    fn publish(&mut self, published: &mut Vec<PathBuf>) -> Result<()> {
        for (file, shard) in self.finished.drain(..).zip(&self.meta.shards) {
            file.publish()?;
            published.push(self.dir.join(&shard.file));
        }
        Ok(())
    }
}

/// Corrects the number of tokens in a header; returns the hash of the whole file.
fn recount(file: &mut AtomicFile, tokens: u64) -> io::Result<Sha256> {
    file.seek(SeekFrom::Start(COUNT_AT))?;
    file.write_all(&(tokens as i32).to_le_bytes())?;
    file.rewind()?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash),
            read => hash.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ltm_files::Error as FileError;

    use super::super::shard::Corpus;
    use super::super::tokenizer::{Bytes, Tokenizer};
    use super::*;

    fn bytes() -> SharedTokenizer {
        Arc::new(Bytes)
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("listable");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn shards_have_the_size_asked_for_and_appear_only_when_all_is_done() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut writer = CorpusWriter::create(dir.path(), &bytes(), 4).expect("new");
        writer.push(Split::Train, &[1, 2, 3, 4, 5, 6, 7, 8, 9], 9).expect("written");
        writer.end_document(Split::Train).expect("written");
        assert!(names(dir.path()).iter().all(|name| name.starts_with('.')));
        let meta = writer.finish(vec![], 0, None).expect("finished");
        let files = ["meta.json", "train-000.bin", "train-001.bin", "train-002.bin"];
        assert_eq!(names(dir.path()), files);
        let train = meta.train.expect("described");
        assert_eq!(train.shards.iter().map(|shard| shard.tokens).collect::<Vec<_>>(), [4, 4, 2]);
        assert_eq!((train.tokens, train.documents, train.bytes), (10, 1, 9));
        let last = fs::read(dir.path().join("train-002.bin")).expect("readable");
        assert_eq!(last, [9, 0, 0, 1]);

        let again = CorpusWriter::create(dir.path(), &bytes(), 4);
        assert!(again.err().expect("occupied").to_string().contains("meta.json"));
    }

    #[test]
    fn documents_of_text_and_of_ids_are_the_same() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text: bool| {
            let mut writer =
                CorpusWriter::create(&dir.path().join(name), &bytes(), 4).expect("new");
            for document in ["one", "two, threé"] {
                if text {
                    writer.document(Split::Val, document).expect("written");
                } else {
                    let ids: Vec<u32> = document.bytes().map(u32::from).collect();
                    writer.tokens_of_document(Split::Val, &ids).expect("written");
                }
            }
            writer.close().expect("closed")
        };
        let (text, ids) = (write("text", true), write("ids", false));
        assert_eq!(text, ids);
        let val = text.val.expect("described");
        assert_eq!((val.documents, val.tokens, val.bytes), (2, 16, 14));
        let mut writer = CorpusWriter::create(&dir.path().join("bad"), &bytes(), 4).expect("new");
        for bad in [256, 257] {
            let error = writer.tokens_of_document(Split::Val, &[1, bad]).expect_err("no text");
            let expected = format!("ids in 0..257 without the separator 256, found {bad}");
            assert!(error.to_string().contains(&expected), "{error}");
        }
        assert_eq!(writer.tokens(Split::Val), 0, "a refused document changes nothing");
    }

    #[test]
    fn an_abandoned_corpus_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut writer = CorpusWriter::create(dir.path(), &bytes(), 2).expect("new");
        writer.push(Split::Val, &[1, 2, 3], 3).expect("written");
        drop(writer);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_corpus_that_cannot_be_finished_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut writer = CorpusWriter::create(dir.path(), &bytes(), 2).expect("new");
        writer.push(Split::Train, &[1, 2, 3], 3).expect("written");
        fs::create_dir(dir.path().join("train-001.bin")).expect("creatable");
        let error = writer.finish(vec![], 0, None).expect_err("a folder of this name");
        assert!(error.to_string().contains("train-001.bin"), "{error}");
        assert_eq!(names(dir.path()), ["train-001.bin"]);
    }

    #[cfg(unix)]
    #[test]
    fn planted_links_are_not_followed() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let victim = dir.path().join("victim");
        fs::write(&victim, b"precious").expect("writable");
        for name in [".train-000.bin.tmp", "train-000.bin", ".meta.json.tmp"] {
            std::os::unix::fs::symlink(&victim, dir.path().join(name)).expect("linkable");
        }
        let mut writer = CorpusWriter::create(dir.path(), &bytes(), 4).expect("new");
        writer.push(Split::Train, &[1, 2, 3], 3).expect("written");
        writer.finish(vec![], 0, None).expect("finished");
        assert_eq!(fs::read(&victim).expect("readable"), b"precious");
        let shard = fs::symlink_metadata(dir.path().join("train-000.bin")).expect("there");
        assert!(shard.is_file());
    }

    #[test]
    fn another_tokenizer_file_is_not_replaced() {
        #[derive(Debug)]
        struct OfFile;
        impl Tokenizer for OfFile {
            fn encode(&self, text: &str) -> Result<Vec<u32>> {
                Bytes.encode(text)
            }
            fn decode(&self, tokens: &[u32]) -> String {
                Bytes.decode(tokens)
            }
            fn vocab_size(&self) -> usize {
                257
            }
            fn separator(&self) -> u32 {
                256
            }
            fn fingerprint(&self) -> String {
                "of a file".into()
            }
            fn file(&self) -> Option<&[u8]> {
                Some(b"ours")
            }
        }
        let temp = tempfile::tempdir().expect("a temporary folder");
        let file = temp.path().join(TOKENIZER_FILE);
        let tokenizer: SharedTokenizer = Arc::new(OfFile);
        fs::write(&file, "theirs").expect("writable");
        let error = CorpusWriter::create(temp.path(), &tokenizer, 4).err().expect("refused");
        assert!(error.to_string().contains("tokenizer.json: output: expected no file"), "{error}");
        fs::remove_file(&file).expect("removable");
        let mut writer = CorpusWriter::create(temp.path(), &tokenizer, 4).expect("free");
        writer.document(Split::Train, "a").expect("written");
        let meta = writer.close().expect("closed");
        assert_eq!(fs::read(&file).expect("written"), b"ours");
        assert_eq!(meta.tokenizer, tokenizer.spec());
        // Only the program can open it again.
        let given = Corpus::open(temp.path(), Split::Train, Some(&tokenizer));
        assert_eq!(given.expect("the same").tokens(0..2).expect("ids"), [97, 256]);
        for other in [None, Some(bytes())] {
            let error = Corpus::open(temp.path(), Split::Train, other.as_ref());
            assert!(error.expect_err("another").to_string().contains("of a file"));
        }
    }

    #[test]
    fn a_second_writer_is_refused_and_takes_over_what_a_dead_one_left() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut writer = CorpusWriter::create(dir.path(), &bytes(), 2).expect("new");
        writer.push(Split::Train, &[1, 2, 3], 3).expect("written");
        let second = CorpusWriter::create(dir.path(), &bytes(), 2);
        assert!(matches!(second.err(), Some(Error::File(FileError::Locked { .. }))));
        drop(writer);
        let left = format!(".train-000.bin.x{}", ltm_files::TEMPORARY_SUFFIX);
        fs::write(dir.path().join(&left), b"half").expect("writable");
        let writer = CorpusWriter::create(dir.path(), &bytes(), 2).expect("free again");
        assert!(!dir.path().join(left).exists());
        drop(writer);
    }

    /// Files cannot be written into a folder that is gone, as little as onto a full disk.
    #[cfg(unix)]
    #[test]
    fn a_shard_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let out = dir.path().join("out");
        let mut writer = CorpusWriter::create(&out, &bytes(), 2).expect("new");
        writer.push(Split::Train, &[7], 1).expect("written");
        fs::remove_dir_all(&out).expect("removable");
        let error = writer.finish(vec![], 0, None).expect_err("no folder");
        assert!(error.to_string().contains("train-000.bin"), "{error}");
        assert!(!out.exists());
    }
}
