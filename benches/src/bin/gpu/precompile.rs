//! Fills the kernel cache for an architecture, so that the first run on such a device does not compile. Needs no device.

use anyhow::{Result, ensure};
use clap::Args;
use ltm_bench::note;
use ltm_kernels::cuda::{Architecture, compile};
use ltm_kernels::registry;

/// What to compile for.
#[derive(Args)]
pub struct Options {
    /// Compute capability of the device, such as 9.0
    #[arg(value_parser = capability)]
    capability: (u32, u32),
}

fn capability(text: &str) -> Result<(u32, u32), String> {
    let parts = text
        .split_once('.')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    parts.ok_or_else(|| format!("expected major.minor, such as 9.0, found `{text}`"))
}

/// Compiles every file of the kernel table into the folder that `LTM_KERNEL_CACHE` names.
pub fn run(options: &Options) -> Result<()> {
    let has_cache = std::env::var_os("LTM_KERNEL_CACHE").is_some_and(|path| !path.is_empty());
    ensure!(has_cache, "LTM_KERNEL_CACHE is not set: it names the folder to fill");
    let architecture = Architecture::of(options.capability);
    for file in registry::FILES {
        compile(file, architecture)?;
    }
    note!("{} kernel files compiled for {architecture}", registry::FILES.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_has_two_parts() {
        assert_eq!(capability("9.0"), Ok((9, 0)));
        assert_eq!(capability("12.1"), Ok((12, 1)));
        for wrong in ["", "9", "9.", "sm_90", "9.0.1"] {
            assert!(capability(wrong).is_err(), "{wrong}");
        }
    }
}
