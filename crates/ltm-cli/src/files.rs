//! Reading files for verbs: a bar while it lasts, and a line for each part that is left out.

use clap::ValueEnum;
use indicatif::ProgressBar;
use ltm_train::data::{Format, Malformed, Notice, ReadOptions};

/// Malformed parts that are named; those behind them are counted.
const NAMED: u64 = 20;

/// How files hold documents.
#[derive(Clone, Copy, ValueEnum)]
pub enum Container {
    /// Plain text; a line `<|endoftext|>` parts documents
    Text,
    /// A JSON object a line
    Jsonl,
    /// Comma-separated records
    Csv,
    /// A table in Parquet
    Parquet,
}

impl From<Container> for Format {
    fn from(container: Container) -> Self {
        match container {
            Container::Text => Self::Text,
            Container::Jsonl => Self::Jsonl,
            Container::Csv => Self::Csv,
            Container::Parquet => Self::Parquet,
        }
    }
}

/// How files of any format are read.
#[derive(clap::Args)]
pub struct ReadArgs {
    /// The key of JSON, or the column of a table, that holds the text; `text` when left out
    #[arg(long)]
    pub key: Option<String>,
    /// Leave malformed lines out, name and count them, instead of stopping at the first
    #[arg(long)]
    pub skip_malformed: bool,
}

impl ReadArgs {
    /// The same for the library; without a format each file's extension tells.
    pub fn options(&self, format: Option<Format>) -> ReadOptions {
        let malformed = if self.skip_malformed { Malformed::Skip } else { Malformed::Refuse };
        ReadOptions { format, key: self.key.clone(), malformed }
    }
}

/// A bar over what is read, and the parts left out named on stderr.
pub struct Reading {
    bar: ProgressBar,
    skipped: u64,
}

impl Reading {
    pub fn new() -> Self {
        let template = "{bytes}/{total_bytes} {bytes_per_sec} ETA {eta}";
        Self { bar: crate::progress_bar(0, template), skipped: 0 }
    }

    /// Shows what a reader tells.
    pub fn see(&mut self, notice: Notice) {
        match notice {
            Notice::Read { done, total } => {
                self.bar.set_length(total);
                self.bar.set_position(done);
            }
            Notice::Skipped(error) => self.skip(&error),
        }
    }

    /// Names a part that is left out.
    pub fn skip(&mut self, error: &ltm_train::Error) {
        self.skipped += 1;
        if self.skipped <= NAMED {
            self.bar.suspend(|| note!("skipped: {error}"));
        }
    }

    /// Takes the bar away and tells how much was left out, which is returned.
    pub fn finish(self) -> u64 {
        self.bar.finish_and_clear();
        if self.skipped > 0 {
            note!("skipped: {} malformed parts in all", self.skipped);
        }
        self.skipped
    }
}
