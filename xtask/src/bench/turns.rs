//! Two programs that take turns: lines to them and from them, the time of a turn, the memory of a process.
//! Knows no model and no peer.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Clock ticks a second in `/proc`.
const TICKS: f64 = 100.0;

/// A program that answers each line with a line of JSON.
pub struct Program {
    name: String,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// What it said of itself.
    pub greeting: Value,
}

impl Program {
    /// Starts it and waits for its greeting; its messages pass through.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let input = child.stdin.take().expect("piped above");
        let output = BufReader::new(child.stdout.take().expect("piped above"));
        let mut program = Self { name: name.into(), child, input, output, greeting: Value::Null };
        program.greeting = program.answer()?;
        Ok(program)
    }

    /// Sends a line and waits for the answer.
    pub fn ask(&mut self, line: &str) -> Result<Value> {
        // A program that is gone shows when no answer comes.
        let _ = writeln!(self.input, "{line}");
        self.answer().with_context(|| format!("to `{line}`"))
    }

    /// As [`ask`](Self::ask), with what it took: seconds, and the share of the machine's cores that
    /// other processes kept busy meanwhile.
    pub fn turn(&mut self, line: &str) -> Result<Value> {
        let (started, before) = (Instant::now(), self.others());
        self.ask(line)?;
        let seconds = started.elapsed().as_secs_f64();
        let others = match (before, self.others()) {
            (Some((before, cores)), Some((after, _))) => {
                json!(((after - before) / seconds / cores).clamp(0.0, 1.0))
            }
            _ => Value::Null,
        };
        Ok(json!({ "seconds": seconds, "others": others }))
    }

    /// Forgets the peak of memory so far, where the system can.
    pub fn reset_peak(&self) {
        let _ = fs::write(self.proc("clear_refs"), "5");
    }

    /// Peak of resident memory in bytes, where the system tells.
    pub fn peak_bytes(&self) -> Option<u64> {
        let status = fs::read_to_string(self.proc("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib << 10)
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.is_empty() {
            let status = self.child.wait()?;
            bail!("{} ended ({status}); its output above has the reason", self.name);
        }
        let answer: Value =
            serde_json::from_str(&line).with_context(|| format!("{}: `{line}`", self.name))?;
        if let Some(error) = answer["error"].as_str() {
            bail!("{}: {error}", self.name);
        }
        Ok(answer)
    }

    fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.child.id())
    }

    /// Seconds that cores have been busy for any process but this, and the number of cores.
    fn others(&self) -> Option<(f64, f64)> {
        let machine = fs::read_to_string("/proc/stat").ok()?;
        let process = fs::read_to_string(self.proc("stat")).ok()?;
        let numbers = |text: &str| -> Vec<f64> {
            text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
        };
        let all = numbers(machine.lines().next()?);
        // user nice system idle iowait irq softirq steal: all but the two idle ones.
        let busy: f64 = all.iter().take(8).sum::<f64>() - all.get(3)? - all.get(4)?;
        let is_core = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
        let cores = machine.lines().filter(is_core).count() as f64;
        // Behind the name in brackets and the state's letter: utime and stime are numbers 11 and 12.
        let own = numbers(process.rsplit_once(')')?.1);
        Some(((busy - own.get(10)? - own.get(11)?) / TICKS, cores))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The processor's name as the system writes it.
pub fn cpu_name() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find(|line| line.starts_with("model name"));
    let name = name.and_then(|line| line.split_once(": ")).map(|(_, name)| name.trim().to_owned());
    name.unwrap_or_else(|| format!("unknown {}", std::env::consts::ARCH))
}

/// What of the processor's instructions bears on speed.
pub fn cpu_features() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = info.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let telling = ["avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16"];
    let has = |name: &&&str| flags.split_whitespace().any(|flag| flag == **name);
    telling.iter().filter(has).copied().collect::<Vec<_>>().join(" ")
}

/// Memory of the machine in GiB, 0 where it is unknown.
pub fn memory_gib() -> u64 {
    let info = fs::read_to_string(Path::new("/proc/meminfo")).unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) >> 20
}
