//! Launches: checks that a launch is possible, distributes its blocks over host threads, and tells a fault in full.
//! Must not know instructions.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::block::Launch;
use super::schedule::run_block;
use super::warp::Warp;
use crate::device::Occupancy;
use crate::memory::{Fences, Memory};
use crate::options::{LaunchConfig, Options};
use crate::program::{Initial, Module};
use crate::report::{Counters, Fault, FaultKind, OtherAccess, Trouble};

/// Maximum host memory for the warps of a launch, in bytes.
const MAX_WARP_BYTES: u64 = 4 << 30;

/// Runs a kernel to completion and returns what it did. `params` is the packed parameter block,
/// laid out as [`Entry::params`](crate::Entry) describes.
///
/// # Errors
/// The first [`Fault`] found. The kernel may already have written to `memory`.
#[expect(clippy::result_large_err, reason = "a fault ends the launch: its size costs nothing")]
pub fn launch(
    module: &Module,
    entry: &str,
    config: LaunchConfig,
    params: &[u8],
    memory: &Memory,
    options: &Options,
) -> Result<Counters, Fault> {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let refuse_as = |kind: FaultKind, detail: String| Fault {
        kind,
        kernel: entry.into(),
        ptx_line: 0,
        ptx_text: String::new(),
        source: None,
        inlined: Vec::new(),
        block: [0; 3],
        thread: None,
        address: None,
        detail,
        other: None,
    };
    let refuse = |detail: String| refuse_as(FaultKind::Limit, detail);
    let Some(kernel) = module.program().entry(entry) else {
        return Err(refuse("the module has no such kernel".into()));
    };
    let code = match &kernel.code {
        Ok(code) => code,
        Err(reason) => return Err(refuse_as(FaultKind::Unsupported, reason.to_string())),
    };
    if !module.program().runs_on(options.device.compute_capability) {
        let (major, minor) = options.device.compute_capability;
        return Err(refuse_as(
            FaultKind::Unsupported,
            format!(
                "the module is for {}, the device is sm_{major}{minor}",
                module.program().target
            ),
        ));
    }
    let LaunchConfig { grid, block, dynamic_shared_bytes } = config;
    let threads: u64 = block.iter().map(|x| u64::from(*x)).product();
    let blocks: u64 = grid.iter().map(|x| u64::from(*x)).product();
    let most = kernel.max_threads.unwrap_or(u32::MAX).min(options.device.max_threads_per_block);
    let within = |extents: [u32; 3], most: [u32; 3]| (0..3).all(|i| extents[i] <= most[i]);
    if !within(grid, options.device.max_grid) || !within(block, options.device.max_block) {
        return Err(refuse(format!(
            "grid {grid:?}, block {block:?}; at most {:?} and {:?} are allowed",
            options.device.max_grid, options.device.max_block
        )));
    }
    if threads == 0 || blocks == 0 || threads > u64::from(most) {
        return Err(refuse(format!(
            "grid {grid:?}, block {block:?}; a block may have 1 to {most} threads"
        )));
    }
    let static_bytes = kernel.static_shared_bytes.next_multiple_of(16);
    let shared_bytes = u64::from(static_bytes) + u64::from(dynamic_shared_bytes);
    let room = options.device.shared_per_block_optin;
    if shared_bytes > u64::from(room) {
        return Err(refuse(format!(
            "{shared_bytes} bytes of shared memory, at most {room} per block"
        )));
    }
    let needed = kernel.params.iter().map(|p| p.offset + p.size).max().unwrap_or(0);
    if params.len() < needed as usize {
        return Err(refuse(format!(
            "{} bytes of parameters, the kernel takes {needed}",
            params.len()
        )));
    }
    let (mut initial, mut specials) = (Vec::new(), Vec::new());
    for (reg, value) in &code.initial {
        match value {
            Initial::Value(value) => initial.push((*reg, *value)),
            Initial::DynamicShared(offset) => {
                initial.push((*reg, u64::from(static_bytes).wrapping_add_signed(*offset)));
            }
            Initial::Variable(name, offset) => {
                let address = module.global(name).map_or(0, |(address, _)| address);
                initial.push((*reg, address.wrapping_add_signed(*offset)));
            }
            Initial::Special(name) => specials.push((*reg, name.as_str())),
        }
    }
    let launch = Launch {
        code,
        params,
        memory: memory.snapshot(),
        options,
        number: NUMBER.fetch_add(1, Relaxed),
        fences: Fences::default(),
        initial,
        specials,
        config,
        static_bytes,
        shared_bytes: shared_bytes as usize,
    };
    let n_warps = threads.div_ceil(32);
    let block_bytes = n_warps * Warp::bytes(code);
    if block_bytes > MAX_WARP_BYTES {
        return Err(refuse(format!(
            "the registers and local memory of a block take {block_bytes} bytes, the simulator allows \
             {MAX_WARP_BYTES}"
        )));
    }
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let outcome = Mutex::new((Counters::default(), None::<(u64, Fault)>));
    let work = || {
        let mut warps: Vec<_> = (0..n_warps as usize).map(|i| Warp::new(code, i)).collect();
        let mut counters = Counters::default();
        let mut fault = None;
        while !stop.load(Relaxed) {
            let number = next.fetch_add(1, Relaxed);
            if number >= blocks {
                break;
            }
            let index = launch.block_index(number);
            match run_block(&launch, &mut warps, number as u32, index, threads as u32) {
                Ok(count) => counters.add(&count),
                Err((trouble, warp, pc)) => {
                    stop.store(true, Relaxed);
                    let story = tell(module, entry, &launch, trouble, warp, pc, index);
                    fault = Some((number, story));
                }
            }
        }
        let mut outcome = outcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        outcome.0.add(&counters);
        if let Some(fault) = fault
            && outcome.1.as_ref().is_none_or(|other| fault.0 < other.0)
        {
            outcome.1 = Some(fault);
        }
    };
    let n_threads =
        (options.threads as u64).clamp(1, blocks).min(MAX_WARP_BYTES / block_bytes.max(1));
    if n_threads == 1 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..n_threads {
                scope.spawn(work);
            }
        });
    }
    match outcome.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        (mut counters, None) => {
            let (of, registers) = (&options.device.multiprocessor, kernel.max_registers);
            let threads = config.block.iter().map(|extent| u64::from(*extent)).product();
            let shared_bytes =
                u64::from(kernel.static_shared_bytes) + u64::from(config.dynamic_shared_bytes);
            counters.occupancy = Some(Occupancy::new(of, threads, shared_bytes, registers));
            Ok(counters)
        }
        (_, Some((_, fault))) => Err(fault),
    }
}

/// Builds the full report of a fault from what the instruction knew.
fn tell(
    module: &Module,
    kernel: &str,
    launch: &Launch,
    trouble: Trouble,
    warp: usize,
    pc: u32,
    block: [u32; 3],
) -> Fault {
    let inst = &launch.code.insts[pc as usize];
    let file = |(file, line): &(u32, u32)| {
        let name = module.program().files.get(file).cloned();
        (name.unwrap_or_else(|| format!("file {file}")), *line)
    };
    // The outermost frame is in the kernel itself.
    let frames = inst.source.as_deref().unwrap_or_default();
    let (source, inlined) =
        frames.split_last().map_or((None, &[][..]), |(last, inner)| (Some(last), inner));
    let thread = trouble.lane.map(|lane| launch.thread_index((warp * 32 + lane) as u32));
    let other = trouble.other.map(|other| {
        let inst = &launch.code.insts[other.pc as usize];
        Box::new(OtherAccess {
            block: other.block.map_or(block, |number| launch.block_index(number.into())),
            thread: other.thread.map(|thread| launch.thread_index(thread)),
            ptx_line: inst.line,
            ptx_text: inst.text.to_string(),
            source: inst.source.as_deref().and_then(<[_]>::last).map(file),
        })
    });
    Fault {
        kind: trouble.kind,
        kernel: kernel.into(),
        ptx_line: inst.line,
        ptx_text: inst.text.to_string(),
        source: source.map(file),
        inlined: inlined.iter().map(file).collect(),
        block,
        thread,
        address: trouble.address,
        detail: trouble.detail,
        other,
    }
}
