//! Runs one kernel of any PTX file on data made up here, and prints what it did.
//!
//! ```sh
//! cargo run --release -p ltm-ptxsim --example run_ptx -- FILE.ptx ENTRY GRID BLOCK SHARED ARG…
//! cargo run --release -p ltm-ptxsim --example run_ptx -- add.ptx add 8,1,1 256,1,1 0 f32:2048 f32:2048 i32=2048
//! ```
//! `SHARED` is dynamic shared memory in bytes. An argument is a buffer of `f32:LEN`, `bf16:LEN` or
//! `i32:LEN` numbers, or a number: `i32=7`, `i64=7`, `f32=0.5`.

use std::time::Instant;

use ltm_ptxsim::{LaunchConfig, Memory, Module, Options, Program, launch};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [file, entry, grid, block, shared, values @ ..] = args.as_slice() else {
        return Err("expected FILE ENTRY GRID BLOCK SHARED ARG…, see the head of this file".into());
    };
    let memory = Memory::new(8 << 30);
    let module = Module::load(Program::parse(&std::fs::read_to_string(file)?)?, &memory)?;
    let mut params = Vec::new();
    for value in values {
        let bytes = argument(&memory, value)?;
        params.resize(params.len().next_multiple_of(bytes.len()), 0);
        params.extend(bytes);
    }
    let config = LaunchConfig {
        grid: extents(grid)?,
        block: extents(block)?,
        dynamic_shared_bytes: shared.parse()?,
    };
    let start = Instant::now();
    let counters = launch(&module, entry, config, &params, &memory, &Options::default())?;
    let seconds = start.elapsed().as_secs_f64();
    print!("{counters}");
    let gflops = counters.flops as f64 / seconds / 1e9;
    println!("simulated in {seconds:.3} s on one thread: {gflops:.2} GFLOP/s");
    Ok(())
}

fn extents(text: &str) -> Outcome<[u32; 3]> {
    let parts: Vec<u32> = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
    Ok(parts.try_into().map_err(|_| format!("`{text}` is not three extents, such as 8,1,1"))?)
}

/// The bytes of one argument; a buffer is made and its address given.
fn argument(memory: &Memory, text: &str) -> Outcome<Vec<u8>> {
    if let Some((ty, value)) = text.split_once('=') {
        return Ok(match ty {
            "i32" => value.parse::<i32>()?.to_le_bytes().into(),
            "i64" => value.parse::<i64>()?.to_le_bytes().into(),
            "f32" => value.parse::<f32>()?.to_le_bytes().into(),
            _ => return Err(format!("`{ty}` is none of i32, i64, f32").into()),
        });
    }
    let (ty, len) = text.split_once(':').ok_or("an argument is TYPE:LEN or TYPE=VALUE")?;
    let len: usize = len.parse()?;
    // Numbers between -1 and 1 that are exact in every type.
    let number = |i: usize| (i * 37 % 129) as f32 / 64.0 - 1.0;
    let data: Vec<u8> = match ty {
        "f32" => (0..len).flat_map(|i| number(i).to_le_bytes()).collect(),
        "bf16" => {
            (0..len).flat_map(|i| ((number(i).to_bits() >> 16) as u16).to_le_bytes()).collect()
        }
        "i32" => (0..len as i32).flat_map(i32::to_le_bytes).collect(),
        _ => return Err(format!("`{ty}` is none of f32, bf16, i32").into()),
    };
    let address = memory.alloc(data.len() as u64)?;
    memory.write(address, &data)?;
    Ok(address.to_le_bytes().into())
}
