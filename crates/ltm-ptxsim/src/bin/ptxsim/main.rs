//! The `ptxsim` command: runs one kernel of a PTX or CUDA file, and prints what it did.
//!
//! Exit status: 0 when the kernel ran, 1 when it faulted or could not run, 2 for wrong usage.

mod argument;
mod compile;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ltm_ptxsim::{
    AsyncCopies, DeviceModel, Entry, LaunchConfig, Memory, Module, Options, Output, Program, launch,
};

use argument::Argument;

/// Memory of the simulated device, in bytes.
const DEVICE_BYTES: u64 = 16 << 30;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Run CUDA kernels on the CPU and check every access
#[derive(Parser)]
#[command(name = "ptxsim", version, max_term_width = 100)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run one kernel and print its buffers, its counters, or its fault
    Run(Run),
    /// List the kernels of a file with their parameters
    List(List),
}

const EXAMPLES: &str = "\
Arguments of the kernel, in order, one --arg each:
  f32=0.5               a number; types: i8 u8 i16 u16 i32 u32 i64 u64 f16 bf16 f32 f64
  f32:1024              a buffer of 1024 numbers, which nothing has written: reading one is a fault
  f32:1024=0            a buffer filled with a number
  i32:1024=iota         a buffer of 0, 1, 2, …
  f32:1024=random       a buffer of numbers from -1 to 1, the same in every run; integers: any bits
  u8:@image.raw         a buffer with the bytes of a file

Examples:
  ptxsim run add.cu --entry add --block 256 --arg f32:256 --arg f32:256=iota --arg f32:256=1 --arg i32=256
  ptxsim run kernels.ptx --entry reduce --grid 8 --block 256 --shared 1024 --arg f32:1 --arg f32:2048=random
  ptxsim run kernels.ptx --entry pipeline --copies eager --seed 7 --arg f32:64=iota

Exit status: 0 when the kernel ran, 1 when it faulted or could not run, 2 for wrong usage.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
struct Run {
    /// PTX file, or CUDA file (.cu), which is compiled by NVRTC if it is installed
    file: PathBuf,
    /// Name of the kernel [default: the only one in the file]
    #[arg(long, short)]
    entry: Option<String>,
    /// Kernel argument, repeatable: a number or a buffer, see below
    #[arg(long = "arg", short, value_name = "ARG", allow_hyphen_values = true)]
    args: Vec<Argument>,
    /// Grid: blocks along x, y and z
    #[arg(long, short, value_name = "X[,Y[,Z]]", default_value = "1", value_parser = extents)]
    grid: [u32; 3],
    /// Block: threads along x, y and z
    #[arg(long, short, value_name = "X[,Y[,Z]]", default_value = "32", value_parser = extents)]
    block: [u32; 3],
    /// Dynamic shared memory per block, in bytes
    #[arg(long, short, value_name = "BYTES", default_value_t = 0)]
    shared: u32,
    /// Seed of the order in which warps run; try several to find races
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// When asynchronous copies arrive; try both
    #[arg(long, value_enum, default_value_t = Copies::Deferred)]
    copies: Copies,
    /// Compute capability of the simulated device
    #[arg(long, value_enum, default_value_t = Arch::Sm80)]
    arch: Arch,
    /// Host threads that run blocks in parallel
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Do not check for races
    #[arg(long)]
    no_races: bool,
    /// Instructions that a block may issue before the launch is stopped as endless
    #[arg(long, value_name = "N", default_value_t = Options::MAX_STEPS)]
    max_steps: u64,
    /// Number of values of each buffer to print
    #[arg(long, value_name = "N", default_value_t = 8)]
    show: usize,
    /// Print what the kernel did: instructions, memory sectors, bank conflicts, occupancy
    #[arg(long, short)]
    counters: bool,
    #[command(flatten)]
    compiler: compile::Flags,
}

#[derive(Args)]
struct List {
    /// PTX file, or CUDA file (.cu), which is compiled by NVRTC if it is installed
    file: PathBuf,
    /// Compute capability to compile for
    #[arg(long, value_enum, default_value_t = Arch::Sm80)]
    arch: Arch,
    #[command(flatten)]
    compiler: compile::Flags,
}

#[derive(Clone, Copy, ValueEnum)]
enum Copies {
    /// At the wait that covers them: reveals a missing wait
    Deferred,
    /// Immediately: reveals a target that is still being read
    Eager,
}

#[derive(Clone, Copy, ValueEnum)]
enum Arch {
    #[value(name = "80", alias = "sm_80")]
    Sm80,
    #[value(name = "90", alias = "sm_90")]
    Sm90,
    #[value(name = "100", alias = "sm_100")]
    Sm100,
}

impl Arch {
    fn device(self) -> DeviceModel {
        match self {
            Arch::Sm80 => DeviceModel::sm_80(),
            Arch::Sm90 => DeviceModel::sm_90(),
            Arch::Sm100 => DeviceModel::sm_100(),
        }
    }
}

fn main() -> ExitCode {
    let outcome = match Command::parse().verb {
        Verb::Run(run) => run.run(),
        Verb::List(list) => list.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // The reader closed the pipe: it has seen enough.
        Err(error) if is_closed_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            // If stderr is closed, only the exit status remains.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn is_closed_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn extents(text: &str) -> Result<[u32; 3], String> {
    let parts: Result<Vec<u32>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    match parts.as_deref() {
        Ok([x]) => Ok([*x, 1, 1]),
        Ok([x, y]) => Ok([*x, *y, 1]),
        Ok([x, y, z]) => Ok([*x, *y, *z]),
        _ => Err("expected one to three numbers, such as 8 or 8,4,1".into()),
    }
}

impl Run {
    fn run(self) -> Outcome<()> {
        let device = self.arch.device();
        let program = self.compiler.program(&self.file, device.compute_capability)?;
        let entry = self.entry(&program)?;
        let name = entry.name.clone();
        let memory = Memory::new(DEVICE_BYTES);
        let (params, buffers) = self.parameters(entry, &memory)?;
        let module = Module::load(program, &memory)?;
        let config =
            LaunchConfig { grid: self.grid, block: self.block, dynamic_shared_bytes: self.shared };
        let options = Options {
            seed: self.seed,
            async_copies: match self.copies {
                Copies::Deferred => AsyncCopies::Deferred,
                Copies::Eager => AsyncCopies::Eager,
            },
            threads: self.threads.clamp(1, 1024),
            races: !self.no_races,
            max_steps: self.max_steps,
            device,
            output: Output::new(|text| {
                // A closed pipe is noticed when the results are printed.
                let _ = io::stdout().write_all(text.as_bytes());
            }),
        };
        let outcome = launch(&module, &name, config, &params, &memory, &options);
        let mut out = io::stdout().lock();
        for (i, argument) in self.args.iter().enumerate() {
            if let (Argument::Buffer(buffer), Some((address, before))) = (argument, &buffers[i]) {
                let after = memory_bytes(&memory, *address, before.len())?;
                writeln!(out, "arg {i}: {}", buffer.describe(before, &after, self.show))?;
            }
        }
        let counters = outcome.map_err(Box::new)?;
        if self.counters {
            write!(out, "{counters}")?;
        }
        Ok(out.flush()?)
    }

    fn entry<'p>(&self, program: &'p Program) -> Outcome<&'p Entry> {
        let names: Vec<_> = program.entries().iter().map(|entry| entry.name.as_str()).collect();
        match (&self.entry, program.entries()) {
            (Some(name), _) => Ok(program.entry(name).ok_or_else(|| {
                format!("{}: no kernel `{name}`; it has: {}", self.file.display(), names.join(", "))
            })?),
            (None, [only]) => Ok(only),
            (None, []) => Err(format!("{}: no kernel (.entry)", self.file.display()).into()),
            (None, _) => Err(format!(
                "{}: several kernels; choose one with --entry: {}",
                self.file.display(),
                names.join(", ")
            )
            .into()),
        }
    }

    /// The parameter block, and for each buffer its address and initial bytes.
    #[expect(clippy::type_complexity, reason = "two lists, by argument")]
    fn parameters(
        &self,
        entry: &Entry,
        memory: &Memory,
    ) -> Outcome<(Vec<u8>, Vec<Option<(u64, Vec<u8>)>>)> {
        if self.args.len() != entry.params.len() {
            return Err(format!(
                "kernel `{}` takes {} arguments of {} bytes, found {} --arg",
                entry.name,
                entry.params.len(),
                sizes(entry),
                self.args.len()
            )
            .into());
        }
        let mut block = Vec::new();
        let mut buffers = Vec::new();
        for (i, (argument, param)) in self.args.iter().zip(&entry.params).enumerate() {
            let bytes = match argument {
                Argument::Number(bytes) => {
                    buffers.push(None);
                    bytes.clone()
                }
                Argument::Buffer(buffer) => {
                    let len = buffer.len()?;
                    let address = memory.alloc(len as u64)?;
                    if let Some(data) = buffer.data()? {
                        memory.write(address, &data)?;
                    }
                    buffers.push(Some((address, memory_bytes(memory, address, len)?)));
                    address.to_le_bytes().into()
                }
            };
            if bytes.len() != param.size as usize {
                return Err(format!(
                    "argument {i} of kernel `{}` has {} bytes, its --arg has {}",
                    entry.name,
                    param.size,
                    bytes.len()
                )
                .into());
            }
            block.resize(param.offset as usize, 0);
            block.extend(bytes);
        }
        Ok((block, buffers))
    }
}

impl List {
    fn run(self) -> Outcome<()> {
        let program = self.compiler.program(&self.file, self.arch.device().compute_capability)?;
        let mut out = io::stdout().lock();
        for entry in program.entries() {
            let n = entry.params.len();
            writeln!(out, "{}  {n} arguments of {} bytes", entry.name, sizes(entry))?;
            if let Some(reason) = entry.unsupported() {
                writeln!(out, "    cannot run: {reason}")?;
            }
        }
        Ok(out.flush()?)
    }
}

/// The sizes of a kernel's parameters, in bytes.
fn sizes(entry: &Entry) -> String {
    let sizes: Vec<_> = entry.params.iter().map(|param| param.size.to_string()).collect();
    if sizes.is_empty() { "0".into() } else { sizes.join(", ") }
}

fn memory_bytes(memory: &Memory, address: u64, len: usize) -> Outcome<Vec<u8>> {
    let mut bytes = vec![0; len];
    memory.read(address, &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_is_sound() {
        Command::command().debug_assert();
    }

    #[test]
    fn extents_have_one_to_three_numbers() {
        assert_eq!(extents("8"), Ok([8, 1, 1]));
        assert_eq!(extents("8,4"), Ok([8, 4, 1]));
        assert_eq!(extents("8, 4, 2"), Ok([8, 4, 2]));
        assert!(extents("8,4,2,1").is_err() && extents("").is_err() && extents("-1").is_err());
    }
}
