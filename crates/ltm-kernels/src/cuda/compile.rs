//! Compiles kernel files with NVRTC. Knows source text and architectures; must not know the device.

use super::architecture::Architecture;
use super::cache;
use super::image::Image;
use super::nvrtc::{self, Compiled, Failure};
use super::text::{self, Header, Text};
use crate::registry::File;
use crate::{Error, Result};

/// Compiles a file of the kernel table, or loads it from the cache.
///
/// Its text and those of the headers are built in, unless `LTM_KERNELS_DIR` names a folder to read them from.
///
/// The cache folder is `LTM_KERNEL_CACHE`, otherwise `ltm/kernels` in the user's cache folder.
/// Entries are keyed by source, options, architecture and NVRTC version, and have a checksum. An
/// unreadable or damaged entry is compiled again; a cache that cannot be written is ignored.
///
/// # Errors
/// [`Error::NoDevice`] when NVRTC is not found; [`Error::Compile`] with the compiler's log when
/// compilation fails; [`Error::Cuda`] when the folder of `LTM_KERNELS_DIR` cannot be read.
pub fn compile(file: &'static File, architecture: Architecture) -> Result<Image> {
    obtain(&text::shipped(file)?, architecture, true)
}

/// As [`compile`], of any text. Unless `may_be_cached`, it does not read the cache and replaces the entry: for an
/// image that the driver rejected.
pub(super) fn obtain(
    text: &Text<'_>,
    architecture: Architecture,
    may_be_cached: bool,
) -> Result<Image> {
    let name = &*text.name;
    if !nvrtc::is_present() {
        return Err(Error::NoDevice { name: "cuda".into(), reason: advice(driver_version()) });
    }
    let architecture = supported(architecture, name)?.to_string();
    let options = [
        format!("-arch={architecture}"),
        "--std=c++17".into(),
        "-default-device".into(),
        "-lineinfo".into(),
    ];
    let version = nvrtc::version().map_err(|failure| failed(name, failure))?;
    let options_text = options.join(" ");
    let headers = text::headers()?;
    let mut parts = vec![version.as_str(), &options_text, name, &text.text];
    for Header { name, text } in &headers {
        parts.extend([&**name, &**text]);
    }
    let cached = cache::folder().map(|folder| folder.join(cache::key(&parts)));
    if may_be_cached && let Some(image) = cached.as_deref().and_then(cache::read) {
        return Ok(image);
    }
    let image = run_nvrtc(text, &headers, &options, &architecture)?;
    if let Some(path) = cached {
        // A cache that cannot be written only costs time.
        let _ = cache::write(&path, &image);
    }
    Ok(image)
}

/// The newest CUDA version that the driver supports, as `1000 * major + 10 * minor`; `None` without
/// a driver.
fn driver_version() -> Option<i32> {
    let mut version = 0;
    // SAFETY: opens the library, and only asks it when it is there; the target is alive.
    unsafe {
        let is_there = cudarc::driver::sys::is_culib_present();
        (is_there && cudarc::driver::sys::cuDriverGetVersion(&mut version).result().is_ok())
            .then_some(version)
    }
}

/// What to install if NVRTC is missing: code of a newer NVRTC than the driver supports would not
/// load.
fn advice(driver_version: Option<i32>) -> String {
    let (toolkit, package) = match driver_version.map(|version| version / 1000) {
        // Up to CUDA 12 the package's name contains the version.
        Some(major @ ..13) => {
            (format!("CUDA toolkit {major}"), format!("nvidia-cuda-nvrtc-cu{major}"))
        }
        Some(major) => (format!("CUDA toolkit {major}"), format!("nvidia-cuda-nvrtc=={major}.*")),
        None => ("CUDA toolkit".into(), "nvidia-cuda-nvrtc".into()),
    };
    format!(
        "NVRTC (libnvrtc.so) was not found; install the {toolkit}, or `pip install '{package}'` and \
         add the folder of its libnvrtc.so to LD_LIBRARY_PATH"
    )
}

/// The newest architecture that this NVRTC knows and whose code runs on `wanted`.
fn supported(wanted: Architecture, file: &str) -> Result<Architecture> {
    let known = nvrtc::architectures().map_err(|failure| failed(file, failure))?;
    let of = |number: i32| Architecture::of((number as u32 / 10, number as u32 % 10));
    wanted.best_of(known.into_iter().map(of)).ok_or_else(|| Error::Compile {
        file: file.into(),
        architecture: wanted.to_string(),
        log: "this NVRTC knows no architecture that the device can run".into(),
    })
}

fn run_nvrtc(
    text: &Text<'_>,
    headers: &[Header],
    options: &[String],
    architecture: &str,
) -> Result<Image> {
    let headers = headers.iter().map(|header| (&*header.name, &*header.text));
    match nvrtc::compile(&text.name, &text.text, headers, options) {
        Ok(Compiled { ptx, cubin, .. }) => Ok(Image { cubin, ptx, is_cached: false }),
        Err(Failure::Rejected(log)) => Err(Error::Compile {
            file: text.name.to_string(),
            architecture: architecture.into(),
            log,
        }),
        Err(failure) => Err(failed(&text.name, failure)),
    }
}

/// The error of a call that has nothing to do with the text.
fn failed(file: &str, failure: Failure) -> Error {
    let (call, reason) = match failure {
        Failure::Call { call, reason } => (call, reason),
        Failure::Rejected(log) => ("compile", log),
    };
    Error::Cuda { call: format!("NVRTC: {call} ({file})"), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_fits_the_driver() {
        for (driver, package) in [
            (None, "nvidia-cuda-nvrtc'"),
            (Some(11080), "nvidia-cuda-nvrtc-cu11'"),
            (Some(12040), "nvidia-cuda-nvrtc-cu12'"),
            (Some(13010), "nvidia-cuda-nvrtc==13.*'"),
        ] {
            let text = advice(driver);
            assert!(text.contains(&format!("`pip install '{package}`")), "{text}");
        }
    }
}
