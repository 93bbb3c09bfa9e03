//! The rule that documents name what exists: verbs of the `ltm` command and of `cargo xtask`, the ops of `ltm-kernels`,
//! and the examples.

use std::collections::BTreeSet;

use super::Tree;
use crate::flags;

const COMMAND: &str = "crates/ltm-cli/src/main.rs";
const OPS: &str = "crates/ltm-kernels/src/ops/mod.rs";
const OPS_README: &str = "crates/ltm-kernels/README.md";
const EXAMPLES: &str = "docs/examples.md";

/// Reports what documents name and the code lacks, and ops and examples that their list lacks.
pub fn names(tree: &Tree, found: &mut Vec<String>) {
    if let Some(main) = tree.texts.get(COMMAND) {
        let verbs = verbs(main);
        let chores: BTreeSet<_> = flags::VERBS
            .iter()
            .filter_map(|(verb, _)| verb.split(' ').next())
            .map(String::from)
            .collect();
        for (path, text) in tree.texts.iter().filter(|(path, _)| is_document(path)) {
            for (program, known) in [("ltm ", &verbs), ("cargo xtask ", &chores)] {
                for (line, verb) in called(text, program) {
                    if !known.contains(verb) {
                        found.push(format!("{path}:{line}: `{program}{verb}` does not exist"));
                    }
                }
            }
        }
    }
    if let (Some(ops), Some(readme)) = (tree.texts.get(OPS), tree.texts.get(OPS_README)) {
        let ops: BTreeSet<_> = ops
            .lines()
            .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
            .collect();
        let named: BTreeSet<_> = readme
            .lines()
            .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0))
            .collect();
        for op in ops.difference(&named) {
            found.push(format!("{OPS_README}:1: does not list the op `{op}`"));
        }
        for op in named.difference(&ops) {
            found.push(format!("{OPS_README}:1: lists `{op}`, which is no op"));
        }
    }
    examples(tree, found);
}

fn examples(tree: &Tree, found: &mut Vec<String>) {
    for (path, text) in tree.texts.iter().filter(|(path, _)| is_document(path)) {
        for (i, line) in text.lines().enumerate() {
            for command in line.split(" -p ").skip(1) {
                let Some((package, rest)) = command.split_once(" --example ") else { continue };
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
                let name = &rest[..end.unwrap_or(rest.len())];
                let example = format!("crates/{package}/examples/{name}.rs");
                if !package.contains(' ') && !tree.paths.contains(&example) {
                    found.push(format!("{path}:{}: runs `{example}`, which does not exist", i + 1));
                }
            }
        }
    }
    if let Some(list) = tree.texts.get(EXAMPLES) {
        for path in tree.texts.keys() {
            let mut parts = path.split('/').skip(2);
            if parts.next() == Some("examples") && path.ends_with(".rs") && !list.contains(path) {
                found.push(format!("{EXAMPLES}:1: does not list `{path}`"));
            }
        }
    }
}

fn is_document(path: &str) -> bool {
    path.ends_with(".md") && !path.starts_with("benches/runs/")
}

/// The variants of the command's `enum Verb`, as clap names them.
fn verbs(main: &str) -> BTreeSet<String> {
    let body = main.split_once("enum Verb {").map_or("", |(_, rest)| rest);
    let body = body.split_once("\n}").map_or(body, |(body, _)| body);
    let variant = |line: &str| {
        let name: String = line.trim().chars().take_while(|c| c.is_alphanumeric()).collect();
        let is_variant = line.starts_with("    ") && name.starts_with(|c: char| c.is_uppercase());
        is_variant.then(|| kebab(&name))
    };
    body.lines().filter_map(variant).collect()
}

fn kebab(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.extend(c.to_lowercase());
    }
    text
}

/// The words after a program's name where it is called: at the start of a line of a code block or of quoted code.
fn called<'a>(text: &'a str, program: &str) -> Vec<(usize, &'a str)> {
    let mut within_block = false;
    let mut found = Vec::new();
    for (i, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            within_block = !within_block;
            continue;
        }
        let pieces: Vec<_> =
            if within_block { vec![line] } else { line.split('`').skip(1).step_by(2).collect() };
        for piece in pieces {
            let Some(rest) = piece.trim_start().strip_prefix(program) else { continue };
            let verb = rest.split_whitespace().next().unwrap_or_default();
            if verb.starts_with(|c: char| c.is_ascii_lowercase()) {
                found.push((i + 1, verb.trim_end_matches([',', ';'])));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;

    #[test]
    fn verbs_that_do_not_exist() {
        let main =
            "//! A.\nenum Verb {\n    /// Trains\n    Train(train::Args),\n    TwoWords,\n}\n";
        let command = ("crates/ltm-cli/src/main.rs", main);
        for fine in [
            "`ltm train x`, `ltm two-words`, `ltm --help`, `ltm VERB` and ltm none",
            "```sh\nltm train x # ltm none\n```",
            "`cargo xtask test` and `cargo xtask bench rope`",
        ] {
            assert_eq!(check(&[command, ("docs/a.md", fine)]), [""; 0]);
        }
        let text = "A.\n`ltm none x`\n```sh\nltm tarin x\n```\n`cargo xtask tset`\n";
        assert_eq!(
            check(&[command, ("README.md", text)]),
            [
                "README.md:2: `ltm none` does not exist",
                "README.md:4: `ltm tarin` does not exist",
                "README.md:6: `cargo xtask tset` does not exist",
            ]
        );
    }

    #[test]
    fn ops_and_their_readme() {
        let ops = (
            "crates/ltm-kernels/src/ops/mod.rs",
            "//! A.\npub mod rope;\npub mod slice;\nmod own;\n",
        );
        let readme = "| Op |\n| --- |\n| `rope` | x |\n| `slice` | y |\n";
        assert_eq!(check(&[ops, ("crates/ltm-kernels/README.md", readme)]), [""; 0]);
        let found =
            check(&[ops, ("crates/ltm-kernels/README.md", "| `rope` | x |\n| `rpoe` | x |\n")]);
        assert_eq!(
            found,
            [
                "crates/ltm-kernels/README.md:1: does not list the op `slice`",
                "crates/ltm-kernels/README.md:1: lists `rpoe`, which is no op",
            ]
        );
    }

    #[test]
    fn examples_and_their_list() {
        let example = ("crates/a/examples/b.rs", "//! B.\n");
        let fine =
            "`crates/a/examples/b.rs`: `cargo run -p a --example b`, `-p a --lib --example c`\n";
        assert_eq!(check(&[example, ("docs/examples.md", fine)]), [""; 0]);
        let text = "A.\n`cargo run -p a --example b1`\n";
        assert_eq!(
            check(&[example, ("docs/examples.md", text)]),
            [
                "docs/examples.md:2: runs `crates/a/examples/b1.rs`, which does not exist",
                "docs/examples.md:1: does not list `crates/a/examples/b.rs`",
            ]
        );
    }
}
