//! Launch reports: one JSON object per line, for tools that evaluate kernels by their counters.
//!
//! Must not know what the counters mean.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use super::code::{Code, Outcome};
use crate::{Counters, LaunchConfig};

/// Appends the report of a launch to a file. A single write in append mode keeps lines of several
/// processes from mixing.
pub(super) fn append(
    path: &Path,
    kernel: &str,
    config: &LaunchConfig,
    is_capped: bool,
    counters: &Counters,
) -> Outcome<()> {
    let line = line(kernel, config, is_capped, counters);
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(line.as_bytes())).map_err(|error| {
        Code::OperatingSystem.because(format!("cannot append to {}: {error}", path.display()))
    })
}

fn line(kernel: &str, config: &LaunchConfig, is_capped: bool, counters: &Counters) -> String {
    // A PTX name has only letters, digits, `_`, `$` and `%`, none of which need escaping in JSON.
    format!(
        "{{\"kernel\":\"{kernel}\",\"grid\":{},\"block\":{},\"shared_bytes\":{},\
         \"capped\":{is_capped},\"occupancy\":{},\"counters\":{}}}\n",
        triple(config.grid),
        triple(config.block),
        config.dynamic_shared_bytes,
        counters.occupancy.map_or_else(|| "null".into(), |occupancy| occupancy.to_json()),
        counters.to_json()
    )
}

fn triple([x, y, z]: [u32; 3]) -> String {
    format!("[{x},{y},{z}]")
}
