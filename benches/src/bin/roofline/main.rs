//! What this machine can do at most: multiply-adds and bytes a second, on one thread and on all. A line of JSON for
//! each; `RAYON_NUM_THREADS` sets the number of all threads. Knows no op.

#![forbid(unsafe_code)]

use std::sync::Barrier;
use std::time::Instant;

use ltm_bench::{outln, output::OutputError};
use ltm_kernels::peak::{Unit, units};
use serde_json::json;

/// A peak is the best of these tries: anything slower was disturbed.
const TRIES: usize = 16;
/// What a try takes, roughly.
const SECONDS: f64 = 0.05;

fn main() -> Result<(), OutputError> {
    let all = rayon::current_num_threads();
    let mut counts = vec![1, all];
    counts.dedup();
    for threads in counts {
        let mut rates = serde_json::Map::new();
        for unit in units() {
            rates.insert(unit.name.into(), (arithmetic(unit, threads) / 1e9).into());
        }
        let (copy, triad) = memory(threads);
        outln!(
            "{}",
            json!({
                "threads": threads, "gflop_s": rates, "copy_gb_s": copy / 1e9, "triad_gb_s": triad / 1e9,
            })
        )?;
    }
    Ok(())
}

/// Operations a second of a unit on this many threads at once.
fn arithmetic(unit: Unit, threads: usize) -> f64 {
    let mut rounds = 1 << 16;
    let time = |rounds| {
        let started = Instant::now();
        unit.run(rounds);
        started.elapsed().as_secs_f64()
    };
    while time(rounds) < SECONDS / 2.0 {
        rounds *= 2;
    }
    // New threads for each try: the system may have put the last ones on one core.
    let tries = (0..TRIES).map(|_| at_once(1, threads, |_| (), |()| unit.run(rounds)));
    let seconds = tries.fold(f64::INFINITY, f64::min);
    threads as f64 * (unit.flops_per_round * rounds) as f64 / seconds
}

/// Bytes a second of `a = b` and of `a = b + s·c`, every array twice as large as the last cache, shared out.
fn memory(threads: usize) -> (f64, f64) {
    let n = 2 * last_cache_bytes() / size_of::<f32>() / threads;
    let arrays = |thread: usize| {
        let value = 1.0 + thread as f32;
        [vec![value; n], vec![2.0 * value; n], vec![3.0 * value; n]]
    };
    let copy = at_once(TRIES, threads, arrays, |[a, b, _]| a.copy_from_slice(b));
    let triad = at_once(TRIES, threads, arrays, |[a, b, c]| {
        let scale = std::hint::black_box(0.5);
        for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
            *a = *b + scale * *c;
        }
    });
    let bytes = (threads * n * size_of::<f32>()) as f64;
    (2.0 * bytes / copy, 3.0 * bytes / triad)
}

/// Seconds of the best of `tries` of `work` on every thread, from the moment all are ready until the last is done.
fn at_once<S>(
    tries: usize,
    threads: usize,
    prepare: impl Fn(usize) -> S + Sync,
    work: impl Fn(&mut S) + Sync,
) -> f64 {
    let barrier = Barrier::new(threads);
    let each = |thread| {
        let mut state = prepare(thread);
        let mut best = f64::INFINITY;
        for _ in 0..tries {
            barrier.wait();
            let started = Instant::now();
            work(&mut state);
            barrier.wait();
            best = best.min(started.elapsed().as_secs_f64());
        }
        best
    };
    std::thread::scope(|scope| {
        let handles: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || each(thread))).collect();
        let seconds = handles.into_iter().map(|handle| handle.join().expect("no thread panics"));
        seconds.fold(0.0, f64::max)
    })
}

/// The size of the largest cache as Linux reports it, otherwise 64 MiB.
fn last_cache_bytes() -> usize {
    let level = |index| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size");
        let size = std::fs::read_to_string(path).ok()?;
        Some(size.trim().strip_suffix('K')?.parse::<usize>().ok()? << 10)
    };
    (0..5).filter_map(level).max().unwrap_or(0).max(64 << 20)
}
