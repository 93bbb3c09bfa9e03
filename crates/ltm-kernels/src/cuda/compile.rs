//! Compiles kernel files with NVRTC. Knows source text and architectures; must not know the device.

use std::ffi::{CStr, CString, c_char};

use cudarc::nvrtc::{result, sys};

use super::architecture::Architecture;
use super::cache;
use super::text::{self, Header, Text};
use crate::{Error, Result};

/// A compiled kernel file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Machine code for the architecture.
    pub cubin: Vec<u8>,
    /// The same kernels as NUL-terminated PTX, for a driver that cannot load the machine code.
    pub ptx: Vec<u8>,
    /// Whether it came from the cache.
    pub is_cached: bool,
}

/// Compiles a file in `kernels/`, such as `rms_norm/fwd_v1_naive.cu`, or loads it from the cache.
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
///
/// # Panics
/// When `file` is not in the registry.
pub fn compile(file: &str, architecture: Architecture) -> Result<Image> {
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
    // SAFETY: only opens the library, whose initialisers are the vendor's.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::NoDevice { name: "cuda".into(), reason: advice(driver_version()) });
    }
    let architecture = supported(architecture, name)?.to_string();
    let options = [
        format!("-arch={architecture}"),
        "--std=c++17".into(),
        "-default-device".into(),
        "-lineinfo".into(),
    ];
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both targets are alive.
    nvrtc(name, "version", unsafe { sys::nvrtcVersion(&mut major, &mut minor) })?;

    let version = format!("{major}.{minor}");
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
    let mut n = 0;
    // SAFETY: the target is alive.
    nvrtc(file, "count architectures", unsafe { sys::nvrtcGetNumSupportedArchs(&mut n) })?;
    let mut known = vec![0; usize::try_from(n).unwrap_or_default()];
    // SAFETY: the target has the size that the call above returned.
    nvrtc(file, "list architectures", unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) })?;
    let of = |number: i32| Architecture::of((number as u32 / 10, number as u32 % 10));
    wanted.best_of(known.into_iter().map(of)).ok_or_else(|| Error::Compile {
        file: file.into(),
        architecture: wanted.to_string(),
        log: "this NVRTC knows no architecture that the device can run".into(),
    })
}

fn run_nvrtc(
    Text { name: file, text }: &Text<'_>,
    headers: &[Header],
    options: &[String],
    architecture: &str,
) -> Result<Image> {
    let c_string = |text: &str| {
        CString::new(text).map_err(|_| Error::Compile {
            file: file.to_string(),
            architecture: architecture.into(),
            log: "the text or a header contains a NUL".into(),
        })
    };
    let texts: Vec<_> =
        headers.iter().map(|header| c_string(&header.text)).collect::<Result<_>>()?;
    let names: Vec<_> =
        headers.iter().map(|header| c_string(&header.name)).collect::<Result<_>>()?;
    let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).collect::<Vec<_>>();
    let (source, name) = (c_string(text)?, c_string(file)?);
    let mut program = std::ptr::null_mut();
    // SAFETY: every string outlives the call, which copies it; both lists have `texts.len()` entries.
    nvrtc(file, "create program", unsafe {
        sys::nvrtcCreateProgram(
            &mut program,
            source.as_ptr(),
            name.as_ptr(),
            texts.len() as i32,
            pointers(&texts).as_ptr(),
            pointers(&names).as_ptr(),
        )
    })?;
    // SAFETY: `program` was created above and is destroyed below, after its last use.
    let image = unsafe {
        let compiled = result::compile_program(program, options);
        match compiled {
            Err(_) => Err(Error::Compile {
                file: file.to_string(),
                architecture: architecture.into(),
                log: log(program),
            }),
            Ok(()) => read_image(file, program),
        }
    };
    // SAFETY: as above.
    nvrtc(file, "destroy program", unsafe { sys::nvrtcDestroyProgram(&mut program) })?;
    image
}

/// # Safety
/// `program` is a program that was compiled.
unsafe fn read_image(file: &str, program: sys::nvrtcProgram) -> Result<Image> {
    let mut size = 0;
    // SAFETY: the caller's promise; the target has the size that the library returned.
    let cubin = unsafe {
        nvrtc(file, "size of cubin", sys::nvrtcGetCUBINSize(program, &mut size))?;
        let mut cubin = vec![0u8; size];
        nvrtc(file, "read cubin", sys::nvrtcGetCUBIN(program, cubin.as_mut_ptr().cast()))?;
        cubin
    };
    // SAFETY: as above.
    let ptx = unsafe {
        nvrtc(file, "size of PTX", sys::nvrtcGetPTXSize(program, &mut size))?;
        let mut ptx = vec![0u8; size];
        nvrtc(file, "read PTX", sys::nvrtcGetPTX(program, ptx.as_mut_ptr().cast()))?;
        ptx
    };
    Ok(Image { cubin, ptx, is_cached: false })
}

/// # Safety
/// `program` is a live program.
unsafe fn log(program: sys::nvrtcProgram) -> String {
    // SAFETY: the caller's promise.
    let log = unsafe { result::get_program_log(program) }.unwrap_or_default();
    // A `c_char` is signed on some processors and unsigned on others.
    CStr::from_bytes_until_nul(bytemuck::cast_slice::<c_char, u8>(&log))
        .map_or_else(|_| String::new(), |c| c.to_string_lossy().into())
}

fn nvrtc(file: &str, call: &str, code: sys::nvrtcResult) -> Result<()> {
    match code {
        sys::nvrtcResult::NVRTC_SUCCESS => Ok(()),
        code => Err(Error::Cuda {
            call: format!("NVRTC: {call} ({file})"),
            reason: format!("{code:?}"),
        }),
    }
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
