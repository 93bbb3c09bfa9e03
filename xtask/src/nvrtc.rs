//! NVIDIA's run-time compiler, loaded from a folder: CUDA text in, PTX, machine code and the assembler's log out.
//! Knows no kernel and no option; the only file of `xtask` that may hold `unsafe`.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr;

use anyhow::{Context, Result, bail, ensure};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// The names under which the compiler's library goes, the newest first.
pub const LIBRARY_NAMES: &[&str] = &["libnvrtc.so.13", "libnvrtc.so.12"];

type Program = *mut c_void;
type Status = c_int;
type SizeOf = unsafe extern "C" fn(Program, *mut usize) -> Status;
type TextOf = unsafe extern "C" fn(Program, *mut c_char) -> Status;

/// The compiler, open for as long as this process lives. Its functions may be called from several threads.
pub struct Nvrtc {
    version: (c_int, c_int),
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Status,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
    destroy: unsafe extern "C" fn(*mut Program) -> Status,
    error_text: unsafe extern "C" fn(Status) -> *const c_char,
    log: (SizeOf, TextOf),
    ptx: (SizeOf, TextOf),
    cubin: (SizeOf, TextOf),
}

/// What one compilation yields.
pub struct Compiled {
    pub ptx: String,
    /// Machine code, as an ELF file.
    pub cubin: Vec<u8>,
    /// What the compiler and the assembler said, warnings and the resource report alike.
    pub log: String,
}

/// A file handed to the compiler in memory.
pub struct Source {
    /// The name by which an `#include` or an error message calls it.
    pub name: String,
    pub text: String,
}

impl Nvrtc {
    /// Opens the compiler in `folder`.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = library_in(folder)
            .with_context(|| format!("no {} in {}", LIBRARY_NAMES[0], folder.display()))?;
        // The compiler opens its builtins by their bare name and has no run path: it finds them
        // only when they are open already, under the same name.
        if let Some(builtins) = builtins_in(folder) {
            open_for_good(&builtins)?;
        }
        let library = open_for_good(&path)?;
        // SAFETY: the types are those of nvrtc.h, unchanged since CUDA 11; the library is never
        // closed, so the functions stay where they are.
        unsafe {
            let mut nvrtc = Self {
                version: (0, 0),
                create: *library.get(b"nvrtcCreateProgram\0")?,
                compile: *library.get(b"nvrtcCompileProgram\0")?,
                destroy: *library.get(b"nvrtcDestroyProgram\0")?,
                error_text: *library.get(b"nvrtcGetErrorString\0")?,
                log: (
                    *library.get(b"nvrtcGetProgramLogSize\0")?,
                    *library.get(b"nvrtcGetProgramLog\0")?,
                ),
                ptx: (*library.get(b"nvrtcGetPTXSize\0")?, *library.get(b"nvrtcGetPTX\0")?),
                cubin: (*library.get(b"nvrtcGetCUBINSize\0")?, *library.get(b"nvrtcGetCUBIN\0")?),
            };
            let version = *library
                .get::<unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status>(b"nvrtcVersion\0")?;
            let status = version(&mut nvrtc.version.0, &mut nvrtc.version.1);
            nvrtc.check(status, "nvrtcVersion")?;
            Ok(nvrtc)
        }
    }

    /// Its release, as `13.0`.
    pub fn version(&self) -> String {
        format!("{}.{}", self.version.0, self.version.1)
    }

    /// Compiles one file for one real architecture. The error of a program that does not compile is the compiler's log.
    pub fn compile(
        &self,
        source: &Source,
        headers: &[Source],
        options: &[String],
    ) -> Result<Compiled> {
        let text = CString::new(source.text.as_str()).context("the text holds a NUL")?;
        let name = CString::new(source.name.as_str())?;
        let (names, texts) = (
            strings(headers.iter().map(|header| header.name.as_str()))?,
            strings(headers.iter().map(|header| header.text.as_str()))?,
        );
        let options = strings(options.iter().map(String::as_str))?;
        let [names, texts, options] = [&names, &texts, &options].map(|all| pointers(all));
        let mut program = ptr::null_mut();
        // SAFETY: every pointer is to a NUL-terminated string that outlives the call, and both lists
        // of headers have the stated length.
        let status = unsafe {
            (self.create)(
                &mut program,
                text.as_ptr(),
                name.as_ptr(),
                c_int::try_from(names.len())?,
                texts.as_ptr(),
                names.as_ptr(),
            )
        };
        self.check(status, "nvrtcCreateProgram")?;
        let compiled = self.compile_program(program, &options);
        // SAFETY: the program was created above and is used no more.
        unsafe { (self.destroy)(&mut program) };
        compiled
    }

    fn compile_program(&self, program: Program, options: &[*const c_char]) -> Result<Compiled> {
        // SAFETY: the program lives until the caller destroys it, and the options outlive the call.
        let status =
            unsafe { (self.compile)(program, c_int::try_from(options.len())?, options.as_ptr()) };
        let log = into_text(self.fetch(program, self.log, "log")?);
        if status != 0 {
            bail!("{}\n{}", self.describe(status), log.trim_end());
        }
        let ptx = into_text(self.fetch(program, self.ptx, "PTX")?);
        let cubin = self.fetch(program, self.cubin, "machine code")?;
        ensure!(!cubin.is_empty(), "no machine code: compile for sm_XX, not for compute_XX");
        Ok(Compiled { ptx, cubin, log })
    }

    fn fetch(&self, program: Program, of: (SizeOf, TextOf), what: &str) -> Result<Vec<u8>> {
        let mut size = 0;
        // SAFETY: the program is alive; the compiler writes as many bytes as it said, no more.
        unsafe {
            self.check((of.0)(program, &mut size), what)?;
            let mut bytes = vec![0_u8; size];
            if size > 0 {
                self.check((of.1)(program, bytes.as_mut_ptr().cast()), what)?;
            }
            Ok(bytes)
        }
    }

    fn check(&self, status: Status, what: &str) -> Result<()> {
        ensure!(status == 0, "{what}: {}", self.describe(status));
        Ok(())
    }

    fn describe(&self, status: Status) -> String {
        // SAFETY: the compiler returns a constant, NUL-terminated string for any number.
        unsafe { CStr::from_ptr((self.error_text)(status)) }.to_string_lossy().into_owned()
    }
}

/// The compiler's library in a folder.
pub fn library_in(folder: &Path) -> Option<PathBuf> {
    LIBRARY_NAMES.iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

/// The library of built-in functions next to the compiler; its name contains the release.
fn builtins_in(folder: &Path) -> Option<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("libnvrtc-builtins.so.") && name.matches('.').count() == 3
        })
        .collect();
    found.sort();
    found.pop()
}

/// Opens a library and never closes it.
fn open_for_good(path: &Path) -> Result<&'static Library> {
    // SAFETY: NVIDIA's libraries do nothing on loading but set up themselves.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }
        .with_context(|| format!("cannot open {}", path.display()))?;
    Ok(Box::leak(Box::new(library)))
}

fn strings<'a>(all: impl Iterator<Item = &'a str>) -> Result<Vec<CString>> {
    all.map(|text| CString::new(text).context("a text handed to the compiler holds a NUL"))
        .collect()
}

fn pointers(all: &[CString]) -> Vec<*const c_char> {
    all.iter().map(|text| text.as_ptr()).collect()
}

/// The compiler's text without its closing NUL.
fn into_text(mut bytes: Vec<u8>) -> String {
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
