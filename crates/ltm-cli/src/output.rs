//! Everything that the command prints: results, messages, progress, and how it ends. A tidy rule forbids
//! `println!` and its like everywhere else in this crate.
//!
//! - A reader that closes standard output (`ltm … | head -1`) ends printing quietly, exit status 0, as ripgrep does.
//! - Any other error of standard output, such as a full disk, is an `error: …`, exit status 1.
//! - Standard error carries messages and progress; when it cannot be written, work continues without them.

#[macro_use]
mod stream;
mod progress;

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::OnceLock;

pub use self::progress::{progress_bar, progress_bars};
pub use self::stream::{OutputError, write_line, write_note};

/// Arguments that contradict each other, or that do not suit the data; exit status 2.
#[derive(Debug)]
struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// An error about the arguments.
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    UsageError(message.into()).into()
}

/// An error of the library, with the option whose value it names.
pub fn as_option(error: ltm_eval::Error) -> anyhow::Error {
    match error {
        // Keys of a configuration have a section.
        ltm_eval::Error::Field { field, expected, found } if !field.contains('.') => {
            usage(format!("--{}: expected {expected}, found {found}", field.replace('_', "-")))
        }
        error => error.into(),
    }
}

/// This process and the number of processes, where a launcher started several.
static RANK: OnceLock<(usize, usize)> = OnceLock::new();

/// Says which of how many processes this is: its errors name it, and only the first says what all do.
pub fn set_rank(rank: usize, size: usize) {
    let _ = RANK.set((rank, size));
}

/// Whether this process speaks for all.
pub fn is_first() -> bool {
    RANK.get().is_none_or(|(rank, _)| *rank == 0)
}

/// A number for people: `n/a` for NaN, and an exponent where digits would not end.
pub fn number(value: f64, decimals: usize) -> String {
    if value.is_nan() {
        "n/a".into()
    } else if value.is_finite() && value.abs() >= 1e7 {
        format!("{value:.decimals$e}")
    } else {
        format!("{value:.decimals$}")
    }
}

/// A mean with its standard error, for people.
pub fn plus_minus((mean, error): (f64, f64), decimals: usize) -> String {
    if mean.is_nan() {
        return "n/a".into();
    }
    format!("{} ± {}", number(mean, decimals), number(error, decimals))
}

/// Prints the error of a verb, if there is one that matters, and picks the exit status: 0 done, 1
/// failed, 2 wrong usage or configuration.
pub fn finish(result: anyhow::Result<ExitCode>) -> ExitCode {
    let error = match result.and_then(|code| Ok(flush().map(|()| code)?)) {
        Ok(code) => return code,
        Err(error) if reader_left(&error) => return ExitCode::SUCCESS,
        Err(error) => error,
    };
    match RANK.get() {
        Some((rank, 2..)) => note!("rank {rank}: error: {error:#}"),
        _ => note!("error: {error:#}"),
    }
    let is_usage = error.chain().any(|cause| {
        use ltm_eval::Error as OfEval;
        use ltm_train::{Error as OfRun, data::Error as OfData};
        let of_eval = |e: &OfEval| matches!(e, OfEval::Config { .. } | OfEval::Field { .. });
        let of_run = |e: &OfRun| matches!(e, OfRun::Config { .. } | OfRun::Field { .. });
        let of_data = |e: &OfData| matches!(e, OfData::Field { .. });
        cause.is::<UsageError>()
            || cause.downcast_ref().is_some_and(of_eval)
            || cause.downcast_ref().is_some_and(of_run)
            || cause.downcast_ref().is_some_and(of_data)
    });
    ExitCode::from(if is_usage { 2 } else { 1 })
}

/// Prints what clap has to show in place of running a verb: help and the version on standard output, or a
/// mistake in the arguments on standard error.
pub fn finish_parsing(shown: &clap::Error) -> ExitCode {
    if shown.use_stderr() {
        // No stream is left to report to.
        let _ = shown.print();
        return ExitCode::from(2);
    }
    let printed = shown.print().map_err(OutputError).and_then(|()| flush());
    finish(printed.map(|()| ExitCode::SUCCESS).map_err(Into::into))
}

/// Writes what standard output still buffers.
fn flush() -> Result<(), OutputError> {
    io::stdout().flush().map_err(OutputError)
}

/// Whether an error only means that the reader of standard output, such as `head`, has left.
fn reader_left(error: &anyhow::Error) -> bool {
    let closed = |e: &OutputError| e.0.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(closed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        for (value, shown) in [
            (1.25, "1.250"),
            (f64::NAN, "n/a"),
            (f64::INFINITY, "inf"),
            (-9_999_999.0, "-9999999.000"),
            (1e7, "1.000e7"),
            (f64::MAX, "1.798e308"),
        ] {
            assert_eq!(number(value, 3), shown);
        }
        assert_eq!(plus_minus((1.0, 0.5), 2), "1.00 ± 0.50");
        assert_eq!(plus_minus((1.0, f64::NAN), 2), "1.00 ± n/a");
        assert_eq!(plus_minus((f64::NAN, f64::NAN), 2), "n/a");
    }

    #[test]
    fn a_reader_that_left_is_told_from_a_full_disk() {
        let error = |kind: io::ErrorKind| {
            anyhow::Error::from(OutputError(kind.into())).context("printing the table")
        };
        assert!(reader_left(&error(io::ErrorKind::BrokenPipe)));
        assert!(!reader_left(&error(io::ErrorKind::StorageFull)));
        let elsewhere = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(!reader_left(&elsewhere), "another file's pipe");
        let full = anyhow::Error::from(OutputError(io::Error::other("disk full")));
        assert_eq!(format!("{full:#}"), "cannot write to standard output: disk full");
    }
}
