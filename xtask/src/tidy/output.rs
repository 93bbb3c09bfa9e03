//! The rule that one module writes to standard output and standard error: `println!` panics when a
//! reader such as `head` has left, or when the disk is full.

use super::without_text;

/// The writer itself.
const WRITER: &str = "crates/ltm-cli/src/output";

/// The command, where no stream may be opened past the writer.
const COMMAND: &str = "crates/ltm-cli/";

/// What only the writer may use.
const FORBIDDEN: &[&str] = &["print!", "println!", "eprint!", "eprintln!", "dbg!"];

/// What only the writer of the command may use.
const STREAMS: &[&str] = &["io::stdout", "io::stderr"];

/// Checks the sources of libraries and programs; tests and examples may print.
pub fn one_writer(path: &str, text: &str, report: &mut impl FnMut(usize, String)) {
    let is_source = ["crates/", "xtask/", "benches/"].iter().any(|top| path.starts_with(top))
        && path.contains("/src/");
    if !is_source || path.starts_with(WRITER) {
        return;
    }
    for (i, line) in text.lines().enumerate() {
        let code = without_text(line);
        let streams = if path.starts_with(COMMAND) { STREAMS } else { &[] };
        for name in FORBIDDEN.iter().chain(streams) {
            let mut places = code.match_indices(name);
            // `println!` is no `print!`, and neither is `my_print!`.
            let is_start =
                |at: usize| !code[..at].ends_with(|c: char| c == '_' || c.is_alphanumeric());
            if places.any(|(at, _)| is_start(at)) {
                let instead = "use `outln!` or `note!`, which do not panic on a closed pipe";
                report(i + 1, format!("`{name}` outside {WRITER}: {instead}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;

    #[test]
    fn output_past_the_writer() {
        let planted = |path, line: &str| check(&[(path, format!("//! A.\n{line}\n").as_str())]);
        for line in [
            "fn f() { print!(\"a\"); }",
            "println!();",
            "    eprint!(\"{x}\");",
            "std::eprintln!(\"{x}\");",
            "dbg!(x);",
        ] {
            for path in ["crates/ltm-cli/src/eval.rs", "xtask/src/a.rs", "benches/src/bin/b.rs"] {
                assert_eq!(planted(path, line).len(), 1, "{path}: {line}");
            }
            for path in ["crates/ltm-cli/src/output.rs", "crates/ltm-cli/src/output/a.rs"] {
                assert_eq!(planted(path, line).len(), 0, "{path}: {line}");
            }
            assert_eq!(planted("crates/ltm-cli/tests/cli.rs", line).len(), 0);
        }
        for line in ["use std::io::stdout;", "io::stderr().write_all(b\"x\")?;"] {
            assert_eq!(planted("crates/ltm-cli/src/eval.rs", line).len(), 1, "{line}");
            assert_eq!(planted("crates/ltm-testkit/src/device.rs", line).len(), 0, "{line}");
        }
        for fine in [
            "outln!(\"{x}\")?;",
            "note!(\"{x}\");",
            "/// Like `println!`.",
            "let text = \"println!(1)\";",
            "command.stdout(Stdio::null());",
            "pretty_print!(x);",
        ] {
            assert_eq!(planted("crates/ltm-cli/src/eval.rs", fine).len(), 0, "{fine}");
        }
    }
}
