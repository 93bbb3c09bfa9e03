//! The command line: which verbs there are and what may follow each.

/// What to do.
#[derive(Debug, PartialEq)]
pub enum Verb {
    Help,
    Test,
    Tidy,
    Package,
    Ptx,
    Gpu,
    Sim,
    Bench(Bench),
}

/// What to bench and where.
#[derive(Debug, Default, PartialEq)]
pub struct Bench {
    pub op: Option<String>,
    pub machine: Machine,
    /// On a GPU and the simulator: this rung alone.
    pub rung: Option<u32>,
}

/// What a bench runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Machine {
    #[default]
    Cpu,
    Sim,
    Cuda,
}

/// Every verb as it is written, with one line about it.
const VERBS: &[(&str, &str)] = &[
    ("test", "everything a change must pass, cheapest check first"),
    ("tidy", "the house rules that no compiler checks"),
    ("package", "build each published crate from its own tarball"),
    ("ptx", "compile every kernel and hold it to its budget"),
    ("sim", "run the CUDA tests on the simulator; every kernel must be executed"),
    ("gpu", "make target/gpu: all that a machine with a GPU should prove"),
    (
        "bench [op] [--device cpu|sim|cuda] [--rung n]",
        "check every op, then time it (on the simulator: count)",
    ),
];

/// The list of verbs.
pub fn help() -> String {
    let lines: Vec<_> =
        VERBS.iter().map(|(verb, about)| format!("  cargo xtask {verb:<47}{about}")).collect();
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
        ["gpu"] => Ok(Verb::Gpu),
        ["bench", rest @ ..] => parse_bench(rest).map(Verb::Bench),
        [verb @ ("test" | "tidy" | "package" | "ptx" | "sim" | "gpu"), ..] => {
            Err(format!("`{verb}` does not take `{}`", words[1..].join(" ")))
        }
        [verb, ..] => Err(format!("unknown verb `{verb}`")),
    }
}

fn parse_bench(words: &[&str]) -> Result<Bench, String> {
    let mut bench = Bench::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--device" => {
                bench.machine = match words.next() {
                    Some(&"cpu") => Machine::Cpu,
                    Some(&"sim") => Machine::Sim,
                    Some(&"cuda") => Machine::Cuda,
                    _ => return Err("`--device` takes cpu, sim or cuda".into()),
                }
            }
            "--rung" => {
                let rung = words.next().and_then(|rung| rung.parse().ok());
                bench.rung = Some(rung.ok_or("`--rung` takes a number")?);
            }
            op if !op.starts_with('-') && bench.op.is_none() => bench.op = Some(op.into()),
            other => return Err(format!("`bench` does not take `{other}`")),
        }
    }
    if bench.rung.is_some() && bench.machine == Machine::Cpu {
        return Err("`--rung` needs `--device sim` or `--device cuda`: the CPU has no rungs".into());
    }
    Ok(bench)
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
        assert_eq!(check("gpu"), Ok(Verb::Gpu));
        assert_eq!(check("bench"), Ok(Verb::Bench(Bench::default())));
        let matmul = Bench { op: Some("matmul".into()), ..Bench::default() };
        assert_eq!(check("bench matmul"), Ok(Verb::Bench(matmul)));
        let rung = Bench { op: Some("rope".into()), machine: Machine::Sim, rung: Some(2) };
        assert_eq!(check("bench --device sim rope --rung 2"), Ok(Verb::Bench(rung)));
    }

    #[test]
    fn refuses_the_rest() {
        assert_eq!(check("tset"), Err("unknown verb `tset`".into()));
        assert_eq!(check("test now"), Err("`test` does not take `now`".into()));
        for (line, complaint) in [
            ("bench --rung", "`--rung` takes a number"),
            ("bench --rung 2", "`--rung` needs"),
            ("bench --device tpu", "`--device` takes cpu, sim or cuda"),
            ("bench rope matmul", "`bench` does not take `matmul`"),
        ] {
            let error = check(line).expect_err("the line is wrong");
            assert!(error.starts_with(complaint), "{line}: {error}");
        }
    }

    #[test]
    fn help_lists_what_parse_knows() {
        for (verb, _) in VERBS {
            let word = verb.split(' ').next().expect("split yields one part at least");
            assert!(check(word).is_ok(), "{word}");
        }
    }
}
