//! Opens a tokenizer from its record. Encodes nothing.

use std::path::Path;
use std::sync::Arc;

use super::{Bytes, SharedTokenizer, TokenizerSpec, Words, check, gpt2, gpt2_subset, json};
use crate::{Error, Result};

impl TokenizerSpec {
    /// The tokenizer, whose file is relative to `dir`.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is missing, was changed or is not a tokenizer, and for a tokenizer that only the
    /// program has; [`Error::Field`] for an invalid word list and for a tokenizer that this build lacks.
    pub fn open(&self, dir: &Path) -> Result<SharedTokenizer> {
        let tokenizer = match self {
            Self::Bytes => Arc::new(Bytes),
            Self::Gpt2 => gpt2()?,
            Self::Gpt2Subset { ids } => gpt2_subset(ids)?,
            Self::Words { vocabulary } => Arc::new(Words::new(vocabulary.clone())?),
            Self::Json { file, sha256, separator } => {
                let path = dir.join(file);
                let found = json(&path, separator.as_deref())?;
                if let (Some(recorded), Self::Json { sha256: Some(is), .. }) =
                    (sha256, found.spec())
                    && is != *recorded
                {
                    let expected = format!("{recorded}, as recorded");
                    let found = format!("{is}; the file was changed");
                    return Err(Error::content(&path, "SHA-256", expected, found));
                }
                found
            }
            Self::Other { fingerprint } => {
                let expected = "one given by the program";
                let found = format!("none for `{fingerprint}`");
                return Err(Error::content(dir, "tokenizer", expected, found));
            }
        };
        check(&*tokenizer)?;
        Ok(tokenizer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::TOKENIZER_FILE;

    #[test]
    fn what_cannot_be_opened_is_named() {
        let dir = Path::new("/no/folder");
        for (spec, part) in [
            (TokenizerSpec::Words { vocabulary: vec![] }, "`vocabulary`"),
            (TokenizerSpec::Other { fingerprint: "own 1".into() }, "found none for `own 1`"),
            (
                TokenizerSpec::Json { file: TOKENIZER_FILE.into(), sha256: None, separator: None },
                "tokenizer.json",
            ),
        ] {
            let error = spec.open(dir).expect_err("cannot be opened").to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
