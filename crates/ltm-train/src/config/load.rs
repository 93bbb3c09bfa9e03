//! From a file to a checked configuration: overrides, the vocabulary of the data, errors with the file's name.

use std::io::Read;
use std::path::Path;

use super::{Config, DataConfig, read};
use crate::data::Tokenizer;
use crate::{Error, Result};

/// Bytes of a configuration file. A device may never end.
const LONGEST_FILE: u64 = 1 << 20;

impl Config {
    /// Reads a file, applies `section.key=value` overrides and defaults, and checks the result. The vocabulary
    /// size follows the data wherever the data is known.
    ///
    /// # Errors
    /// [`Error::File`] for a file that cannot be read, [`Error::Config`] with file and key for anything in it that
    /// cannot work.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self> {
        Self::parse(&read_text(path)?, path, overrides)
    }

    /// As [`Config::load`] for the resolved file of a run or a checkpoint: its vocabulary and its schedule are
    /// taken as they are.
    ///
    /// # Errors
    /// Those of [`Config::load`].
    pub fn load_resolved(path: &Path, overrides: &[String]) -> Result<Self> {
        Self::parse_resolved(&read_text(path)?, path, overrides)
    }

    /// As [`Config::load_resolved`], with the file's text given; errors name `path`.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn parse_resolved(text: &str, path: &Path, overrides: &[String]) -> Result<Self> {
        Self::from_table(read::table(text, path, overrides)?, path)
    }

    /// As [`Config::load`], with the file's text given; errors name `path`.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn parse(text: &str, path: &Path, overrides: &[String]) -> Result<Self> {
        let fail = |reason: String| Error::Config { path: path.into(), reason };
        let table = read::table(text, path, overrides)?;
        let data: DataConfig = read::section(&table, "data").map_err(fail)?;
        data.check_source().map_err(in_file(path))?;
        let tokenizer = data.tokenizer().map_err(|e| {
            fail(format!("`data.path`: {}", crate::error::chain(&e).escape_debug()))
        })?;
        let model = table.get("model").and_then(toml::Value::as_table);
        let is_sized = model.is_none_or(|model| model.contains_key("vocab_size"));
        if let (None, Some(dir), false) = (&tokenizer, &data.path, is_sized) {
            return Err(fail(format!(
                "`data.path`: expected a folder with a meta.json, as `ltm data prepare` writes it, found {dir:?}"
            )));
        }
        Self::for_words(table, path, overrides, tokenizer.map(|tokenizer| tokenizer.vocab_size()))
    }

    /// As [`Config::parse`], for data of the program's own over `tokenizer`, such as a corpus in memory: the vocabulary is
    /// that of `tokenizer`, and `[data]` may be omitted.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn parse_for(
        tokenizer: &dyn Tokenizer,
        text: &str,
        path: &Path,
        overrides: &[String],
    ) -> Result<Self> {
        let table = read::table(text, path, overrides)?;
        Self::for_words(table, path, overrides, Some(tokenizer.vocab_size()))
    }

    /// The configuration of a table, with the model's vocabulary that of a tokenizer with `words` ids.
    fn for_words(
        mut table: toml::Table,
        path: &Path,
        overrides: &[String],
        words: Option<usize>,
    ) -> Result<Self> {
        if let (Some(model), Some(words)) =
            (table.get_mut("model").and_then(toml::Value::as_table_mut), words)
        {
            let attention = model.get("attention").and_then(toml::Value::as_str);
            let masks = usize::from(attention == Some("bidirectional"));
            model.insert("vocab_size".into(), ((words + masks) as i64).into());
        }
        let config = Self::from_table(table, path)?;
        config.check_schedule(overrides).map_err(in_file(path))?;
        Ok(config)
    }

    fn from_table(table: toml::Table, path: &Path) -> Result<Self> {
        let fail = |reason: String| Error::Config { path: path.into(), reason };
        read::check_required(&table).map_err(fail)?;
        let mut config = Self {
            run: read::section(&table, "run").map_err(fail)?,
            data: read::section(&table, "data").map_err(fail)?,
            model: read::section(&table, "model").map_err(fail)?,
            infer: read::section(&table, "infer").map_err(fail)?,
            train: read::section(&table, "train").map_err(fail)?,
        };
        config.model = config.model.resolved();
        config.validate().map_err(in_file(path))?;
        Ok(config)
    }
}

/// The text of a configuration file.
///
/// # Errors
/// [`Error::File`] when it cannot be read, [`Error::Config`] when it is not UTF-8 or unusually long.
pub fn read_text(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LONGEST_FILE + 1).read_to_end(&mut bytes))
        .map_err(Error::io(path, "read"))?;
    if bytes.len() as u64 > LONGEST_FILE {
        let reason =
            format!("expected a configuration of at most {LONGEST_FILE} bytes, found more");
        return Err(Error::Config { path: path.into(), reason });
    }
    String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].split(|b| *b == b'\n').count();
        let reason = format!("line {line}: expected UTF-8 text, found other bytes");
        Error::Config { path: path.into(), reason }
    })
}

/// For `map_err`: an error of a field as one of the file that sets it.
fn in_file(path: &Path) -> impl FnOnce(Error) -> Error + '_ {
    move |error| match error {
        Error::Config { reason, .. } => Error::Config { path: path.into(), reason },
        other => Error::Config { path: path.into(), reason: crate::error::chain(&other) },
    }
}
