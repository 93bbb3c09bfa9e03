//! `cargo xtask bench [op]`: hands over to the criterion benches of `benches/`.

use anyhow::{Context, Result, ensure};

use crate::{cargo, exec, root};

/// Times every op, or those benches whose name matches `filter` (`matmul`, `matmul/fwd`).
pub fn run(filter: Option<&str>) -> Result<()> {
    let mut args = vec!["bench", "--package", "ltm-bench", "--bench", "ops"];
    if let Some(filter) = filter {
        // Criterion says nothing when a filter matches nothing.
        let op = filter.split('/').next().unwrap_or(filter);
        let ops = benched_ops()?;
        ensure!(
            ops.iter().any(|known| known == op),
            "no bench for `{op}`; there are: {}",
            ops.join(" ")
        );
        args.extend(["--", filter]);
    }
    exec(&mut cargo(args))
}

/// The ops with a file in `benches/ops/`, in order of name.
fn benched_ops() -> Result<Vec<String>> {
    let folder = root().join("benches/ops");
    let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut ops = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if let Some(op) = path.file_stem().and_then(|stem| stem.to_str())
            && op != "main"
        {
            ops.push(op.to_owned());
        }
    }
    ops.sort();
    Ok(ops)
}
