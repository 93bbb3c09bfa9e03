//! `cargo xtask ptx`: every kernel compiled for every architecture into `target/ptx`, and the static report that
//! gates it: registers, spills, stack, shared memory and instructions against the kernel's `// budget` line.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};

use crate::contract::Budget;
use crate::kernels::KernelFile;
use crate::nvrtc::{Nvrtc, Source};
use crate::report::{self, Resources};
use crate::toolkit::{self, Toolkit};
use crate::{kernels, root, target_dir};

/// What is compiled for. The report and its gate read the first, the least capable.
const ARCHITECTURES: &[&str] = &["sm_80", "sm_90a", "sm_100a"];

/// Options of every compilation in addition to its architecture.
const OPTIONS: &[&str] = &[
    "--std=c++17",
    "-default-device",
    "-lineinfo",
    "--ptxas-options=-v",
    "--ptxas-options=--warn-on-spills",
];

/// Registers that a thread can have at all.
const MOST_REGISTERS: u32 = 255;

/// Compilations at a time; one takes a few hundred megabytes.
const THREADS: usize = 2;

/// Compiles what changed of one op or of all, prints the report and fails on the first compile error or any
/// violation.
pub fn run(op: Option<&str>) -> Result<()> {
    let files = match op {
        Some(op) => kernels::files_of(&root(), op)?,
        None => kernels::files(&root())?,
    };
    let headers = kernels::headers(&root())?;
    if files.is_empty() {
        note!("ptx: no kernels");
        return Ok(());
    }
    let toolkit = toolkit::find()?;
    let nvrtc = Nvrtc::open(&toolkit.library_dir)?;
    let builder = Builder { nvrtc, toolkit, headers, compiled: AtomicUsize::new(0) };
    let reports = in_parallel(&files, |file| builder.build(file))?;
    let compiled = builder.compiled.into_inner();

    let mut table = report::Table::default();
    let mut violations = Vec::new();
    for (file, report) in files.iter().zip(&reports) {
        report.add_to(file, &mut table, &mut violations);
    }
    outln!("{}", table.to_string().trim_end())?;
    for violation in &violations {
        note!("{violation}");
    }
    ensure!(violations.is_empty(), "ptx: {} violations", violations.len());
    note!(
        "ptx: {} entries in {} files keep their budgets; {compiled} compilations by NVRTC {}, {} unchanged",
        table.len(),
        files.len(),
        builder.nvrtc.version(),
        files.len() * ARCHITECTURES.len() - compiled,
    );
    Ok(())
}

/// What one file's compilations said.
struct Report {
    /// The compiler's log for each of [`ARCHITECTURES`].
    logs: Vec<String>,
    /// The machine code of the first architecture, disassembled.
    sass: String,
}

impl Report {
    fn add_to(&self, file: &KernelFile, table: &mut report::Table, violations: &mut Vec<String>) {
        let KernelFile { path, contract, .. } = file;
        let budget = &contract.budget;
        for (architecture, log) in ARCHITECTURES.iter().zip(&self.logs) {
            let is_first = *architecture == ARCHITECTURES[0];
            let resources = report::resources(log);
            violations.extend(
                report::warnings(log).map(|line| format!("{path}: ({architecture}): {line}")),
            );
            for entry in &contract.entries {
                let Some(used) = resources.get(entry) else {
                    violations.push(format!("{path}: {entry} ({architecture}): is not in the log"));
                    continue;
                };
                // What other architectures use is their compiler's affair, as long as nothing spills.
                let registers = if is_first { budget.registers } else { MOST_REGISTERS };
                let limits = Budget { registers, ..budget.clone() };
                violations.extend(
                    report::breaches(used, &limits)
                        .map(|what| format!("{path}: {entry} ({architecture}): {what}")),
                );
            }
            if is_first {
                self.add_rows(file, &resources, table, violations);
            }
        }
    }

    fn add_rows(
        &self,
        file: &KernelFile,
        resources: &BTreeMap<String, Resources>,
        table: &mut report::Table,
        violations: &mut Vec<String>,
    ) {
        let sass = report::Sass::read(&self.sass);
        let KernelFile { path, contract, .. } = file;
        let budget = &contract.budget;
        for mnemonic in &budget.sass {
            if sass.total(mnemonic) == 0 {
                violations.push(format!(
                    "{path}: ({}): no {mnemonic} in the machine code, the budget promises it",
                    ARCHITECTURES[0]
                ));
            }
        }
        for entry in &contract.entries {
            for local in ["LDL", "STL"] {
                let count = sass.count(entry, local);
                if count > 0 {
                    violations.push(format!(
                        "{path}: {entry} ({}): {count} {local}, local memory is not allowed",
                        ARCHITECTURES[0]
                    ));
                }
            }
            if let Some(used) = resources.get(entry) {
                table.push(entry, used, budget, &sass);
            }
        }
    }
}

/// Compiles files, unless what they made is there already.
struct Builder {
    nvrtc: Nvrtc,
    toolkit: Toolkit,
    headers: Vec<Source>,
    compiled: AtomicUsize,
}

impl Builder {
    fn build(&self, file: &KernelFile) -> Result<Report> {
        let mut logs = Vec::new();
        let mut sass = String::new();
        for architecture in ARCHITECTURES {
            let stem = stem(file, architecture);
            let key = self.key(file, architecture);
            let key_path = stem.with_extension("key");
            if fs::read_to_string(&key_path).ok().as_ref() != Some(&key) {
                self.compile(file, architecture, &stem)?;
                write(&key_path, key.as_bytes())?;
            }
            logs.push(read(&stem.with_extension("log"))?);
            if *architecture == ARCHITECTURES[0] {
                sass = read(&stem.with_extension("sass"))?;
            }
        }
        Ok(Report { logs, sass })
    }

    fn compile(&self, file: &KernelFile, architecture: &str, stem: &Path) -> Result<()> {
        let mut options = vec![format!("-arch={architecture}")];
        options.extend(OPTIONS.iter().map(ToString::to_string));
        let source = Source { name: file.path.clone(), text: file.text.clone() };
        let compiled = self
            .nvrtc
            .compile(&source, &self.headers, &options)
            .with_context(|| format!("{} ({architecture})", file.path))?;
        let cubin = stem.with_extension("cubin");
        let ptx = compiled.ptx.strip_suffix(&[0]).unwrap_or(&compiled.ptx);
        write(&stem.with_extension("ptx"), ptx)?;
        write(&cubin, &compiled.cubin)?;
        write(&stem.with_extension("log"), compiled.log.as_bytes())?;
        if architecture == ARCHITECTURES[0] {
            let nvdisasm = &self.toolkit.nvdisasm;
            let output = Command::new(nvdisasm)
                .arg("-c")
                .arg(&cubin)
                .output()
                .with_context(|| format!("cannot start {}", nvdisasm.display()))?;
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.success(), "nvdisasm {}: {complaint}", cubin.display());
            write(&stem.with_extension("sass"), &output.stdout)?;
        }
        self.compiled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Everything that decides what a compilation yields.
    fn key(&self, file: &KernelFile, architecture: &str) -> String {
        let mut hasher = DefaultHasher::new();
        (self.nvrtc.version(), OPTIONS, architecture, &file.path, &file.text).hash(&mut hasher);
        for header in kernels::included(&file.text, &self.headers) {
            (&header.name, &header.text).hash(&mut hasher);
        }
        format!("{:016x}", hasher.finish())
    }
}

/// Where a file's results lie, to be completed by an extension.
fn stem(file: &KernelFile, architecture: &str) -> PathBuf {
    let name = file.path.strip_prefix("kernels/").unwrap_or(&file.path);
    target_dir().join("ptx").join(architecture).join(name)
}

/// The results of `work` in the order of `items`, or the first error.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(i) else { break };
                    let result = work(item);
                    results.lock().expect("no thread panics here").insert(i, result);
                }
            });
        }
    });
    results.into_inner().expect("no thread panics here").into_values().collect()
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::create_dir_all(path.parent().expect("a file is in a folder"))?;
    fs::write(path, bytes).with_context(|| path.display().to_string())
}
