//! Reads at a position of a file that several threads share. A file that was cut short since it was opened gives an
//! error here, where a memory map would end the process with SIGBUS.

use std::fs::File;
use std::io;

/// Fills `buffer` from byte `offset` on; [`io::ErrorKind::UnexpectedEof`] when the file ends before.
#[cfg(unix)]
pub(super) fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

/// Fills `buffer` from byte `offset` on; [`io::ErrorKind::UnexpectedEof`] when the file ends before.
#[cfg(windows)]
pub(super) fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                buffer = &mut buffer[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills `buffer` from byte `offset` on; [`io::ErrorKind::UnexpectedEof`] when the file ends before. These targets have
/// no positioned reads; one thread at a time moves the file's position.
#[cfg(not(any(unix, windows)))]
pub(super) fn read_exact_at(mut file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    use std::io::{Read, Seek};
    use std::sync::{Mutex, PoisonError};
    static POSITION: Mutex<()> = Mutex::new(());
    let _alone = POSITION.lock().unwrap_or_else(PoisonError::into_inner);
    file.seek(io::SeekFrom::Start(offset))?;
    file.read_exact(buffer)
}
