//! Reading files for verbs: a progress bar, and a line for each part that is skipped.

use std::path::Path;

use clap::ValueEnum;
use indicatif::ProgressBar;
use ltm_train::data::{Format, Malformed, Notice, ReadOptions};

/// Malformed parts, and ignored files, that are named; the others are counted.
const NAMED: u64 = 20;

/// Formats of files with documents.
#[derive(Clone, Copy, ValueEnum)]
pub enum Container {
    /// Plain text; documents are separated by lines containing only `<|endoftext|>`
    Text,
    /// One JSON object per line
    Jsonl,
    /// A JSON array of objects, or one object per line
    Json,
    /// Comma-separated values
    Csv,
    /// Tab-separated values
    Tsv,
    /// A Parquet table
    Parquet,
    /// GSM8K word problems as JSON lines: question and answer, without the calculator's `<<…>>`
    Gsm8k,
}

impl From<Container> for Format {
    fn from(container: Container) -> Self {
        match container {
            Container::Text => Self::Text,
            Container::Jsonl => Self::Jsonl,
            Container::Json => Self::Json,
            Container::Csv => Self::Csv,
            Container::Tsv => Self::Tsv,
            Container::Parquet => Self::Parquet,
            Container::Gsm8k => Self::Gsm8k,
        }
    }
}

/// How files of any format are read.
#[derive(clap::Args)]
pub struct ReadArgs {
    /// JSON key or table column that contains the text [default: text]
    #[arg(long)]
    pub key: Option<String>,
    /// Skip malformed lines and records, naming and counting them, instead of stopping at the first
    #[arg(long)]
    pub skip_malformed: bool,
}

impl ReadArgs {
    /// The options of the library; without a format, each file's name or content decides.
    pub fn options(&self, format: Option<Format>) -> ReadOptions {
        let malformed = if self.skip_malformed { Malformed::Skip } else { Malformed::Refuse };
        ReadOptions { format, key: self.key.clone(), malformed }
    }
}

/// A number of malformed records, for people.
pub fn malformed_records(count: u64) -> String {
    format!("{count} malformed record{}", if count == 1 { "" } else { "s" })
}

/// A bar over what is read; notices about skipped parts and files on stderr.
pub struct Reading {
    bar: ProgressBar,
    skipped: u64,
    ignored: u64,
}

impl Reading {
    pub fn new() -> Self {
        let template = "{bytes}/{total_bytes} {bytes_per_sec} ETA {eta}";
        Self { bar: crate::progress_bar(0, template), skipped: 0, ignored: 0 }
    }

    /// Shows a reader's report.
    pub fn see(&mut self, notice: Notice) {
        match notice {
            Notice::Read { done, total } => {
                self.bar.set_length(total);
                self.bar.set_position(done);
            }
            Notice::Skipped(error) => self.skip(&error),
            Notice::Guessed { path, format } => {
                self.line(&format!(
                    "{}: read as {format}, detected from its content",
                    path.display()
                ));
            }
            Notice::TextColumns { path, columns } => {
                let path = path.display();
                self.line(&match &*columns {
                    [column] => format!("{path}: column `{column}` is read as text"),
                    _ => format!("{path}: columns {} are read as text", columns.join(" and ")),
                });
            }
            Notice::Ignored(path) => self.ignore(&path),
        }
    }

    /// Names a part that is skipped.
    pub fn skip(&mut self, error: &ltm_train::data::Error) {
        self.skipped += 1;
        if self.skipped <= NAMED {
            self.line(&format!("skipped: {error}"));
        }
    }

    fn ignore(&mut self, path: &Path) {
        self.ignored += 1;
        if self.ignored <= NAMED {
            self.line(&format!("skipped: {}: unknown file format", path.display()));
        }
    }

    fn line(&self, text: &str) {
        self.bar.suspend(|| note!("{text}"));
    }

    /// Removes the bar, reports how many parts and files were skipped, and returns the number of parts.
    pub fn finish(self) -> u64 {
        self.bar.finish_and_clear();
        if self.ignored > NAMED {
            note!("skipped: {} files in total", self.ignored);
        }
        if self.skipped > 0 {
            note!("skipped: {} in total", malformed_records(self.skipped));
        }
        self.skipped
    }
}
