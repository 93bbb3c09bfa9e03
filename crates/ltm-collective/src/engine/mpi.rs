//! MPI, by the binary interface that its fifth standard fixes for all libraries: `libmpi_abi.so`, opened at run time.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libloading::Library;

use super::{Engine, Exchange, Message, Wait, why};
use crate::{Error, Result};

/// The library to open instead of the usual ones.
pub(crate) const LIBRARY: &str = "LTM_MPI_LIBRARY";

/// Its names, the most exact first.
const NAMES: &[&str] =
    &["libmpi_abi.so.1", "libmpi_abi.so.0", "libmpi_abi.so", "libmpi_abi.dylib", "mpi_abi.dll"];

/// Handles of the standard's interface, which are small numbers for what is predefined.
type Handle = *mut c_void;
const COMM_WORLD: usize = 0x101;
const ERRORS_RETURN: usize = 0x143;
const BYTE: usize = 0x247;
const THREAD_FUNNELED: c_int = 1024;
const SUCCESS: c_int = 0;
/// At least as long as any text that the library writes.
const TEXT: usize = 8192;

/// Bytes of one message. Through shared memory larger ones are slower: they leave the processors' caches.
const CHUNK: usize = 1 << 20;

fn handle(number: usize) -> Handle {
    std::ptr::without_provenance_mut(number)
}

/// The functions that are used, of a library that is never closed.
struct Functions {
    init_thread:
        unsafe extern "C" fn(*mut c_int, *mut *mut *mut c_char, c_int, *mut c_int) -> c_int,
    finalize: unsafe extern "C" fn() -> c_int,
    comm_rank: unsafe extern "C" fn(Handle, *mut c_int) -> c_int,
    comm_size: unsafe extern "C" fn(Handle, *mut c_int) -> c_int,
    set_errhandler: unsafe extern "C" fn(Handle, Handle) -> c_int,
    error_string: unsafe extern "C" fn(c_int, *mut c_char, *mut c_int) -> c_int,
    version: unsafe extern "C" fn(*mut c_char, *mut c_int) -> c_int,
    isend: unsafe extern "C" fn(
        *const c_void,
        c_int,
        Handle,
        c_int,
        c_int,
        Handle,
        *mut Handle,
    ) -> c_int,
    irecv: unsafe extern "C" fn(
        *mut c_void,
        c_int,
        Handle,
        c_int,
        c_int,
        Handle,
        *mut Handle,
    ) -> c_int,
    test: unsafe extern "C" fn(*mut Handle, *mut c_int, *mut c_void) -> c_int,
}

impl Functions {
    fn open() -> Result<Self> {
        let given = std::env::var_os(LIBRARY).map(PathBuf::from);
        let candidates = match &given {
            Some(path) => vec![path.clone()],
            None => NAMES.iter().map(PathBuf::from).chain(beside_launcher()).collect(),
        };
        let mut reasons = Vec::new();
        let library = candidates.iter().find_map(|path| {
            // SAFETY: only opens the library, whose initialisers are its vendor's.
            let opened = unsafe { Library::new(path) };
            opened.map_err(|error| reasons.push(why(path, &error))).ok()
        });
        let Some(library) = library else {
            let reason = match given {
                Some(_) => format!("{LIBRARY}: {}", reasons.join("; ")),
                None => format!(
                    "found no MPI library with the binary interface of MPI 5 ({}); `pip install mpich` has one and its \
                     `mpiexec`, and {LIBRARY} may name another",
                    NAMES[0]
                ),
            };
            return Err(Error::NoEngine { reason });
        };
        let library = ManuallyDrop::new(library);
        macro_rules! function {
            ($name:literal) => {{
                // SAFETY: the field that it becomes has the signature of the standard.
                let found = unsafe { library.get(concat!($name, "\0").as_bytes()) };
                *found.map_err(|error| Error::NoEngine { reason: error.to_string() })?
            }};
        }
        Ok(Self {
            init_thread: function!("MPI_Init_thread"),
            finalize: function!("MPI_Finalize"),
            comm_rank: function!("MPI_Comm_rank"),
            comm_size: function!("MPI_Comm_size"),
            set_errhandler: function!("MPI_Comm_set_errhandler"),
            error_string: function!("MPI_Error_string"),
            version: function!("MPI_Get_library_version"),
            isend: function!("MPI_Isend"),
            irecv: function!("MPI_Irecv"),
            test: function!("MPI_Test"),
        })
    }

    fn check(&self, call: &str, code: c_int) -> Result<()> {
        if code == SUCCESS {
            return Ok(());
        }
        let reason = text(|to, len| {
            // SAFETY: `text` passes memory that is large enough.
            unsafe { (self.error_string)(code, to, len) };
        });
        Err(Error::Call { call: call.into(), reason })
    }
}

/// Libraries in the folder `lib` beside that of the `mpiexec` on the path, where Python's packages put them.
fn beside_launcher() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let launcher = std::env::split_paths(&path).find(|folder| folder.join("mpiexec").is_file());
    let lib = launcher.map(|folder| folder.join("../lib"));
    lib.iter().flat_map(|lib| NAMES.iter().map(|name| lib.join(name))).collect()
}

/// A text that a function of the library writes.
fn text(write: impl FnOnce(*mut c_char, *mut c_int)) -> String {
    let mut bytes = vec![0_u8; TEXT + 1];
    let mut len = 0;
    write(bytes.as_mut_ptr().cast(), &mut len);
    CStr::from_bytes_until_nul(&bytes)
        .map(|text| text.to_string_lossy().trim().to_owned())
        .unwrap_or_default()
}

/// A message under way. Its memory is the library's until the request is done: after a failure it is kept for good.
struct Pending {
    rank: usize,
    request: Handle,
}

/// The world of an MPI job. Used by the thread that opened it alone.
pub(crate) struct Mpi {
    functions: Functions,
    rank: usize,
    size: usize,
    timeout: Duration,
}

impl Mpi {
    /// Joins the job.
    ///
    /// # Errors
    /// [`Error::NoEngine`] when no library is found, [`Error::Call`] when it cannot start.
    pub(crate) fn open(timeout: Duration) -> Result<Self> {
        let functions = Functions::open()?;
        let mut provided = 0;
        let (argc, argv) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the standard allows no arguments; only this thread calls the library.
        let code = unsafe { (functions.init_thread)(argc, argv, THREAD_FUNNELED, &mut provided) };
        functions.check("MPI_Init_thread", code)?;
        // SAFETY: the library is initialised, both handles are predefined.
        let code = unsafe { (functions.set_errhandler)(handle(COMM_WORLD), handle(ERRORS_RETURN)) };
        functions.check("MPI_Comm_set_errhandler", code)?;
        let (mut rank, mut size) = (0, 0);
        // SAFETY: as above; both targets are alive.
        let code = unsafe { (functions.comm_rank)(handle(COMM_WORLD), &mut rank) };
        functions.check("MPI_Comm_rank", code)?;
        // SAFETY: as above.
        let code = unsafe { (functions.comm_size)(handle(COMM_WORLD), &mut size) };
        functions.check("MPI_Comm_size", code)?;
        Ok(Self { functions, rank: rank as usize, size: size as usize, timeout })
    }

    /// Starts the messages to or from `rank` that fill this memory.
    ///
    /// # Safety
    /// The memory is alive, and not otherwise used, until every request is done.
    unsafe fn start(
        &self,
        rank: usize,
        memory: *mut u8,
        len: usize,
        sends: bool,
        pending: &mut Vec<Pending>,
    ) -> Result<()> {
        for at in (0..len).step_by(CHUNK) {
            let count = CHUNK.min(len - at) as c_int;
            let mut request = handle(0);
            let functions = &self.functions;
            // SAFETY: the range lies within the memory, which the caller keeps.
            let code = unsafe {
                let (memory, world) = (memory.add(at).cast::<c_void>(), handle(COMM_WORLD));
                match sends {
                    true => (functions.isend)(
                        memory,
                        count,
                        handle(BYTE),
                        rank as c_int,
                        0,
                        world,
                        &mut request,
                    ),
                    false => (functions.irecv)(
                        memory,
                        count,
                        handle(BYTE),
                        rank as c_int,
                        0,
                        world,
                        &mut request,
                    ),
                }
            };
            functions.check(if sends { "MPI_Isend" } else { "MPI_Irecv" }, code)?;
            pending.push(Pending { rank, request });
        }
        Ok(())
    }

    /// Waits until all are done.
    fn finish(&self, pending: &mut Vec<Pending>, wait: Wait) -> Result<()> {
        let mut moved = Instant::now();
        while !pending.is_empty() {
            let before = pending.len();
            let mut failed = Ok(());
            pending.retain_mut(|Pending { request, .. }| {
                let mut done = 0;
                // SAFETY: the request was started and is not done; a null status is ignored.
                let code =
                    unsafe { (self.functions.test)(request, &mut done, std::ptr::null_mut()) };
                if let Err(error) = self.functions.check("MPI_Test", code) {
                    failed = Err(error);
                }
                done == 0
            });
            failed?;
            let waited = moved.elapsed();
            if pending.len() < before {
                moved = Instant::now();
            } else if let Some(pause) = wait.pause(waited) {
                wait.check(waited, self.timeout, pending.iter().map(|pending| pending.rank))?;
                std::thread::sleep(pause);
            }
        }
        Ok(())
    }
}

impl Engine for Mpi {
    fn place(&self) -> (usize, usize) {
        (self.rank, self.size)
    }

    fn exchange(&mut self, exchange: Exchange) -> Result<Vec<Vec<u8>>> {
        let Exchange { sends, receives, wait } = exchange;
        // Unless all is done, the library may still write here.
        let mut came: Vec<ManuallyDrop<Vec<u8>>> =
            receives.iter().map(|(_, len)| ManuallyDrop::new(vec![0; *len])).collect();
        let sends: Vec<(usize, ManuallyDrop<Message>)> =
            sends.into_iter().map(|(to, message)| (to, ManuallyDrop::new(message))).collect();
        let mut pending = Vec::new();
        for ((from, len), memory) in receives.iter().zip(&mut came) {
            // SAFETY: the memory has this length and is freed below, after all requests are done.
            unsafe { self.start(*from, memory.as_mut_ptr(), *len, false, &mut pending)? };
        }
        for (to, message) in &sends {
            let memory = message.as_ptr().cast_mut();
            // SAFETY: as above; a send only reads.
            unsafe { self.start(*to, memory, message.len(), true, &mut pending)? };
        }
        self.finish(&mut pending, wait)?;
        for (_, message) in sends {
            drop::<Arc<_>>(ManuallyDrop::into_inner(message));
        }
        Ok(came.into_iter().map(ManuallyDrop::into_inner).collect())
    }

    fn leave(&mut self) -> Result<()> {
        // SAFETY: the last call of the library.
        let code = unsafe { (self.functions.finalize)() };
        self.functions.check("MPI_Finalize", code)
    }

    fn name(&self) -> String {
        let version = text(|to, len| {
            // SAFETY: `text` passes memory that is large enough.
            unsafe { (self.functions.version)(to, len) };
        });
        let line = version.lines().next().unwrap_or_default();
        format!("MPI, {}", line.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}
