//! NCCL: exchanges between the memories of GPUs, one per process. Opened at run time.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use libloading::Library;
use ltm_kernels::cuda::{Context, SideStream};
use ltm_kernels::ops::elementwise;
use ltm_kernels::{Buffer, DType, Device};

use super::{Engine, Exchange, SUM, Wait, why};
use crate::{Error, Identity, Result, rendezvous, tree};

/// The library to open instead of the usual ones.
pub(crate) const LIBRARY: &str = "LTM_NCCL_LIBRARY";

const NAMES: &[&str] = &["libnccl.so.2", "libnccl.so"];

const SUCCESS: c_int = 0;
const IN_PROGRESS: c_int = 7;
/// The type of a message's elements: bytes.
const UINT8: c_int = 1;

/// What one process makes and all others need to join: NCCL's `ncclUniqueId`.
#[repr(C)]
#[derive(Clone, Copy)]
struct UniqueId([u8; 128]);

type Communicator = *mut c_void;
type Send =
    unsafe extern "C" fn(*const c_void, usize, c_int, c_int, Communicator, *mut c_void) -> c_int;
type Receive =
    unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, Communicator, *mut c_void) -> c_int;

/// The functions that are used, of a library that is never closed.
struct Functions {
    get_version: unsafe extern "C" fn(*mut c_int) -> c_int,
    get_unique_id: unsafe extern "C" fn(*mut UniqueId) -> c_int,
    init_rank: unsafe extern "C" fn(*mut Communicator, c_int, UniqueId, c_int) -> c_int,
    send: Send,
    receive: Receive,
    group_start: unsafe extern "C" fn() -> c_int,
    group_end: unsafe extern "C" fn() -> c_int,
    async_error: unsafe extern "C" fn(Communicator, *mut c_int) -> c_int,
    abort: unsafe extern "C" fn(Communicator) -> c_int,
    destroy: unsafe extern "C" fn(Communicator) -> c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    last_error: unsafe extern "C" fn(Communicator) -> *const c_char,
}

impl Functions {
    fn open() -> Result<Self> {
        let given = std::env::var_os(LIBRARY).map(PathBuf::from);
        let candidates = match &given {
            Some(path) => vec![path.clone()],
            None => NAMES.iter().map(PathBuf::from).collect(),
        };
        let mut reasons = Vec::new();
        let library = candidates.iter().find_map(|path| {
            // SAFETY: only opens the library, whose initialisers are its vendor's.
            let opened = unsafe { Library::new(path) };
            opened.map_err(|error| reasons.push(why(path, &error))).ok()
        });
        let library = library.ok_or_else(|| Error::NoEngine {
            reason: format!(
                "found no NCCL ({}); `pip install nvidia-nccl-cu13` has it, and {LIBRARY} may name the file",
                reasons.join("; ")
            ),
        })?;
        let library = ManuallyDrop::new(library);
        macro_rules! function {
            ($name:literal) => {{
                // SAFETY: the field that it becomes has the signature of NCCL's header.
                let found = unsafe { library.get(concat!($name, "\0").as_bytes()) };
                *found.map_err(|error| Error::NoEngine { reason: error.to_string() })?
            }};
        }
        Ok(Self {
            get_version: function!("ncclGetVersion"),
            get_unique_id: function!("ncclGetUniqueId"),
            init_rank: function!("ncclCommInitRank"),
            send: function!("ncclSend"),
            receive: function!("ncclRecv"),
            group_start: function!("ncclGroupStart"),
            group_end: function!("ncclGroupEnd"),
            async_error: function!("ncclCommGetAsyncError"),
            abort: function!("ncclCommAbort"),
            destroy: function!("ncclCommDestroy"),
            error_string: function!("ncclGetErrorString"),
            last_error: function!("ncclGetLastError"),
        })
    }

    fn check(&self, call: &str, code: c_int, communicator: Communicator) -> Result<()> {
        if matches!(code, SUCCESS | IN_PROGRESS) {
            return Ok(());
        }
        // SAFETY: both return texts of the library, or null; no communicator is allowed.
        let texts = unsafe { [(self.error_string)(code), (self.last_error)(communicator)] };
        let texts = texts.into_iter().filter(|text| !text.is_null()).map(|text| {
            // SAFETY: a text that ends in NUL and that the library keeps.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned()
        });
        let reason = texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ");
        Err(Error::Call { call: call.into(), reason })
    }
}

/// The GPUs of a job. Used by the thread that opened it alone.
pub(crate) struct Nccl {
    functions: Functions,
    communicator: Communicator,
    stream: SideStream,
    device: Device,
    rank: usize,
    size: usize,
    timeout: Duration,
}

/// A range of device memory, in bytes.
#[derive(Clone, Copy)]
struct Range {
    address: u64,
    bytes: usize,
}

impl Range {
    /// Elements `from..from + len` of a buffer of 4-byte elements.
    fn of(buffer: &Buffer, from: usize, len: usize) -> Self {
        let address = buffer.address().unwrap_or_default();
        Self { address: address + 4 * from as u64, bytes: 4 * len }
    }
}

impl Nccl {
    /// Joins the job with this device.
    ///
    /// # Errors
    /// [`Error::NoEngine`] when no library is found, [`Error::Missing`] naming who did not come, [`Error::Call`].
    pub(crate) fn open(
        identity: &Identity,
        context: &'static Context,
        timeout: Duration,
    ) -> Result<Self> {
        let functions = Functions::open()?;
        let stream = SideStream::new(context)?;
        let mut id = UniqueId([0; 128]);
        if identity.rank == 0 {
            // SAFETY: the target is alive.
            let code = unsafe { (functions.get_unique_id)(&mut id) };
            functions.check("ncclGetUniqueId", code, std::ptr::null_mut())?;
        }
        id.0 = rendezvous::share(identity, id.0, timeout)?;
        let mut communicator = std::ptr::null_mut();
        // SAFETY: the target is alive, and the device is bound to this thread by `SideStream::new`.
        let code = unsafe {
            let (size, rank) = (identity.size as c_int, identity.rank as c_int);
            (functions.init_rank)(&mut communicator, size, id, rank)
        };
        functions.check("ncclCommInitRank", code, std::ptr::null_mut())?;
        let (device, rank, size) = (Device::Cuda(context), identity.rank, identity.size);
        Ok(Self { functions, communicator, stream, device, rank, size, timeout })
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let rank = self.rank;
        (0..self.size).filter(move |other| *other != rank)
    }

    /// Sends and receives ranges of device memory, after all that the first stream holds.
    ///
    /// # Safety
    /// The ranges lie within buffers that outlive the call; what is received overlaps nothing.
    unsafe fn move_ranges(
        &self,
        sends: &[(usize, Range)],
        receives: &[(usize, Range)],
        wait: Wait,
    ) -> Result<()> {
        self.stream.follow()?;
        let (functions, communicator, stream) =
            (&self.functions, self.communicator, self.stream.handle());
        let check = |call, code| functions.check(call, code, communicator);
        // SAFETY: the communicator is alive; ranges by the caller's promise, on a stream of this device.
        unsafe {
            check("ncclGroupStart", (functions.group_start)())?;
            for (peer, range) in sends {
                let address = std::ptr::with_exposed_provenance(range.address as usize);
                let peer = *peer as c_int;
                let code =
                    (functions.send)(address, range.bytes, UINT8, peer, communicator, stream);
                check("ncclSend", code)?;
            }
            for (peer, range) in receives {
                let address = std::ptr::with_exposed_provenance_mut(range.address as usize);
                let peer = *peer as c_int;
                let code =
                    (functions.receive)(address, range.bytes, UINT8, peer, communicator, stream);
                check("ncclRecv", code)?;
            }
            check("ncclGroupEnd", (functions.group_end)())?;
        }
        let started = Instant::now();
        while !self.stream.is_done()? {
            let mut code = SUCCESS;
            // SAFETY: the communicator is alive, and so is the target.
            let asked = unsafe { (functions.async_error)(communicator, &mut code) };
            check("ncclCommGetAsyncError", asked)?;
            check("an exchange of NCCL", code)?;
            let waited = started.elapsed();
            if let Some(pause) = wait.pause(waited) {
                let ranks = receives.iter().chain(sends).map(|(peer, _)| *peer);
                wait.check(waited, self.timeout, ranks)?;
                std::thread::sleep(pause);
            }
        }
        Ok(())
    }

    /// Ends what is under way after a failure, so that the memory is free again.
    fn abort(&mut self) {
        if !self.communicator.is_null() {
            // SAFETY: the communicator is alive and not used again.
            unsafe { (self.functions.abort)(self.communicator) };
            self.communicator = std::ptr::null_mut();
        }
    }

    /// [`move_ranges`](Self::move_ranges), after whose failure nothing is exchanged any more.
    ///
    /// # Safety
    /// Its promises.
    unsafe fn moved(
        &mut self,
        sends: &[(usize, Range)],
        receives: &[(usize, Range)],
        wait: Wait,
    ) -> Result<()> {
        if self.communicator.is_null() {
            let reason = "an earlier exchange failed".into();
            return Err(Error::Call { call: wait.during.into(), reason });
        }
        // SAFETY: the caller's promises.
        unsafe { self.move_ranges(sends, receives, wait) }.inspect_err(|_| self.abort())
    }

    /// A buffer with these bytes, and zeros up to a whole element.
    fn upload(&self, bytes: &[u8]) -> Result<Buffer> {
        let words: Vec<i32> = bytes
            .chunks(4)
            .map(|chunk| {
                let mut word = [0; 4];
                word[..chunk.len()].copy_from_slice(chunk);
                i32::from_ne_bytes(word)
            })
            .collect();
        let mut buffer = Buffer::zeros(&self.device, DType::I32, words.len())?;
        buffer.write_i32(&words)?;
        Ok(buffer)
    }
}

impl Engine for Nccl {
    fn place(&self) -> (usize, usize) {
        (self.rank, self.size)
    }

    fn exchange(&mut self, exchange: Exchange) -> Result<Vec<Vec<u8>>> {
        let Exchange { sends, receives, wait } = exchange;
        let whole = |bytes: usize| bytes.div_ceil(4);
        let sent = sends.iter().map(|(_, bytes)| self.upload(bytes)).collect::<Result<Vec<_>>>()?;
        let zeros = |bytes: usize| Buffer::zeros(&self.device, DType::I32, whole(bytes));
        let came = receives.iter().map(|(_, bytes)| zeros(*bytes));
        let came = came.collect::<ltm_kernels::Result<Vec<_>>>()?;
        let range = |buffer: &Buffer| Range::of(buffer, 0, buffer.len());
        let from_here: Vec<_> =
            sends.iter().zip(&sent).map(|((to, _), buffer)| (*to, range(buffer))).collect();
        let to_here: Vec<_> =
            receives.iter().zip(&came).map(|((from, _), buffer)| (*from, range(buffer))).collect();
        // SAFETY: whole buffers, which live to the end of this function.
        unsafe { self.moved(&from_here, &to_here, wait)? };
        let bytes = came.iter().zip(&receives).map(|(buffer, (_, len))| {
            let words = buffer.to_i32()?;
            let mut bytes: Vec<u8> = words.into_iter().flat_map(i32::to_ne_bytes).collect();
            bytes.truncate(*len);
            Ok(bytes)
        });
        bytes.collect()
    }

    /// As on the host, in the device's memory: each process adds one piece, on the first stream.
    fn sum(&mut self, buffers: &mut [Buffer]) -> Result<()> {
        let (size, rank, device) = (self.size, self.rank, self.device);
        let len: usize = buffers.iter().map(Buffer::len).sum();
        let piece = len.div_ceil(size);
        if piece == 0 {
            return Ok(());
        }
        let mut whole = Buffer::zeros(&device, DType::F32, piece * size)?;
        let mut at = 0;
        for buffer in buffers.iter() {
            whole.copy_range(at, buffer, 0, buffer.len())?;
            at += buffer.len();
        }
        let parts = self.others().map(|_| Buffer::zeros(&device, DType::F32, piece));
        let parts = parts.collect::<ltm_kernels::Result<Vec<_>>>()?;
        let sends: Vec<_> =
            self.others().map(|to| (to, Range::of(&whole, to * piece, piece))).collect();
        let receives: Vec<_> = self
            .others()
            .zip(&parts)
            .map(|(from, part)| (from, Range::of(part, 0, piece)))
            .collect();
        // SAFETY: pieces of `whole`, and the whole of `parts`, which live to the end of this function.
        unsafe { self.moved(&sends, &receives, SUM)? };
        let mut own = Buffer::zeros(&device, DType::F32, piece)?;
        own.copy_range(0, &whole, rank * piece, piece)?;
        let (mut own, mut parts) = (Some(own), parts.into_iter());
        let terms = (0..size).map(|from| match from == rank {
            true => own.take().expect("each rank comes once"),
            false => parts.next().expect("one of each other process"),
        });
        let mut added = Ok(());
        let add = |sum: &mut Buffer, term: Buffer| {
            if added.is_ok() {
                added = elementwise::add_assign(&device, sum, &term);
            }
        };
        let mine = tree::sum(terms, add).expect("there is a process");
        added?;
        let sends: Vec<_> = self.others().map(|to| (to, Range::of(&mine, 0, piece))).collect();
        let receives: Vec<_> =
            self.others().map(|from| (from, Range::of(&whole, from * piece, piece))).collect();
        // SAFETY: as above; `mine` is only read, and no piece comes twice.
        unsafe { self.moved(&sends, &receives, SUM)? };
        whole.copy_range(rank * piece, &mine, 0, piece)?;
        let mut at = 0;
        for buffer in buffers {
            let len = buffer.len();
            buffer.copy_range(0, &whole, at, len)?;
            at += len;
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        if self.communicator.is_null() {
            return Ok(());
        }
        // SAFETY: the communicator is alive and not used again.
        let code = unsafe { (self.functions.destroy)(self.communicator) };
        self.communicator = std::ptr::null_mut();
        self.functions.check("ncclCommDestroy", code, std::ptr::null_mut())
    }

    fn name(&self) -> String {
        let mut version = 0;
        // SAFETY: the target is alive.
        unsafe { (self.functions.get_version)(&mut version) };
        format!("NCCL {}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        self.abort();
    }
}
