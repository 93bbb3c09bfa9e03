//! Launches: distributes blocks over host threads, runs warps in random order, opens barriers. Must
//! not know instructions.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::counters::Counters;
use crate::exec::{self, Stop};
use crate::fault::{Fault, FaultKind, OtherAccess, Trouble};
use crate::fences::Fences;
use crate::inst::{BarrierKind, Code, Initial, Reg};
use crate::memory::{Memory, Snapshot};
use crate::occupancy::Occupancy;
use crate::program::Module;
use crate::shared::Shared;
use crate::warp::Warp;
use crate::{LaunchConfig, Options};

/// What all blocks of a launch share.
pub(crate) struct Launch<'a> {
    pub code: &'a Code,
    pub params: &'a [u8],
    pub memory: Snapshot,
    pub options: &'a Options,
    /// Distinguishes this launch from others in the access records of memory.
    pub number: u64,
    /// Tracks which accesses of different blocks are ordered.
    pub fences: Fences,
    initial: Vec<(Reg, u64)>,
    specials: Vec<(Reg, &'a str)>,
    config: LaunchConfig,
    static_bytes: u32,
    shared_bytes: usize,
}

/// Maximum host memory for the warps of a launch, in bytes.
const MAX_WARP_BYTES: u64 = 4 << 30;

impl Launch<'_> {
    /// The 3-D index of a block from its linear index in the grid.
    pub fn block_index(&self, number: u64) -> [u32; 3] {
        let [x, y, z] = self.config.grid.map(u64::from);
        [number % x, number / x % y, number / x / y % z].map(|i| i as u32)
    }

    /// The 3-D index of a thread from its linear index in the block.
    pub fn thread_index(&self, thread: u32) -> [u32; 3] {
        let [x, y, _] = self.config.block;
        [thread % x, thread / x % y, thread / x / y]
    }
}

/// A running block.
pub(crate) struct Block<'a> {
    pub launch: &'a Launch<'a>,
    /// Its linear index in the grid.
    pub number: u32,
    pub n_threads: u32,
    pub shared: Shared,
    pub counters: Counters,
    /// Index of the allocation that the last global access used.
    pub hint: usize,
    /// The block's time for ordering between blocks: the number of fences so far.
    pub time: u32,
    votes: Vec<Vote>,
}

/// One warp's contribution to a reducing barrier (`bar.red`).
struct Vote {
    warp: usize,
    kind: BarrierKind,
    votes: u32,
    mask: u32,
    d: Option<Reg>,
    dp: Option<u32>,
}

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
            let (fixed, registers) = (kernel.static_shared_bytes, kernel.max_registers);
            let occupancy = Occupancy::new(&options.device, &config, fixed, registers);
            counters.occupancy = Some(occupancy);
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

type Outcome = Result<Counters, (Trouble, usize, u32)>;

fn run_block(
    launch: &Launch,
    warps: &mut [Warp],
    number: u32,
    index: [u32; 3],
    n_threads: u32,
) -> Outcome {
    let mut random = Random::new(launch.options.seed, u64::from(number));
    for warp in warps.iter_mut() {
        let lanes = (n_threads - 32 * warp.index as u32).min(32);
        warp.start(u32::MAX >> (32 - lanes));
        for (reg, value) in &launch.initial {
            warp.registers[*reg as usize] = [*value; 32];
        }
        for (reg, name) in &launch.specials {
            let first = 32 * warp.index as u32;
            let value = |lane: u32| special(name, launch, index, first + lane, warp.index as u32);
            warp.registers[*reg as usize] = std::array::from_fn(|lane| value(lane as u32));
        }
    }
    let mut block = Block {
        launch,
        number,
        n_threads,
        shared: Shared::new(launch.shared_bytes, warps.len(), launch.options.races),
        counters: Counters { warps: warps.len() as u64, ..Counters::default() },
        hint: 0,
        time: 0,
        votes: Vec::new(),
    };
    let mut ready: Vec<usize> = (0..warps.len()).collect();
    let mut exited = 0;
    let limit = launch.options.max_steps;
    loop {
        while !ready.is_empty() {
            let at = random.below(ready.len());
            let warp = ready[at];
            let turn = 16 + random.below(240) as u32;
            let outcome = exec::run(&mut block, &mut warps[warp], turn);
            match outcome.map_err(|(trouble, pc)| (trouble, warp, pc))? {
                Stop::Turn => {}
                Stop::Barrier => {
                    ready.swap_remove(at);
                }
                Stop::Done => {
                    exited += 1;
                    ready.swap_remove(at);
                }
            }
            if block.counters.instructions.iter().sum::<u64>() > limit {
                let pc = warps[warp].groups.last().map_or(0, |group| group.pc);
                let detail =
                    format!("the block's warps have issued more than {limit} instructions");
                return Err((Trouble::warp(FaultKind::Endless, detail), warp, pc));
            }
        }
        if exited == warps.len() {
            return Ok(block.counters);
        }
        ready = release(&mut block, warps)?;
    }
}

/// Opens a barrier that all its threads have reached; returns the warps that continue.
fn release(block: &mut Block, warps: &mut [Warp]) -> Result<Vec<usize>, (Trouble, usize, u32)> {
    let waiting = |warp: &Warp| warp.waiting;
    let ids: Vec<_> = warps.iter().filter_map(waiting).collect();
    for (id, count) in ids {
        let at: Vec<usize> =
            (0..warps.len()).filter(|w| warps[*w].waiting == Some((id, count))).collect();
        let arrived: u32 = at.iter().map(|w| warps[*w].live.count_ones()).sum();
        if arrived < count {
            continue;
        }
        block.shared.open_barrier();
        block.settle_votes(warps);
        for warp in &at {
            warps[*warp].waiting = None;
        }
        return Ok(at);
    }
    let stuck = warps.iter().find(|warp| warp.waiting.is_some()).map_or(0, |warp| warp.index);
    let (id, count) = warps[stuck].waiting.unwrap_or_default();
    let arrived: u32 =
        warps.iter().filter(|w| w.waiting.is_some()).map(|w| w.live.count_ones()).sum();
    let detail = format!(
        "{arrived} of {count} threads wait at barrier {id}, the others exited or wait elsewhere"
    );
    let pc = warps[stuck].groups.last().map_or(0, |group| group.pc.saturating_sub(1));
    Err((Trouble::warp(FaultKind::Deadlock, detail), stuck, pc))
}

impl Block<'_> {
    /// Records a warp's contribution to a reducing barrier until all have arrived.
    pub(crate) fn vote(
        &mut self,
        warp: usize,
        kind: BarrierKind,
        votes: u32,
        mask: u32,
        d: Option<Reg>,
        dp: Option<u32>,
    ) {
        self.votes.push(Vote { warp, kind, votes, mask, d, dp });
    }

    fn settle_votes(&mut self, warps: &mut [Warp]) {
        let popc: u32 = self.votes.iter().map(|vote| vote.votes.count_ones()).sum();
        let all = self.votes.iter().all(|vote| vote.votes == vote.mask);
        for vote in std::mem::take(&mut self.votes) {
            let warp = &mut warps[vote.warp];
            if let Some(d) = vote.d {
                warp.set(d, &[u64::from(popc); 32], vote.mask);
            }
            let holds = if vote.kind == BarrierKind::And { all } else { popc > 0 };
            if let Some(dp) = vote.dp {
                let p = &mut warp.predicates[dp as usize];
                *p = *p & !vote.mask | if holds { vote.mask } else { 0 };
            }
        }
    }
}

fn special(name: &str, launch: &Launch, index: [u32; 3], thread: u32, warp: u32) -> u64 {
    let LaunchConfig { grid, block: [x, y, z], dynamic_shared_bytes } = launch.config;
    let lane = thread % 32;
    let value = match name {
        "tid.x" => thread % x,
        "tid.y" => thread / x % y,
        "tid.z" => thread / x / y,
        "ntid.x" => x,
        "ntid.y" => y,
        "ntid.z" => z,
        "ctaid.x" => index[0],
        "ctaid.y" => index[1],
        "ctaid.z" => index[2],
        "nctaid.x" => grid[0],
        "nctaid.y" => grid[1],
        "nctaid.z" => grid[2],
        "laneid" => lane,
        "warpid" => warp,
        "nwarpid" => (x * y * z).div_ceil(32),
        "dynamic_smem_size" => dynamic_shared_bytes,
        "total_smem_size" => launch.static_bytes + dynamic_shared_bytes,
        // Blocks are assigned to multiprocessors round-robin.
        "smid" => (u64::from(index[0])
            + u64::from(grid[0]) * (u64::from(index[1]) + u64::from(grid[1]) * u64::from(index[2])))
        .rem_euclid(u64::from(launch.options.device.multiprocessors.max(1)))
            as u32,
        "nsmid" => launch.options.device.multiprocessors,
        "gridid" => return launch.number,
        "lanemask_eq" => 1 << lane,
        "lanemask_lt" => (1 << lane) - 1,
        "lanemask_le" => u32::MAX >> (31 - lane),
        "lanemask_gt" => !(u32::MAX >> (31 - lane)),
        "lanemask_ge" => !((1 << lane) - 1),
        _ => 0,
    };
    u64::from(value)
}

/// An xorshift generator: the order of warps needs to be reproducible, nothing more.
struct Random(u64);

impl Random {
    fn new(seed: u64, block: u64) -> Self {
        Self((seed ^ block.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % n
    }
}
