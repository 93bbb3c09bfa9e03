//! NVIDIA's run-time compiler: CUDA text in; PTX, machine code and the assembler's log out. Must not know any kernel or
//! option.
//!
//! `xtask` includes this file by its path, for it depends on no crate of the workspace.

use std::ffi::{CStr, CString, c_char};

use cudarc::nvrtc::{result, sys};

/// What one compilation yields.
pub struct Compiled {
    /// NUL-terminated.
    pub ptx: Vec<u8>,
    /// Machine code, as an ELF file; empty when the architecture is a virtual one.
    pub cubin: Vec<u8>,
    /// What compiler and assembler reported.
    pub log: String,
}

/// Why there is no result.
pub enum Failure {
    /// The text does not compile; the compiler's log.
    Rejected(String),
    /// A call of the library failed.
    Call { call: &'static str, reason: String },
}

/// Whether the library can be opened; unless it can, the other functions panic.
pub fn is_present() -> bool {
    // SAFETY: only opens the library, whose initialisers are the vendor's.
    unsafe { sys::is_culib_present() }
}

/// The library's release, as `13.0`.
pub fn version() -> Result<String, Failure> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both targets are alive.
    check("version", unsafe { sys::nvrtcVersion(&mut major, &mut minor) })?;
    Ok(format!("{major}.{minor}"))
}

/// The real architectures that it knows, as 90 for sm_90.
pub fn architectures() -> Result<Vec<i32>, Failure> {
    let mut n = 0;
    // SAFETY: the target is alive.
    check("count architectures", unsafe { sys::nvrtcGetNumSupportedArchs(&mut n) })?;
    let mut known = vec![0; usize::try_from(n).unwrap_or_default()];
    // SAFETY: the target has the size that the call above returned.
    check("list architectures", unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) })?;
    Ok(known)
}

/// Compiles a text under a name for messages. An include takes its text from `headers`, pairs of name and text.
pub fn compile<'a>(
    name: &str,
    text: &str,
    headers: impl Iterator<Item = (&'a str, &'a str)>,
    options: &[String],
) -> Result<Compiled, Failure> {
    let c_string = |text: &str| {
        CString::new(text)
            .map_err(|_| Failure::Rejected("the text or a header contains a NUL".into()))
    };
    let (source, name) = (c_string(text)?, c_string(name)?);
    let (mut names, mut texts) = (Vec::new(), Vec::new());
    for (name, text) in headers {
        names.push(c_string(name)?);
        texts.push(c_string(text)?);
    }
    let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).collect::<Vec<_>>();
    let mut program = std::ptr::null_mut();
    // SAFETY: every string outlives the call, which copies it; both lists have `texts.len()` entries.
    check("create program", unsafe {
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
    let compiled = unsafe {
        match result::compile_program(program, options) {
            Err(_) => Err(Failure::Rejected(log(program))),
            Ok(()) => read(program),
        }
    };
    // SAFETY: as above.
    check("destroy program", unsafe { sys::nvrtcDestroyProgram(&mut program) })?;
    compiled
}

/// # Safety
/// `program` is a program that was compiled.
unsafe fn read(program: sys::nvrtcProgram) -> Result<Compiled, Failure> {
    let mut size = 0;
    // SAFETY: the caller's promise; the target has the size that the library returned.
    unsafe {
        check("size of cubin", sys::nvrtcGetCUBINSize(program, &mut size))?;
        let mut cubin = vec![0u8; size];
        check("read cubin", sys::nvrtcGetCUBIN(program, cubin.as_mut_ptr().cast()))?;
        check("size of PTX", sys::nvrtcGetPTXSize(program, &mut size))?;
        let mut ptx = vec![0u8; size];
        check("read PTX", sys::nvrtcGetPTX(program, ptx.as_mut_ptr().cast()))?;
        Ok(Compiled { ptx, cubin, log: log(program) })
    }
}

/// # Safety
/// `program` is a live program.
unsafe fn log(program: sys::nvrtcProgram) -> String {
    // SAFETY: the caller's promise.
    let log = unsafe { result::get_program_log(program) }.unwrap_or_default();
    // A `c_char` is signed on some processors and unsigned on others.
    let bytes: Vec<u8> = log.into_iter().map(|byte: c_char| byte as u8).collect();
    CStr::from_bytes_until_nul(&bytes)
        .map_or_else(|_| String::new(), |c| c.to_string_lossy().into())
}

fn check(call: &'static str, code: sys::nvrtcResult) -> Result<(), Failure> {
    match code {
        sys::nvrtcResult::NVRTC_SUCCESS => Ok(()),
        code => Err(Failure::Call { call, reason: format!("{code:?}") }),
    }
}
