//! What carries bytes between processes, and the sums that are made of it. An engine sends and receives; nothing is added
//! outside this file and in an order other than that of the tree.

pub(crate) mod mpi;
#[cfg(feature = "cuda")]
pub(crate) mod nccl;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytemuck::Pod;
use ltm_kernels::{Buffer, DType, Device, Float};

use crate::{Error, Result, tree};

/// Bytes to one process. Shared, because all processes may get the same, and because a library that fails may keep them.
pub(crate) type Message = Arc<Vec<u8>>;

/// The messages of one process in one exchange: at most one to each other process and one from each.
pub(crate) struct Exchange {
    /// To whom, and what.
    pub sends: Vec<(usize, Message)>,
    /// From whom, and how many bytes.
    pub receives: Vec<(usize, usize)>,
    pub wait: Wait,
}

/// What an exchange is for, and how long it waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    /// For messages.
    pub during: &'static str,
    /// Whether it waits for as long as it takes: for work that takes one process longer than another.
    pub is_patient: bool,
}

impl Wait {
    /// How long to sleep until the next look, after `waited` without an answer: at first not at all, so that a short exchange
    /// is one, then so briefly that it costs nothing beside the waiting.
    fn pause(self, waited: Duration) -> Option<Duration> {
        const SPIN: Duration = Duration::from_micros(50);
        const SHORT: Duration = Duration::from_micros(50);
        const LONG: Duration = Duration::from_millis(5);
        match waited {
            waited if waited < SPIN => None,
            waited if self.is_patient && waited > Duration::from_secs(1) => Some(LONG),
            _ => Some(SHORT),
        }
    }

    /// The error of having waited for `timeout`, if that is too long.
    fn check(
        self,
        waited: Duration,
        timeout: Duration,
        ranks: impl Iterator<Item = usize>,
    ) -> Result<()> {
        if self.is_patient || waited <= timeout {
            return Ok(());
        }
        let ranks = BTreeSet::from_iter(ranks).into_iter().collect();
        Err(Error::Missing { ranks, seconds: timeout.as_secs(), during: self.during })
    }
}

/// Connects the processes of a job. Every process makes the same calls in the same order.
pub(crate) trait Engine {
    /// This process and their number.
    fn place(&self) -> (usize, usize);
    /// Sends and receives; the messages that came are in the order of `receives`.
    ///
    /// # Errors
    /// [`Error::Missing`] naming who did not answer in time, [`Error::Call`].
    fn exchange(&mut self, exchange: Exchange) -> Result<Vec<Vec<u8>>>;
    /// Replaces the buffers, of the same lengths in each process, by their sums over the processes.
    ///
    /// # Errors
    /// Those of [`exchange`](Self::exchange), and of buffers that hold no floats.
    fn sum(&mut self, buffers: &mut [Buffer]) -> Result<()> {
        sum_on_host(self, buffers)
    }
    /// Ends the connection, once all processes do.
    ///
    /// # Errors
    /// [`Error::Call`].
    fn leave(&mut self) -> Result<()>;
    /// Name and version.
    fn name(&self) -> String;
}

/// Bytes of the first message of each process: its length, and a short content, which needs no second one.
const HEAD: usize = 64;

/// The bytes of every process, in the order of ranks.
pub(crate) fn gather(
    engine: &mut (impl Engine + ?Sized),
    mine: Vec<u8>,
    wait: Wait,
) -> Result<Vec<Vec<u8>>> {
    let (_, size) = engine.place();
    let mut head = (mine.len() as u64).to_ne_bytes().to_vec();
    let (start, rest) = mine.split_at(mine.len().min(HEAD - head.len()));
    head.extend(start);
    head.resize(HEAD, 0);
    let heads = to_all(engine, head, &vec![HEAD; size], wait)?;
    let (mut all, mut lengths) = (Vec::new(), Vec::new());
    for head in heads {
        let (len, start) = head.split_at(size_of::<u64>());
        let len = bytemuck::pod_read_unaligned::<u64>(len) as usize;
        lengths.push(len.saturating_sub(start.len()));
        all.push(start[..len.min(start.len())].to_vec());
    }
    if lengths.iter().any(|len| *len > 0) {
        for (all, rest) in all.iter_mut().zip(to_all(engine, rest.to_vec(), &lengths, wait)?) {
            all.extend(rest);
        }
    }
    Ok(all)
}

/// Sends the same bytes to all, and receives as many as `lengths` says from each.
fn to_all(
    engine: &mut (impl Engine + ?Sized),
    mine: Vec<u8>,
    lengths: &[usize],
    wait: Wait,
) -> Result<Vec<Vec<u8>>> {
    let (rank, size) = engine.place();
    let mine = Arc::new(mine);
    let others = || (0..size).filter(|other| *other != rank);
    let exchange = Exchange {
        sends: others().filter(|_| !mine.is_empty()).map(|to| (to, mine.clone())).collect(),
        receives: others()
            .filter(|from| lengths[*from] > 0)
            .map(|from| (from, lengths[from]))
            .collect(),
        wait,
    };
    let from: Vec<_> = exchange.receives.iter().map(|(from, _)| *from).collect();
    let came = engine.exchange(exchange)?;
    let mut all = vec![Vec::new(); size];
    for (from, bytes) in from.into_iter().zip(came) {
        all[from] = bytes;
    }
    all[rank] = Arc::unwrap_or_clone(mine);
    Ok(all)
}

/// That of sums.
pub(crate) const SUM: Wait = Wait { during: "the exchange of gradients", is_patient: false };

/// Sums buffers through the host's memory.
fn sum_on_host(engine: &mut (impl Engine + ?Sized), buffers: &mut [Buffer]) -> Result<()> {
    match buffers.first().map(Buffer::dtype) {
        Some(DType::F64) => sum_as::<f64>(engine, buffers),
        Some(_) => sum_as::<f32>(engine, buffers),
        None => Ok(()),
    }
}

/// Each process adds one piece of all numbers, in the order of the tree, and sends the sum to the others.
fn sum_as<T: Float + Pod>(
    engine: &mut (impl Engine + ?Sized),
    buffers: &mut [Buffer],
) -> Result<()> {
    let (rank, size) = engine.place();
    if size == 1 {
        return Ok(());
    }
    let mut whole: Vec<T> = Vec::new();
    for buffer in buffers.iter() {
        match buffer.device() {
            Device::Cpu => whole.extend_from_slice(buffer.as_slice::<T>()?),
            _ => whole.extend(buffer.to_f32()?.into_iter().map(|x| T::from_f64(x.into()))),
        }
    }
    let len = whole.len();
    // Pieces of one size; the last ones end with zeros.
    let piece = len.div_ceil(size).max(1);
    whole.resize(piece * size, T::ZERO);
    let bytes_of = |of: usize| bytemuck::cast_slice(&whole[of * piece..][..piece]).to_vec();
    let others = || (0..size).filter(|other| *other != rank);
    let came = engine.exchange(Exchange {
        sends: others().map(|to| (to, Arc::new(bytes_of(to)))).collect(),
        receives: others().map(|from| (from, piece * size_of::<T>())).collect(),
        wait: SUM,
    })?;
    let mut came = came.into_iter();
    let terms = (0..size).map(|from| match from == rank {
        true => whole[rank * piece..][..piece].to_vec(),
        false => {
            let bytes = came.next().expect("one of each other process");
            bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
        }
    });
    let add = |sum: &mut Vec<T>, term: Vec<T>| sum.iter_mut().zip(term).for_each(|(s, x)| *s += x);
    let mine = tree::sum(terms, add).expect("there is a process");
    let sums = to_all(
        engine,
        bytemuck::cast_slice(&mine).to_vec(),
        &vec![piece * size_of::<T>(); size],
        SUM,
    )?;
    let numbers = sums.iter().flat_map(|bytes| bytes.chunks_exact(size_of::<T>()));
    for (to, bytes) in whole.iter_mut().zip(numbers) {
        *to = bytemuck::pod_read_unaligned(bytes);
    }
    let mut rest = &whole[..len];
    for buffer in buffers {
        let (these, others) = rest.split_at(buffer.len());
        match buffer.device() {
            Device::Cpu => buffer.as_mut_slice::<T>()?.copy_from_slice(these),
            _ => {
                let these: Vec<f32> = these.iter().map(|x| x.to_f64() as f32).collect();
                buffer.write_f32(&these)?;
            }
        }
        rest = others;
    }
    Ok(())
}

/// Why a library cannot be opened.
fn why(path: &Path, error: &libloading::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => format!("{}: {error}", path.display()),
    }
}
