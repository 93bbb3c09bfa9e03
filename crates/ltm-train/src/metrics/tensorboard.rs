//! TensorBoard event files with scalars, written by hand: records framed as in TFRecord files, each holding
//! an `Event` message of <https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/util/event.proto>.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ltm_files::create_dir;

use crate::{Error, Result};

const FILE_PREFIX: &str = "events.out.tfevents.";

/// Appends scalars to an event file.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventWriter {
    /// Starts a new event file in `dir` for a run that has taken `done` steps. TensorBoard joins the files of a folder
    /// into one run; the file starts with an event that makes it drop later steps of earlier files.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be created.
    pub fn create(dir: &Path, done: u64) -> Result<Self> {
        create_dir(dir)?;
        // TensorBoard reads the files in the order of their names, which must not follow a clock that was set back.
        let seconds = latest(dir)?.max(wall_time() as u64);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        for suffix in 0_u64.. {
            let path = dir.join(format!("{FILE_PREFIX}{seconds:010}.ltm.{suffix:03}"));
            match options.open(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                opened => {
                    let file = BufWriter::new(opened.map_err(Error::io(&path, "create"))?);
                    let mut writer = Self { path, file };
                    writer.write(&version_event(wall_time()))?;
                    writer.write(&start_event(wall_time(), done + 1))?;
                    return Ok(writer);
                }
            }
        }
        unreachable!("some suffix is free")
    }

    /// Appends the value that `tag` has at `step`.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be written.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f64) -> Result<()> {
        self.write(&scalar_event(wall_time(), step, tag, value as f32))
    }

    /// Hands what was appended to the operating system, so that a running TensorBoard sees it.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(Error::io(&self.path, "write"))
    }

    fn write(&mut self, event: &[u8]) -> Result<()> {
        self.file.write_all(&record(event)).map_err(Error::io(&self.path, "write"))
    }
}

/// The largest time in the name of an event file; 0 without one.
fn latest(dir: &Path) -> Result<u64> {
    let mut latest = 0;
    for entry in std::fs::read_dir(dir).map_err(Error::io(dir, "list"))? {
        let name = entry.map_err(Error::io(dir, "list"))?.file_name();
        let time = name.to_str().and_then(|name| name.strip_prefix(FILE_PREFIX));
        let time = time.and_then(|time| time.get(..10)?.parse().ok());
        latest = latest.max(time.unwrap_or(0));
    }
    Ok(latest)
}

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// Frames data: its length, the length's checksum, the data, its checksum; all little-endian.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let (length_crc, data_crc) =
        (masked_crc(&length).to_le_bytes(), masked_crc(data).to_le_bytes());
    [&length[..], &length_crc, data, &data_crc].concat()
}

/// CRC-32C, rotated and offset so that a checksum of data with checksums in it stays a good one.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// `Event { wall_time = 1, file_version = 3 }`.
fn version_event(wall_time: f64) -> Vec<u8> {
    let mut event = Vec::new();
    put_fixed(&mut event, 1, &wall_time.to_le_bytes());
    put_bytes(&mut event, 3, b"brain.Event:2");
    event
}

/// `Event { wall_time = 1, step = 2, session_log = 7 { status = 1: START } }`, which voids earlier events of `step` and
/// later.
fn start_event(wall_time: f64, step: u64) -> Vec<u8> {
    let mut event = Vec::new();
    put_fixed(&mut event, 1, &wall_time.to_le_bytes());
    put_varint(&mut event, 2 << 3);
    put_varint(&mut event, step);
    put_bytes(&mut event, 7, &[1 << 3, 1]);
    event
}

/// `Event { wall_time = 1, step = 2, summary = 5 { value = 1 { tag = 1, simple_value = 2 } } }`.
fn scalar_event(wall_time: f64, step: u64, tag: &str, value: f32) -> Vec<u8> {
    let (mut scalar, mut summary, mut event) = (Vec::new(), Vec::new(), Vec::new());
    put_bytes(&mut scalar, 1, tag.as_bytes());
    put_fixed(&mut scalar, 2, &value.to_le_bytes());
    put_bytes(&mut summary, 1, &scalar);
    put_fixed(&mut event, 1, &wall_time.to_le_bytes());
    put_varint(&mut event, 2 << 3);
    put_varint(&mut event, step);
    put_bytes(&mut event, 5, &summary);
    event
}

/// A protobuf field of 8 (wire type 1) or 4 bytes (wire type 5).
fn put_fixed(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, (field << 3) | if bytes.len() == 8 { 1 } else { 5 });
    out.extend_from_slice(bytes);
}

/// A protobuf field of any length (wire type 2).
fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, (field << 3) | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts a file into the data of its records, checking every frame.
    fn records(mut file: &[u8]) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        while !file.is_empty() {
            let length = u64::from_le_bytes(file[..8].try_into().expect("8 bytes"));
            let end = 12 + length as usize;
            let crc = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("4 bytes"));
            assert_eq!((crc(8), crc(end)), (masked_crc(&file[..8]), masked_crc(&file[12..end])));
            records.push(file[12..end].to_vec());
            file = &file[end + 4..];
        }
        records
    }

    #[test]
    fn checksums_are_the_published_ones() {
        // The check value of CRC-32C, and the first twelve bytes of every TensorBoard event file.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        let start = record(&version_event(1.5e9));
        assert_eq!(start[..12], [24, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22]);
    }

    #[test]
    fn events_have_the_published_encoding() {
        let event = scalar_event(1.0, 300, "loss", 0.5);
        let expected = [
            &[0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 0xac, 0x02, 0x2a, 13, 0x0a, 11][..],
            &[0x0a, 4, b'l', b'o', b's', b's', 0x15, 0, 0, 0, 0x3f],
        ];
        assert_eq!(event, expected.concat());
    }

    #[test]
    fn a_file_reads_back_and_a_second_one_does_not_replace_it() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for _ in 0..2 {
            let mut writer = EventWriter::create(dir.path(), 0).expect("created");
            writer.scalar("train/loss", 1, 2.5).expect("written");
            writer.scalar("train/loss", u64::MAX, f64::NAN).expect("written");
            writer.flush().expect("flushed");
            let found = records(&std::fs::read(&writer.path).expect("there"));
            assert_eq!(found.len(), 4);
            assert!(found[0].ends_with(b"brain.Event:2"));
            assert!(found[2].windows(10).any(|bytes| bytes == b"train/loss"));
            assert!(found[2].ends_with(&2.5_f32.to_le_bytes()));
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("listable").count(), 2);
    }

    /// Step and kind of an event: field 2, and 5 for a summary or 7 for a session log.
    fn step_and_kind(event: &[u8]) -> (u64, u64) {
        let (mut at, mut step, mut kind) = (0, 0, 0);
        let varint = |at: &mut usize| {
            let (mut value, mut shift) = (0, 0);
            loop {
                let byte = event[*at];
                *at += 1;
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    return value;
                }
            }
        };
        while at < event.len() {
            let key = varint(&mut at);
            match key & 7 {
                0 => step = varint(&mut at),
                1 => at += 8,
                _ => {
                    kind = key >> 3;
                    at += varint(&mut at) as usize;
                }
            }
        }
        (step, kind)
    }

    /// What TensorBoard shows of a folder's files: a session that starts at a step voids that step and later ones.
    fn shown(dir: &Path) -> Vec<u64> {
        let mut files: Vec<_> = std::fs::read_dir(dir)
            .expect("listable")
            .map(|entry| entry.expect("readable").path())
            .collect();
        files.sort();
        let mut steps = Vec::new();
        for file in files {
            for event in records(&std::fs::read(file).expect("readable")) {
                match step_and_kind(&event) {
                    (step, 7) => steps.retain(|shown| *shown < step),
                    (step, 5) => steps.push(step),
                    _ => {}
                }
            }
        }
        steps
    }

    #[test]
    fn after_a_resume_each_step_is_shown_once() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path();
        // A clock that was ahead, and more sessions within a second than one digit counts.
        let ahead = wall_time() as u64 + 1000;
        std::fs::write(path.join(format!("{FILE_PREFIX}{ahead:010}.ltm.0")), "").expect("writable");
        for (done, last) in [(0, 7), (5, 9), (9, 12), (12, 12), (3, 6)]
            .into_iter()
            .chain((6..14).map(|done| (done, done + 2)))
        {
            let mut writer = EventWriter::create(path, done).expect("created");
            for step in done + 1..=last {
                writer.scalar("train/loss", step, 1.0).expect("written");
            }
            writer.flush().expect("flushed");
            assert_eq!(shown(path), (1..=last).collect::<Vec<_>>(), "after {done}");
        }
    }
}
