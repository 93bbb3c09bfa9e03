//! Reads what the assembler and the disassembler print about kernels. Knows their formats, no files.

use std::collections::BTreeMap;
use std::fmt;

use crate::contract::Budget;
use crate::occupancy::{Multiprocessor, Occupancy};

/// What one entry point uses, as the assembler reports it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    pub registers: u32,
    pub stack_bytes: u32,
    /// Stores and loads together.
    pub spill_bytes: u32,
    /// Static shared memory.
    pub shared_bytes: u32,
}

/// Every entry point of a log that `--ptxas-options=-v` made.
pub fn resources(log: &str) -> BTreeMap<String, Resources> {
    let mut found = BTreeMap::new();
    let mut current: Option<&mut Resources> = None;
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let name = rest.split('\'').next().unwrap_or(rest);
            current = Some(found.entry(name.to_owned()).or_default());
        }
        let Some(entry) = &mut current else { continue };
        for part in line.split([',', ':', '.']).map(str::trim) {
            let Some((number, what)) = part.trim_start_matches("Used ").split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u32>() else { continue };
            match what.trim() {
                "registers" => entry.registers = number,
                "bytes stack frame" => entry.stack_bytes = entry.stack_bytes.max(number),
                "bytes cumulative stack size" => entry.stack_bytes = entry.stack_bytes.max(number),
                "bytes spill stores" | "bytes spill loads" => entry.spill_bytes += number,
                "bytes smem" => entry.shared_bytes = number,
                _ => {}
            }
        }
    }
    found
}

/// The warnings of compiler and assembler.
pub fn warnings(log: &str) -> impl Iterator<Item = &str> {
    // The compiler's closing remark speaks of warnings too.
    log.lines()
        .filter(|line| line.contains("warning") && !line.starts_with("Remark:"))
        .map(str::trim)
}

/// Where an entry point leaves its budget.
pub fn breaches(used: &Resources, budget: &Budget) -> impl Iterator<Item = String> {
    let over = |used: u32, limit: u32, unit: &str| {
        (used > limit).then(|| format!("{used} {unit}, the budget is {limit}"))
    };
    [
        over(used.registers, budget.registers, "registers"),
        over(used.spill_bytes, 0, "bytes spilled"),
        over(used.stack_bytes, 0, "bytes of stack"),
        over(used.shared_bytes, budget.shared_bytes, "bytes of shared memory"),
        (occupancy(used.registers, budget.threads, budget.shared_bytes) == 0)
            .then(|| format!("a block of {} threads does not fit", budget.threads)),
    ]
    .into_iter()
    .flatten()
}

/// Share of an sm_80 multiprocessor's warps that can be resident at once, in per cent, rounded down.
fn occupancy(registers: u32, threads: u32, shared_bytes: u32) -> u32 {
    let (threads, shared_bytes) = (threads.into(), shared_bytes.into());
    let of = &Multiprocessor::SM_80;
    (100.0 * Occupancy::new(of, threads, shared_bytes, Some(registers)).share()) as u32
}

/// How often each instruction occurs in each entry point.
#[derive(Default)]
pub struct Sass {
    counts: BTreeMap<String, BTreeMap<String, u32>>,
}

impl Sass {
    /// From the output of `nvdisasm -c`.
    pub fn read(listing: &str) -> Self {
        let mut counts: BTreeMap<String, BTreeMap<String, u32>> = BTreeMap::new();
        let mut current = None;
        for line in listing.lines() {
            if let Some(name) = line.strip_prefix(".text.").and_then(|l| l.strip_suffix(':')) {
                current = Some(counts.entry(name.to_owned()).or_default());
            }
            let Some(entry) = &mut current else { continue };
            let Some((_, rest)) = line.split_once("*/") else { continue };
            // An instruction may be predicated, as in `@!P0 BRA`.
            let mut words = rest.split_whitespace().skip_while(|word| word.starts_with('@'));
            let Some(word) = words.next() else { continue };
            let mnemonic = word.split('.').next().unwrap_or(word).trim_end_matches(';');
            *entry.entry(mnemonic.to_owned()).or_default() += 1;
        }
        Self { counts }
    }

    /// How often `mnemonic` occurs in `entry`.
    pub fn count(&self, entry: &str, mnemonic: &str) -> u32 {
        self.counts.get(entry).and_then(|counts| counts.get(mnemonic)).copied().unwrap_or(0)
    }

    /// How often it occurs anywhere.
    pub fn total(&self, mnemonic: &str) -> u32 {
        self.counts.values().filter_map(|counts| counts.get(mnemonic)).sum()
    }
}

/// The report: one line an entry point.
#[derive(Default)]
pub struct Table {
    rows: Vec<(String, [u32; 9])>,
}

/// The columns after the entry's name.
const COLUMNS: [&str; 9] =
    ["regs", "limit", "spill", "stack", "smem", "occ %", "HMMA", "LDSM", "LDGSTS"];

impl Table {
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn push(&mut self, entry: &str, used: &Resources, budget: &Budget, sass: &Sass) {
        let shared_bytes = used.shared_bytes.max(budget.shared_bytes);
        let row = [
            used.registers,
            budget.registers,
            used.spill_bytes,
            used.stack_bytes,
            shared_bytes,
            occupancy(used.registers, budget.threads, shared_bytes),
            sass.count(entry, "HMMA"),
            sass.count(entry, "LDSM"),
            sass.count(entry, "LDGSTS"),
        ];
        self.rows.push((entry.to_owned(), row));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|(entry, _)| entry.len()).max().unwrap_or(0);
        write!(f, "{:<width$}", "entry (sm_80)")?;
        COLUMNS.iter().try_for_each(|column| write!(f, " {column:>6}"))?;
        for (entry, row) in &self.rows {
            write!(f, "\n{entry:<width$}")?;
            row.iter().try_for_each(|number| write!(f, " {number:>6}"))?;
        }
        writeln!(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NVRTC 13.0's log of a kernel with a spill and one without.
    const LOG: &str = "\
kernels/foo/t.cu(4): warning #177-D: variable \"u\" was declared but never referenced
Remark: The warnings can be suppressed with \"-diag-suppress <warning-number>\"

ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'foo_fwd_bf16_v2' for 'sm_80'
ptxas info    : Function properties for foo_fwd_bf16_v2
ptxas         .     256 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 30 registers, used 0 barriers, 256 bytes cumulative stack size, 368 bytes cmem[0]
ptxas info    : Compile time = 6.809 ms
ptxas info    : Compiling entry function 'foo_fwd_f32_v2' for 'sm_80'
ptxas info    : Function properties for foo_fwd_f32_v2
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 1 barriers, 512 bytes smem, 364 bytes cmem[0]
";

    #[test]
    fn the_assembler_log() {
        let found = resources(LOG);
        assert_eq!(found.len(), 2);
        let spilled =
            Resources { registers: 30, stack_bytes: 256, spill_bytes: 28, shared_bytes: 0 };
        assert_eq!(found["foo_fwd_bf16_v2"], spilled);
        let clean = Resources { registers: 8, shared_bytes: 512, ..Resources::default() };
        assert_eq!(found["foo_fwd_f32_v2"], clean);
    }

    #[test]
    fn warnings_but_not_the_remark_on_them() {
        let found: Vec<_> = warnings(LOG).collect();
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("kernels/foo/t.cu(4): warning"));
    }

    #[test]
    fn breaches_name_what_and_how_much() {
        let budget = Budget { registers: 64, threads: 256, shared_bytes: 512, sass: vec![] };
        let check = |used: Resources| breaches(&used, &budget).collect::<Vec<_>>();
        let fine = Resources { registers: 64, shared_bytes: 512, ..Resources::default() };
        assert_eq!(check(fine), Vec::<String>::new());
        let wrong = Resources { registers: 72, stack_bytes: 8, spill_bytes: 4, shared_bytes: 516 };
        assert_eq!(
            check(wrong),
            [
                "72 registers, the budget is 64",
                "4 bytes spilled, the budget is 0",
                "8 bytes of stack, the budget is 0",
                "516 bytes of shared memory, the budget is 512",
            ]
        );
        let huge = Budget { threads: 1024, registers: 255, ..budget };
        let used = Resources { registers: 128, ..Resources::default() };
        let found: Vec<_> = breaches(&used, &huge).collect();
        assert_eq!(found, ["a block of 1024 threads does not fit"]);
    }

    #[test]
    fn the_disassembly() {
        let sass = Sass::read(
            "\t.global\ta\n.text.a:\n        /*0000*/                   IMAD.MOV.U32 R1, RZ, RZ ;\n\
             \x20       /*0010*/              @!P0 LDGSTS.E.BYPASS.128 [R5], [R2.64] ;\n\
             .L_x_1:\n        /*0020*/                   HMMA.16816.F32.BF16 R4, R8, R2, R4 ;\n\
             \x20       /*0030*/                   EXIT ;\n\
             .text.b:\n        /*0000*/              @P1  STL.128 [R1], R4 ;\n",
        );
        assert_eq!(sass.count("a", "HMMA"), 1);
        assert_eq!(sass.count("a", "LDGSTS"), 1);
        assert_eq!(sass.count("a", "EXIT"), 1);
        assert_eq!((sass.count("a", "STL"), sass.count("b", "STL")), (0, 1));
        assert_eq!((sass.total("HMMA"), sass.total("LDSM")), (1, 0));
    }
}
