//! Writes a corpus folder: shards under temporary names, synced, renamed, and the sidecar last. Knows nothing of where
//! the tokens come from.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use ltm_files::{AtomicFile, FinishedFile, FolderLock, write_whole};
use sha2::{Digest, Sha256};

use super::fingerprint::hex;
use super::pipeline::Sink;
use super::shard::{META_FILE, Meta, Shard, Split, SplitMeta};
use super::storyworld;
use super::tokenizer::Tokenizer;
use crate::{Error, Result};

/// A corpus being written by the only writer of its folder. Dropped before [`CorpusWriter::finish`], it leaves nothing.
pub(super) struct CorpusWriter {
    tokenizer: Tokenizer,
    splits: [SplitWriter; 2],
    dir: PathBuf,
    // Dropped last.
    _lock: FolderLock,
}

impl CorpusWriter {
    /// Starts a corpus in `dir`, creating the folder.
    ///
    /// # Errors
    /// [`Error::Field`] for shards of no tokens or an invalid word list, [`Error::File`] when `dir` already contains
    /// a corpus, another process writes there, or it cannot be created.
    pub(super) fn create(dir: &Path, tokenizer: &Tokenizer, shard_tokens: u64) -> Result<Self> {
        tokenizer.validate()?;
        if shard_tokens == 0 {
            return Err(Error::field("shard_tokens", "at least 1", shard_tokens));
        }
        let lock = FolderLock::acquire(dir)?;
        if dir.join(META_FILE).exists() {
            let expected = "a folder without a corpus; delete it or choose another";
            return Err(Error::content(dir, "output", expected, META_FILE));
        }
        let splits = Split::ALL.map(|split| SplitWriter::new(dir, split, shard_tokens));
        Ok(Self { tokenizer: tokenizer.clone(), splits, dir: dir.into(), _lock: lock })
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
        storyworld: Option<storyworld::Parameters>,
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
        storyworld: Option<storyworld::Parameters>,
        published: &mut Vec<PathBuf>,
    ) -> Result<Meta> {
        for writer in &mut self.splits {
            writer.publish(published)?;
        }
        let [train, val] = self.splits.each_mut().map(|writer| std::mem::take(&mut writer.meta));
        let meta = Meta {
            vocab_size: Some(self.tokenizer.vocab_size()),
            separator: Some(self.tokenizer.separator()),
            tokenizer: self.tokenizer.clone(),
            train: Some(train),
            val: Some(val),
            sources,
            skipped,
            storyworld,
        };
        let json = serde_json::to_string_pretty(&meta).expect("plain data serialises");
        let path = self.dir.join(META_FILE);
        published.push(path.clone());
        write_whole(&path, json.as_bytes())?;
        Ok(meta)
    }
}

impl Sink for CorpusWriter {
    fn push(&mut self, split: Split, tokens: &[u16], bytes: u64) -> Result<()> {
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
    open: Option<BufWriter<AtomicFile>>,
    /// Of the open shard.
    hash: Sha256,
    /// Shards that are complete.
    finished: Vec<FinishedFile>,
    meta: SplitMeta,
}

impl SplitWriter {
    fn new(dir: &Path, split: Split, shard_tokens: u64) -> Self {
        let (meta, hash, finished) = (SplitMeta::default(), Sha256::new(), Vec::new());
        Self { dir: dir.into(), split, shard_tokens, open: None, hash, finished, meta }
    }

    fn push(&mut self, mut tokens: &[u16]) -> Result<()> {
        while !tokens.is_empty() {
            if self.open.is_none() {
                self.start_shard()?;
            }
            let shard = self.meta.shards.last_mut().expect("start_shard() lists the open shard");
            let file = self.open.as_mut().expect("start_shard() opens the shard");
            let room = usize::try_from(self.shard_tokens - shard.tokens).unwrap_or(usize::MAX);
            let (now, later) = tokens.split_at(room.min(tokens.len()));
            let bytes: Vec<u8> = now.iter().flat_map(|id| id.to_le_bytes()).collect();
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
        let open = AtomicFile::create(&self.dir.join(&file))?;
        self.open = Some(BufWriter::new(open));
        self.meta.shards.push(Shard { file, tokens: 0, sha256: None });
        Ok(())
    }

    /// Flushes and syncs the open shard, if there is one.
    fn close(&mut self) -> Result<()> {
        let (Some(file), Some(shard)) = (self.open.take(), self.meta.shards.last_mut()) else {
            return Ok(());
        };
        shard.sha256 = Some(hex(std::mem::take(&mut self.hash)));
        let file = file.into_inner().map_err(|error| error.into_error());
        let file = file.map_err(Error::io(&self.dir.join(&shard.file), "write"))?;
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

#[cfg(test)]
mod tests {
    use std::fs;

    use ltm_files::Error as FileError;

    use super::*;

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
        let mut writer = CorpusWriter::create(dir.path(), &Tokenizer::Bytes, 4).expect("new");
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

        let again = CorpusWriter::create(dir.path(), &Tokenizer::Bytes, 4);
        assert!(again.err().expect("occupied").to_string().contains("meta.json"));
    }

    #[test]
    fn an_abandoned_corpus_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut writer = CorpusWriter::create(dir.path(), &Tokenizer::Bytes, 2).expect("new");
        writer.push(Split::Val, &[1, 2, 3], 3).expect("written");
        drop(writer);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_corpus_that_cannot_be_finished_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut writer = CorpusWriter::create(dir.path(), &Tokenizer::Bytes, 2).expect("new");
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
        let mut writer = CorpusWriter::create(dir.path(), &Tokenizer::Bytes, 4).expect("new");
        writer.push(Split::Train, &[1, 2, 3], 3).expect("written");
        writer.finish(vec![], 0, None).expect("finished");
        assert_eq!(fs::read(&victim).expect("readable"), b"precious");
        let shard = fs::symlink_metadata(dir.path().join("train-000.bin")).expect("there");
        assert!(shard.is_file());
    }

    #[test]
    fn a_second_writer_is_refused_and_takes_over_what_a_dead_one_left() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut writer = CorpusWriter::create(dir.path(), &Tokenizer::Bytes, 2).expect("new");
        writer.push(Split::Train, &[1, 2, 3], 3).expect("written");
        let second = CorpusWriter::create(dir.path(), &Tokenizer::Bytes, 2);
        assert!(matches!(second.err(), Some(Error::File(FileError::Locked { .. }))));
        drop(writer);
        let left = format!(".train-000.bin.x{}", ltm_files::TEMPORARY_SUFFIX);
        fs::write(dir.path().join(&left), b"half").expect("writable");
        let writer = CorpusWriter::create(dir.path(), &Tokenizer::Bytes, 2).expect("free again");
        assert!(!dir.path().join(left).exists());
        drop(writer);
    }

    /// Files cannot be written into a folder that is gone, as little as onto a full disk.
    #[cfg(unix)]
    #[test]
    fn a_shard_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let out = dir.path().join("out");
        let mut writer = CorpusWriter::create(&out, &Tokenizer::Bytes, 2).expect("new");
        writer.push(Split::Train, &[7], 1).expect("written");
        fs::remove_dir_all(&out).expect("removable");
        let error = writer.finish(vec![], 0, None).expect_err("no folder");
        assert!(error.to_string().contains("train-000.bin"), "{error}");
        assert!(!out.exists());
    }
}
