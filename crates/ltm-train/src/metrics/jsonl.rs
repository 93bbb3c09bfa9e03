//! Files of one JSON object per line, appended to; `metrics.jsonl` continues where a run resumes.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::line::{Line, no_line};
use crate::{Error, Result};

/// Appends objects to a file, each whole line with one write.
#[derive(Debug)]
pub struct JsonlWriter {
    path: PathBuf,
    file: File,
}

impl JsonlWriter {
    /// Starts a file, emptying one that exists.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be created.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(Error::io(path, "create"))?;
        Ok(Self { path: path.into(), file })
    }

    /// Starts a file in the place of a file or link that exists; a link is not followed.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be created.
    pub(crate) fn replace(path: &Path) -> Result<Self> {
        let replaced = std::fs::symlink_metadata(path)
            .is_ok_and(|found| found.is_file() || found.is_symlink());
        if replaced {
            std::fs::remove_file(path).map_err(Error::io(path, "replace"))?;
        }
        let file = File::create_new(path).map_err(Error::io(path, "create"))?;
        Ok(Self { path: path.into(), file })
    }

    /// Continues the `metrics.jsonl` of a run that resumes after `step`: lines of later steps are cut off, as is a last
    /// line that was not finished. A run that has taken no step may have no file.
    ///
    /// # Errors
    /// [`Error::File`] when the last line that is kept is not of `step`, or a line is no [`Line`], or the file cannot be
    /// read or written. It is then unchanged.
    pub fn resume(path: &Path, step: u64) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(step == 0);
        let file = options.open(path).map_err(Error::io(path, "open"))?;
        let keep = resumable(path, &file, step)?;
        file.set_len(keep).map_err(Error::io(path, "cut"))?;
        Ok(Self { path: path.into(), file })
    }

    /// Whether [`JsonlWriter::resume`] would continue the file. Changes nothing.
    ///
    /// # Errors
    /// Those of [`JsonlWriter::resume`].
    pub(crate) fn check(path: &Path, step: u64) -> Result<()> {
        match OpenOptions::new().read(true).append(true).open(path) {
            Err(error) if step == 0 && error.kind() == ErrorKind::NotFound => Ok(()),
            file => {
                let file = file.map_err(Error::io(path, "open"))?;
                resumable(path, &file, step).map(|_| ())
            }
        }
    }

    /// Makes what was appended last, even if power fails.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io(&self.path, "sync"))
    }

    /// Appends one object. Numbers that are not finite become `null`, which is JSON's way.
    ///
    /// # Errors
    /// [`Error::Field`] when `object` does not serialise; [`Error::File`] when it cannot be written.
    pub fn append(&mut self, object: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(object)
            .map_err(|error| Error::field("metrics", "an object that serialises", error))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(Error::io(&self.path, "write"))
    }
}

/// How many bytes of a file are kept when a run resumes after `step`; an error where the last kept line is not of `step`.
fn resumable(path: &Path, file: &File, step: u64) -> Result<u64> {
    let (keep, last) = kept(path, file, step)?;
    if last != step {
        let expected = format!("{step}, the step of the checkpoint; lines are missing");
        return Err(Error::content(path, "last step", expected, last.to_string()));
    }
    Ok(keep)
}

/// Where the first line after `step` starts, or the unfinished one, and the step of the line before it; 0 without one.
fn kept(path: &Path, file: &File, step: u64) -> Result<(u64, u64)> {
    let mut reader = BufReader::new(file);
    let (mut line, mut kept, mut last) = (Vec::new(), 0, 0);
    for number in 1.. {
        line.clear();
        let bytes = reader.read_until(b'\n', &mut line).map_err(Error::io(path, "read"))?;
        if !line.ends_with(b"\n") {
            break;
        }
        let read = Line::parse(&line).map_err(no_line(path, number))?.step();
        if read > step {
            break;
        }
        kept += bytes as u64;
        last = read;
    }
    Ok((kept, last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    fn log(writer: &mut JsonlWriter, steps: std::ops::RangeInclusive<u64>) {
        for step in steps {
            writer.append(&json!({"step": step, "loss": 1.0 / step as f64})).expect("written");
        }
    }

    #[test]
    fn resuming_equals_never_stopping() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let [straight, resumed] = ["a", "b"].map(|name| dir.path().join(name));
        log(&mut JsonlWriter::create(&straight).expect("created"), 1..=9);
        // The checkpoint is of step 5, the run went on to 7 and broke off while it wrote.
        let mut writer = JsonlWriter::create(&resumed).expect("created");
        log(&mut writer, 1..=7);
        writer.file.write_all(b"{\"step\": 8, \"lo").expect("written");
        drop(writer);
        log(&mut JsonlWriter::resume(&resumed, 5).expect("resumed"), 6..=9);
        assert_eq!(fs::read(&straight).expect("there"), fs::read(&resumed).expect("there"));
    }

    #[test]
    fn an_unfinished_line_is_removed_and_does_not_count() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a");
        fs::write(&path, "{\"step\":1}\n{\"step\":2}").expect("written");
        drop(JsonlWriter::resume(&path, 1).expect("resumed"));
        assert_eq!(fs::read_to_string(&path).expect("there"), "{\"step\":1}\n");
    }

    #[test]
    fn a_file_that_does_not_reach_the_checkpoint_is_refused_and_unchanged() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a");
        log(&mut JsonlWriter::resume(&path, 0).expect("started"), 1..=4);
        for (text, step, parts) in [
            ("{\"step\":1}\nhello\n{\"step\":2}\n", 2, ["line 2", "`step`"]),
            ("{\"step\":1}\n{\"step\":2}\n{\"step\":3", 3, ["last step", "found 2"]),
            ("{\"step\":1}\n{\"step\":5}\n", 3, ["last step", "found 1"]),
            ("", 3, ["last step", "found 0"]),
        ] {
            fs::write(&path, text).expect("written");
            let check = JsonlWriter::check(&path, step).expect_err(text).to_string();
            let error = JsonlWriter::resume(&path, step).expect_err(text).to_string();
            assert_eq!(check, error);
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
            assert_eq!(fs::read_to_string(&path).expect("there"), text);
        }
        fs::remove_file(&path).expect("removable");
        assert!(JsonlWriter::resume(&path, 3).is_err() && !path.exists());
    }

    #[test]
    fn only_a_run_without_steps_may_lack_the_file() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let missing = dir.path().join("a");
        JsonlWriter::check(&missing, 0).expect("nothing to continue");
        let error = JsonlWriter::check(&missing, 1).expect_err("lost").to_string();
        assert!(error.contains("open") && !missing.exists(), "{error}");
        let error = JsonlWriter::check(dir.path(), 0).expect_err("a folder").to_string();
        assert!(error.contains("open"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_replaced_and_its_target_stays() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let [path, target] = ["a", "mine"].map(|name| dir.path().join(name));
        fs::write(&target, "precious").expect("written");
        std::os::unix::fs::symlink(&target, &path).expect("linkable");
        log(&mut JsonlWriter::replace(&path).expect("created"), 1..=1);
        assert_eq!(fs::read_to_string(&target).expect("there"), "precious");
        assert!(fs::symlink_metadata(&path).expect("there").is_file());
    }

    #[test]
    fn numbers_that_are_not_finite_stay_readable() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a");
        let line = std::collections::BTreeMap::from([("loss", f64::NAN)]);
        JsonlWriter::create(&path).and_then(|mut writer| writer.append(&line)).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("there"), "{\"loss\":null}\n");
    }
}
