//! A folder with one writer, and a file in it that is whole or absent: `cargo run -p ltm-files --example one_writer`.

use std::fs;
use std::io::Write;

use ltm_files::{AtomicFile, Error, FolderLock, write_whole};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let report = folder.path().join("report.txt");

    let lock = FolderLock::acquire(folder.path())?;
    write_whole(&report, b"first version\n")?;
    // Another writer is refused, and told by whom. The lock of a process that died is free.
    match FolderLock::acquire(folder.path()) {
        Err(error @ Error::Locked { .. }) => println!("{error}"),
        other => panic!("{other:?}"),
    }

    // A longer file is written in parts; until the last, readers see the first version.
    let mut file = AtomicFile::create(&report)?;
    writeln!(file, "second version")?;
    assert_eq!(fs::read_to_string(&report)?, "first version\n");
    file.finish()?.publish()?;
    assert_eq!(fs::read_to_string(&report)?, "second version\n");

    // A writer that fails leaves neither half a file nor a temporary one.
    drop(AtomicFile::create(&report)?);
    drop(lock);
    let names = fs::read_dir(folder.path())?.map(|entry| Ok(entry?.file_name()));
    println!("left: {:?}", names.collect::<std::io::Result<Vec<_>>>()?);
    Ok(())
}

#[test]
fn runs() {
    main().expect("a good example");
}
