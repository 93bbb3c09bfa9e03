//! The command line: which verbs there are and what may follow each.

/// What to do.
#[derive(Debug, PartialEq)]
pub enum Verb {
    Help,
    Test,
    Tidy,
    Package,
    Ptx,
    Sim,
    Bench { op: Option<String> },
}

/// Every verb as it is written, with one line about it.
const VERBS: &[(&str, &str)] = &[
    ("test", "everything a change must pass, cheapest check first"),
    ("tidy", "the house rules that no compiler checks"),
    ("package", "build each published crate from its own tarball"),
    ("ptx", "compile every kernel and hold it to its budget"),
    ("sim", "run the CUDA tests on the simulator; every kernel must be executed"),
    ("bench [op]", "check every op against its reference, then time it; or one op"),
];

/// The list of verbs.
pub fn help() -> String {
    let lines: Vec<_> =
        VERBS.iter().map(|(verb, about)| format!("  cargo xtask {verb:<12}{about}")).collect();
    format!("The workspace's chores:\n\n{}", lines.join("\n"))
}

/// Reads the arguments after the program's name; the error says what is wrong with them.
pub fn parse(args: impl Iterator<Item = String>) -> Result<Verb, String> {
    let args: Vec<_> = args.collect();
    let words: Vec<_> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] | ["help" | "-h" | "--help"] => Ok(Verb::Help),
        ["test"] => Ok(Verb::Test),
        ["tidy"] => Ok(Verb::Tidy),
        ["package"] => Ok(Verb::Package),
        ["ptx"] => Ok(Verb::Ptx),
        ["sim"] => Ok(Verb::Sim),
        ["bench"] => Ok(Verb::Bench { op: None }),
        ["bench", op] if !op.starts_with('-') => Ok(Verb::Bench { op: Some((*op).into()) }),
        [verb @ ("test" | "tidy" | "package" | "ptx" | "sim" | "bench"), ..] => {
            Err(format!("`{verb}` does not take `{}`", words[1..].join(" ")))
        }
        [verb, ..] => Err(format!("unknown verb `{verb}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> Result<Verb, String> {
        parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn reads_every_verb() {
        assert_eq!(check(""), Ok(Verb::Help));
        assert_eq!(check("--help"), Ok(Verb::Help));
        assert_eq!(check("test"), Ok(Verb::Test));
        assert_eq!(check("tidy"), Ok(Verb::Tidy));
        assert_eq!(check("package"), Ok(Verb::Package));
        assert_eq!(check("ptx"), Ok(Verb::Ptx));
        assert_eq!(check("sim"), Ok(Verb::Sim));
        assert_eq!(check("bench"), Ok(Verb::Bench { op: None }));
        assert_eq!(check("bench matmul"), Ok(Verb::Bench { op: Some("matmul".into()) }));
    }

    #[test]
    fn refuses_the_rest() {
        assert_eq!(check("tset"), Err("unknown verb `tset`".into()));
        assert_eq!(check("test now"), Err("`test` does not take `now`".into()));
        assert_eq!(check("bench --rung"), Err("`bench` does not take `--rung`".into()));
    }

    #[test]
    fn help_lists_what_parse_knows() {
        for (verb, _) in VERBS {
            let word = verb.split(' ').next().expect("split yields one part at least");
            assert!(check(word).is_ok(), "{word}");
        }
    }
}
