//! Published test sets with their own protocols, and statistics of texts. They train nothing and print nothing.

pub mod generation;
pub mod gsm8k;
pub mod lambada;
pub mod stories;

use std::path::Path;

use ltm_train::data::Format;
use serde::Serialize;

use crate::Result;

/// A test set with a protocol of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// The last words of passages: [`lambada`].
    Lambada,
    /// Word problems: [`gsm8k`].
    Gsm8k,
}

impl Suite {
    /// The test set that a file of JSON contains, by its name or its first object; `None` for other text.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) when it cannot be read.
    pub fn of_file(path: &Path) -> Result<Option<Self>> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("").to_lowercase();
        Ok(match Format::of_name(path) {
            Some(Format::Jsonl | Format::Json) if name.contains("lambada") => Some(Self::Lambada),
            Some(Format::Jsonl | Format::Json) if gsm8k::is_gsm8k(path)? => Some(Self::Gsm8k),
            _ => None,
        })
    }
}

/// A mean over independent parts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mean {
    /// The mean; NaN of nothing.
    pub mean: f64,
    /// Standard error of `mean`; NaN of fewer than two values.
    pub standard_error: f64,
    /// Number of values.
    pub count: usize,
}

impl Mean {
    /// The mean of `values` and its standard error, `sqrt(sum((v - mean)²)/(n·(n-1)))`.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let standard_error =
            if values.len() < 2 { f64::NAN } else { (squares / (n * (n - 1.0))).sqrt() };
        Self { mean, standard_error, count: values.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_set_is_known_by_its_name_or_its_first_object() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let problem = r#"{"question": "1 + 1?", "answer": "It is #### 2"}"#;
        for (name, text, expected) in [
            ("Lambada-test.jsonl", r#"{"text": "a b"}"#, Some(Suite::Lambada)),
            ("lambada.txt", "a b", None),
            ("test.jsonl", problem, Some(Suite::Gsm8k)),
            ("test.json", r#"{"text": "a b"}"#, None),
            ("test.txt", problem, None),
        ] {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("written");
            assert_eq!(Suite::of_file(&path).expect("read"), expected, "{name}");
        }
    }

    #[test]
    fn a_mean_and_its_error_by_hand() {
        // Deviations -2, 0, 2: sqrt(8/(3·2)).
        let found = Mean::of(&[1.0, 3.0, 5.0]);
        assert_eq!((found.mean, found.count), (3.0, 3));
        assert!((found.standard_error - (8.0_f64 / 6.0).sqrt()).abs() <= 1e-15);
        let single = Mean::of(&[2.0]);
        assert!(single.mean == 2.0 && single.standard_error.is_nan());
        assert!(Mean::of(&[]).mean.is_nan());
    }
}
