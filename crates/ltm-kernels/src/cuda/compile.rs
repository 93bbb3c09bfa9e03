//! NVRTC, and the cache of what it made on disk. Knows text and architectures, no device.

use std::ffi::{CStr, CString, c_char};
use std::fs;
use std::path::{Path, PathBuf};

use cudarc::nvrtc::{result, sys};
use sha2::{Digest, Sha256};

use crate::{Error, Result, registry};

/// What kernels are compiled for: a compute capability, named as NVRTC does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Architecture {
    major: u32,
    minor: u32,
}

impl Architecture {
    /// Of a device's compute capability.
    pub fn of((major, minor): (u32, u32)) -> Self {
        Self { major, minor }
    }

    /// Major and minor compute capability.
    pub fn capability(self) -> (u32, u32) {
        (self.major, self.minor)
    }
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Hopper and the first Blackwell have instructions that only the suffix unlocks.
        let suffix = if matches!((self.major, self.minor), (9 | 10, 0)) { "a" } else { "" };
        write!(f, "sm_{}{}{suffix}", self.major, self.minor)
    }
}

/// A compiled kernel file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Machine code for the architecture.
    pub cubin: Vec<u8>,
    /// The same as PTX, ended by NUL, for a driver that cannot take the machine code.
    pub ptx: Vec<u8>,
}

/// Compiles one file of `kernels/`, such as `rms_norm/fwd_v1_naive.cu`, or finds it in the cache.
///
/// The cache is the folder that `LTM_KERNEL_CACHE` names, else `ltm/kernels` in the user's cache
/// folder; entries are keyed by source, options, architecture and NVRTC's version. A cache that
/// cannot be read or written is done without.
///
/// # Errors
/// [`Error::NoDevice`] when there is no NVRTC, [`Error::Compile`] with its log when it refuses.
///
/// # Panics
/// When `file` is no file of the registry.
pub fn compile(file: &str, architecture: Architecture) -> Result<Image> {
    let source = registry::source(file)
        .unwrap_or_else(|| panic!("kernel file `{file}` is not in the registry"));
    // SAFETY: only opens the library, whose initialisers are the vendor's.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::NoDevice {
            name: "cuda".into(),
            reason: "NVRTC (libnvrtc.so) was not found; install the CUDA toolkit, or `pip install \
                     nvidia-cuda-nvrtc` and add its lib folder to LD_LIBRARY_PATH"
                .into(),
        });
    }
    let architecture = supported(architecture, file)?.to_string();
    let options = [
        format!("-arch={architecture}"),
        "--std=c++17".into(),
        "-default-device".into(),
        "-lineinfo".into(),
    ];
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both targets are alive.
    nvrtc(file, "version", unsafe { sys::nvrtcVersion(&mut major, &mut minor) })?;

    let mut hash = Sha256::new();
    let version = format!("{major}.{minor}");
    let options_text = options.join(" ");
    let mut parts = vec![version.as_str(), &options_text, file, source];
    for (name, text) in registry::HEADERS {
        parts.extend([*name, *text]);
    }
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let key: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let cached = cache_folder().map(|folder| folder.join(key));
    if let Some(image) = cached.as_deref().and_then(read) {
        return Ok(image);
    }
    let image = run_nvrtc(file, source, &options, &architecture)?;
    if let Some(path) = cached {
        // A cache that cannot be written costs time, never a result.
        let _ = write(&path, &image);
    }
    Ok(image)
}

/// The newest architecture that this NVRTC knows and `wanted` can run.
fn supported(wanted: Architecture, file: &str) -> Result<Architecture> {
    let mut n = 0;
    // SAFETY: the target is alive.
    nvrtc(file, "count architectures", unsafe { sys::nvrtcGetNumSupportedArchs(&mut n) })?;
    let mut known = vec![0; usize::try_from(n).unwrap_or_default()];
    // SAFETY: the target has the room that the call above asked for.
    nvrtc(file, "list architectures", unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) })?;
    let of = |number: i32| Architecture::of((number as u32 / 10, number as u32 % 10));
    let fits = |arch: &Architecture| arch.capability() <= wanted.capability();
    known.into_iter().map(of).filter(fits).max_by_key(|arch| arch.capability()).ok_or_else(|| {
        Error::Compile {
            file: file.into(),
            architecture: wanted.to_string(),
            log: "this NVRTC knows no architecture that the device can run".into(),
        }
    })
}

fn run_nvrtc(file: &str, source: &str, options: &[String], architecture: &str) -> Result<Image> {
    let c_string = |text: &str| CString::new(text).expect("kernel text has no NUL");
    let texts: Vec<_> = registry::HEADERS.iter().map(|(_, text)| c_string(text)).collect();
    let names: Vec<_> = registry::HEADERS.iter().map(|(name, _)| c_string(name)).collect();
    let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).collect::<Vec<_>>();
    let (source, name) = (c_string(source), c_string(&format!("kernels/{file}")));
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
                file: file.into(),
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
    // SAFETY: the caller's promise; the target has the size asked for.
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
    Ok(Image { cubin, ptx })
}

/// # Safety
/// `program` is a live program.
unsafe fn log(program: sys::nvrtcProgram) -> String {
    // SAFETY: the caller's promise.
    let log = unsafe { result::get_program_log(program) }.unwrap_or_default();
    let bytes: Vec<u8> = log.iter().map(|c: &c_char| c.cast_unsigned()).collect();
    CStr::from_bytes_until_nul(&bytes)
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

fn cache_folder() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("LTM_KERNEL_CACHE").or_else(|| {
        let user = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
        user.map(|folder| folder.join("ltm/kernels"))
    })
}

/// An entry is the length of the cubin (8 bytes, little-endian), the cubin, then the PTX.
fn read(path: &Path) -> Option<Image> {
    let bytes = fs::read(path).ok()?;
    let (len, rest) = bytes.split_first_chunk::<8>()?;
    let (cubin, ptx) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
    // A truncated entry lacks the PTX's final NUL.
    (ptx.last() == Some(&0)).then(|| Image { cubin: cubin.into(), ptx: ptx.into() })
}

/// Written aside and renamed, so that no reader sees half an entry.
fn write(path: &Path, image: &Image) -> std::io::Result<()> {
    let thread = std::thread::current().id();
    let aside = path.with_extension(format!("{}-{thread:?}", std::process::id()));
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    let len = (image.cubin.len() as u64).to_le_bytes();
    fs::write(&aside, [&len[..], &image.cubin, &image.ptx].concat())?;
    fs::rename(aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_are_named_as_nvrtc_names_them() {
        for (capability, name) in
            [((8, 0), "sm_80"), ((8, 9), "sm_89"), ((9, 0), "sm_90a"), ((12, 0), "sm_120")]
        {
            assert_eq!(Architecture::of(capability).to_string(), name);
        }
    }

    #[test]
    fn a_cut_cache_entry_is_no_entry() {
        let folder = std::env::temp_dir().join(format!("ltm-kernel-cache-{}", std::process::id()));
        let path = folder.join("entry");
        let image = Image { cubin: vec![1, 2, 3], ptx: b".version 8.0\0".to_vec() };
        write(&path, &image).expect("a temporary folder can be written");
        assert_eq!(read(&path), Some(image));
        let whole = fs::read(&path).expect("written above");
        for len in [0, 7, 10, whole.len() - 1] {
            fs::write(&path, &whole[..len]).expect("a temporary folder can be written");
            assert_eq!(read(&path), None, "{len} bytes");
        }
        fs::remove_dir_all(folder).expect("made above");
    }
}
