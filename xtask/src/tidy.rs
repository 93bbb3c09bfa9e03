//! `cargo xtask tidy`: the project's own rules, which no compiler checks. Reads text and paths, runs nothing.

mod circles;
mod cuda;
mod links;
mod names;
mod output;
mod tokens;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::root;

/// No Rust file is longer; 400 lines is the aim.
const MAX_LINES: usize = 800;

/// The crates in order: each may use those before it.
const LINE: &[&str] = &[
    "ltm-files",
    "ltm-kernels",
    "ltm-autodiff",
    "ltm-model",
    "ltm-vi",
    "ltm-data",
    "ltm-collective",
    "ltm-train",
    "ltm-eval",
    "ltm-serve",
    "ltm-cli",
];

/// Data knows nothing of models: of the crates before it, it uses only these.
const DATA: (&str, &[&str]) = ("ltm-data", &["ltm-files", "ltm-kernels"]);

/// Outside that order: serves tests and benches, uses none of these crates.
const TESTKIT: &str = "ltm-testkit";

/// Outside that order too: a simulator that is loaded as a library, so that no crate depends on it.
const PTXSIM: &str = "ltm-ptxsim";

/// Top folders: a quoted path in a document that starts with one must exist.
const TOP_FOLDERS: &[&str] = &["crates/", "configs/", "docs/", "kernels/", "xtask/", "benches/"];

/// Prints every violation and fails if there is one.
pub fn run() -> Result<()> {
    let tree = Tree::read(&root())?;
    let violations = violations(&tree);
    for violation in &violations {
        note!("{violation}");
    }
    ensure!(violations.is_empty(), "tidy: {} violations", violations.len());
    note!("tidy: {} files keep the rules", tree.texts.len());
    Ok(())
}

/// A folder's paths, relative and with forward slashes, and the contents of the text files.
#[derive(Default)]
struct Tree {
    paths: BTreeSet<String>,
    texts: BTreeMap<String, String>,
}

impl Tree {
    /// Reads a working tree without `.git` and without what the top `.gitignore` names.
    fn read(top: &Path) -> Result<Self> {
        let ignored = fs::read_to_string(top.join(".gitignore")).unwrap_or_default();
        let mut skipped: Vec<_> =
            ignored.lines().filter_map(|line| line.strip_prefix('/')).collect();
        skipped.push(".git");
        let mut tree = Self::default();
        tree.read_folder(top, "", &skipped)?;
        Ok(tree)
    }

    fn read_folder(&mut self, top: &Path, folder: &str, skipped: &[&str]) -> Result<()> {
        let at = top.join(folder);
        for entry in fs::read_dir(&at).with_context(|| at.display().to_string())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            if skipped.contains(&path.as_str()) {
                continue;
            }
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.read_folder(top, &path, skipped)?;
            } else if kind.is_file() && is_text(&path) {
                let text = fs::read_to_string(entry.path()).with_context(|| path.clone())?;
                self.texts.insert(path.clone(), text);
            }
            self.paths.insert(path);
        }
        Ok(())
    }
}

fn is_text(path: &str) -> bool {
    [".rs", ".md", ".toml", ".cu", ".cuh"].iter().any(|ending| path.ends_with(ending))
}

/// Every breach of every rule, as `path:line: what is wrong`.
fn violations(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in &tree.texts {
        let mut report = |line: usize, what: String| found.push(format!("{path}:{line}: {what}"));
        trailing_space(text, &mut report);
        words::avoided(path, text, &mut report);
        if path.ends_with(".rs") {
            length(text, &mut report);
            header(text, &mut report);
            unsafe_rooms(path, text, &mut report);
            output::one_writer(path, text, &mut report);
        }
        if path.ends_with(".md") {
            links::links(path, text, &tree.paths, &mut report);
        }
        if path.starts_with("docs/") && path.ends_with(".md") || path.ends_with("README.md") {
            named_paths(text, &tree.paths, &mut report);
        }
        if path.ends_with("/Cargo.toml") {
            direction(path, text, &mut report);
            keywords(text, &mut report);
        }
    }
    circles::circles(tree, &mut found);
    cuda::kernels(tree, &mut found);
    names::names(tree, &mut found);
    found
}

fn trailing_space(text: &str, report: &mut impl FnMut(usize, String)) {
    for (i, line) in text.lines().enumerate() {
        if line != line.trim_end() {
            report(i + 1, "trailing space".into());
        }
    }
}

fn length(text: &str, report: &mut impl FnMut(usize, String)) {
    let lines = text.lines().count();
    if lines > MAX_LINES {
        report(lines, format!("{lines} lines, at most {MAX_LINES} are allowed"));
    }
}

fn header(text: &str, report: &mut impl FnMut(usize, String)) {
    if !text.starts_with("//!") && !text.starts_with("#![doc") {
        report(1, "begins without `//!` or `#![doc`: what does this module know?".into());
    }
}

fn unsafe_rooms(path: &str, text: &str, report: &mut impl FnMut(usize, String)) {
    if may_be_unsafe(path) {
        return;
    }
    for (i, line) in text.lines().enumerate() {
        let code = without_text(line);
        let mut words = code.split(|c: char| c != '_' && !c.is_alphanumeric());
        if words.any(|word| word == "unsafe") {
            report(i + 1, "`unsafe` outside the rooms that may hold it".into());
        }
    }
}

fn may_be_unsafe(path: &str) -> bool {
    let whole_files = [
        "benches/src/bin/gpu/cublaslt.rs",
        "crates/ltm-autodiff/examples/custom_operation.rs",
        "crates/ltm-autodiff/tests/cuda.rs",
        "crates/ltm-collective/src/engine/mpi.rs",
        "crates/ltm-collective/src/engine/nccl.rs",
        "crates/ltm-kernels/src/program.rs",
        "crates/ltm-ptxsim/src/bin/ptxsim/compile.rs",
        "xtask/src/nvrtc.rs",
    ];
    // The simulator's C interface, and the callers of a driver that try it.
    let simulator = ["src/driver/", "tests/", "examples/"];
    let in_simulator = |path: &str| simulator.iter().any(|room| path.starts_with(room));
    if whole_files.contains(&path)
        || path.strip_prefix("crates/ltm-ptxsim/").is_some_and(in_simulator)
    {
        return true;
    }
    let Some(kernels) = path.strip_prefix("crates/ltm-kernels/src/") else { return false };
    kernels.starts_with("simd/")
        || kernels.starts_with("cuda/")
        || (kernels.starts_with("ops/") && kernels.ends_with("/cuda.rs"))
}

/// A line of Rust without its line comment and its string literals; raw strings are not understood.
fn without_text(line: &str) -> String {
    let mut code = String::new();
    let mut within = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if within => drop(chars.next()),
            '"' => within = !within,
            '\'' if !within && chars.peek() == Some(&'"') => drop(chars.next()), // '"'
            '/' if !within && chars.peek() == Some(&'/') => break,
            c if !within => code.push(c),
            _ => {}
        }
    }
    code
}

fn named_paths(text: &str, paths: &BTreeSet<String>, report: &mut impl FnMut(usize, String)) {
    let mut within_block = false;
    for (i, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            within_block = !within_block;
        }
        if within_block {
            continue;
        }
        for quoted in line.split('`').skip(1).step_by(2) {
            let is_path = TOP_FOLDERS.iter().any(|folder| quoted.starts_with(folder));
            // `<op>`, `*`, `{a,b}` and `…` stand for many paths; a space means a command.
            let is_pattern = quoted.contains(|c| "<>*{}… ".contains(c));
            if is_path && !is_pattern && !paths.contains(quoted.trim_end_matches('/')) {
                report(i + 1, format!("names `{quoted}`, which does not exist"));
            }
        }
    }
}

fn direction(path: &str, text: &str, report: &mut impl FnMut(usize, String)) {
    let folder = path.trim_end_matches("/Cargo.toml");
    let name = folder.rsplit('/').next().unwrap_or(folder);
    let place = LINE.iter().position(|&known| known == name);
    if folder.starts_with("crates/") && place.is_none() && ![TESTKIT, PTXSIM].contains(&name) {
        report(1, format!("`{name}` has no place in the line of crates"));
    }
    for (line, section, used) in house_dependencies(text) {
        let is_allowed = match place {
            Some(_) if used == TESTKIT => section == "dev-dependencies",
            Some(_) if name == DATA.0 => DATA.1.contains(&used),
            Some(place) => LINE[..place].contains(&used),
            None if name == PTXSIM && used == TESTKIT => section == "dev-dependencies",
            // Benches may use what they time; the testkit and xtask stand alone.
            None => folder == "benches",
        };
        if !is_allowed {
            report(line, format!("`{name}` may not have `{used}` in its [{section}]"));
        }
    }
}

/// What crates.io accepts: at most five keywords of at most twenty characters, at most five categories.
fn keywords(text: &str, report: &mut impl FnMut(usize, String)) {
    for (i, line) in text.lines().enumerate() {
        let Some((key @ ("keywords" | "categories"), list)) = line.split_once(" = [") else {
            continue;
        };
        let words: Vec<_> = list.split('"').skip(1).step_by(2).collect();
        if words.len() > 5 {
            report(i + 1, format!("{} {key}, at most 5 are allowed", words.len()));
        }
        for word in words.iter().filter(|word| key == "keywords" && word.len() > 20) {
            report(
                i + 1,
                format!("keyword `{word}` has {} characters, at most 20 are allowed", word.len()),
            );
        }
    }
}

/// The `ltm-*` dependencies of a manifest, as (line number, section, name).
fn house_dependencies(manifest: &str) -> Vec<(usize, &str, &str)> {
    let mut found = Vec::new();
    let mut section = "";
    for (i, line) in manifest.lines().enumerate() {
        let line = line.trim();
        let mut key = line;
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']');
            // `[dependencies.name]` holds both in one line.
            let Some((table, name)) = section.rsplit_once('.') else { continue };
            if !table.ends_with("dependencies") {
                continue;
            }
            (section, key) = (table, name);
        }
        let name = key.split(['.', '=', ' ']).next().unwrap_or(key).trim_matches('"');
        if section.ends_with("dependencies") && name.starts_with("ltm-") {
            found.push((i + 1, section, name));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The violations in a tree of these files.
    pub(super) fn check(files: &[(&str, &str)]) -> Vec<String> {
        let mut tree = Tree::default();
        for (path, text) in files {
            for (slash, _) in path.match_indices('/') {
                tree.paths.insert(path[..slash].into());
            }
            tree.paths.insert((*path).into());
            tree.texts.insert((*path).into(), (*text).into());
        }
        violations(&tree)
    }

    #[test]
    fn this_workspace_is_tidy() {
        let tree = Tree::read(&root()).expect("the working tree can be read");
        assert!(tree.texts.contains_key("xtask/src/tidy.rs"));
        assert_eq!(violations(&tree), Vec::<String>::new());
    }

    #[test]
    fn long_file() {
        let text = |lines| format!("//! Long.\n{}", "\n".repeat(lines - 1));
        assert_eq!(check(&[("a.rs", &text(MAX_LINES))]).len(), 0);
        let found = check(&[("a.rs", &text(MAX_LINES + 1))]);
        assert_eq!(found, ["a.rs:801: 801 lines, at most 800 are allowed"]);
        assert_eq!(check(&[("a.md", &text(MAX_LINES + 1))]).len(), 0);
    }

    #[test]
    fn missing_header() {
        assert_eq!(check(&[("a.rs", "//! Fine.\n"), ("b.rs", "#![doc = \"Fine.\"]\n")]).len(), 0);
        let found = check(&[("a.rs", "// Plain.\n"), ("b.rs", "")]);
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("a.rs:1: begins without"), "{found:?}");
    }

    #[test]
    fn trailing_space_in_text_files() {
        let found = check(&[("a.rs", "//! A. \n"), ("b.md", "b\nb\t\n"), ("c.toml", "c\n")]);
        assert_eq!(found, ["a.rs:1: trailing space", "b.md:2: trailing space"]);
        assert_eq!(check(&[("a.cuh", "// a \n")]), ["a.cuh:1: trailing space"]);
    }

    #[test]
    fn unsafe_outside_its_rooms() {
        let text = "//! Unsafe.\nfn f() { unsafe { g() } }\n";
        for room in [
            "crates/ltm-kernels/src/simd/mod.rs",
            "crates/ltm-kernels/src/cuda/context.rs",
            "crates/ltm-kernels/src/ops/matmul/cuda.rs",
            "crates/ltm-ptxsim/src/driver/mod.rs",
            "xtask/src/nvrtc.rs",
        ] {
            assert_eq!(check(&[(room, text)]).len(), 0, "{room}");
        }
        for path in [
            "crates/ltm-kernels/src/ops/matmul/cpu.rs",
            "crates/ltm-data/src/b.rs",
            "crates/ltm-ptxsim/src/memory.rs",
            "xtask/src/ptx.rs",
        ] {
            let found = check(&[(path, text)]);
            assert_eq!(found, [format!("{path}:2: `unsafe` outside the rooms that may hold it")]);
        }
        for harmless in [
            "#![forbid(unsafe_code)]",
            "// unsafe is only mentioned",
            "let a = \"unsafe\";",
            "let a = ('\"', \"\\\"unsafe\"); // \"",
        ] {
            assert_eq!(check(&[("a.rs", &format!("//! A.\n{harmless}\n"))]).len(), 0, "{harmless}");
        }
        assert_eq!(check(&[("a.rs", "//! A.\nf(\"//\", unsafe { g() });\n")]).len(), 1);
    }

    #[test]
    fn path_that_does_not_exist() {
        let there = ("crates/a/src/lib.rs", "//! There.\n");
        for fine in [
            "`crates/a/src/lib.rs` and `crates/a/` are there",
            "`crates/<op>/x.rs`, `crates/*/x.rs` and `docs/{a,b}.md` stand for many",
            "`cargo xtask/x` and `f32/f64` are no paths, crates/none is not quoted",
            "```\n`crates/none`\n```",
        ] {
            assert_eq!(check(&[there, ("docs/a.md", fine)]).len(), 0, "{fine}");
        }
        let found = check(&[there, ("docs/a.md", "Good.\nSee `x` in `crates/a/src/none.rs`.\n")]);
        assert_eq!(found, ["docs/a.md:2: names `crates/a/src/none.rs`, which does not exist"]);
        assert_eq!(check(&[("README.md", "`configs/none.toml`")]).len(), 1);
    }

    #[test]
    fn keywords_that_the_registry_refuses() {
        let check = |line: &str| check(&[("crates/ltm-vi/Cargo.toml", line)]);
        assert_eq!(check("keywords = [\"a\", \"b\"]\n").len(), 0);
        assert_eq!(check("categories = [\"development-tools::testing\"]\n").len(), 0);
        assert_eq!(check("keywords = [\"variational-inference\"]\n").len(), 1);
        assert_eq!(check("keywords = [\"a\", \"b\", \"c\", \"d\", \"e\", \"f\"]\n").len(), 1);
    }

    #[test]
    fn dependency_against_the_line() {
        let left = "[dependencies]\nltm-kernels.workspace = true\nserde = \"1\"\n\
                    [dev-dependencies]\nltm-testkit = { path = \"../ltm-testkit\" }\n";
        assert_eq!(check(&[("crates/ltm-model/Cargo.toml", left)]).len(), 0);
        assert_eq!(check(&[("benches/Cargo.toml", left)]).len(), 0);
        let simulator = "[dev-dependencies]\nltm-testkit.workspace = true\n";
        assert_eq!(check(&[("crates/ltm-ptxsim/Cargo.toml", simulator)]).len(), 0);

        let planted = |path, text| {
            let found = check(&[(path, text)]);
            assert_eq!(found.len(), 1, "{path} with {text}: {found:?}");
        };
        planted("crates/ltm-kernels/Cargo.toml", "[dependencies]\nltm-model.workspace = true\n");
        planted("crates/ltm-model/Cargo.toml", "[dependencies]\nltm-model = \"0.1\"\n");
        planted("crates/ltm-vi/Cargo.toml", "[dev-dependencies]\nltm-train = \"0.1\"\n");
        planted("crates/ltm-data/Cargo.toml", "[dependencies]\nltm-model = \"0.1\"\n");
        planted("crates/ltm-vi/Cargo.toml", "[target.'cfg(unix)'.dependencies.ltm-cli]\n");
        planted("crates/ltm-vi/Cargo.toml", "[dependencies]\nltm-testkit.workspace = true\n");
        planted("crates/ltm-testkit/Cargo.toml", "[dependencies]\nltm-kernels = \"0.1\"\n");
        planted("crates/ltm-ptxsim/Cargo.toml", "[dependencies]\nltm-kernels = \"0.1\"\n");
        planted("crates/ltm-kernels/Cargo.toml", "[dev-dependencies]\nltm-ptxsim = \"0.1\"\n");
        planted("crates/ltm-new/Cargo.toml", "[dependencies]\n");
        planted("xtask/Cargo.toml", "[dependencies]\nltm-kernels.workspace = true\n");
    }
}
