//! The command line: the verbs and their arguments.

/// What to do.
#[derive(Debug, PartialEq)]
pub enum Verb {
    Help,
    /// With the long stages, or without.
    Test {
        long: bool,
    },
    Requests,
    Clients,
    Tidy,
    Package,
    Targets,
    Hf,
    Browser,
    /// Of one op, or all.
    Ptx(Option<String>),
    Gpu,
    /// Of one op, or all.
    Sim(Option<String>),
    Bench(Bench),
    Step(Step),
    Quality(Quality),
    Load(Load),
    Roofline,
}

/// What to bench and where.
#[derive(Debug, Default, PartialEq)]
pub struct Bench {
    pub op: Option<String>,
    pub machine: Machine,
    /// Extents in place of the op's own, such as `m=1024,n=768,k=768`; the benches know their names.
    pub shape: Option<String>,
    /// On a GPU and the simulator: this rung alone.
    pub rung: Option<u32>,
}

/// Which iterations to time, and against whom.
#[derive(Debug, PartialEq)]
pub struct Step {
    pub model: &'static Preset,
    pub batch: usize,
    pub tokens: usize,
    pub fast_steps: usize,
    /// Of this project's side: `f32` or `mixed`.
    pub precision: String,
    pub threads: usize,
    pub rounds: usize,
    /// Whether to alternate with PyTorch.
    pub peer: bool,
    /// Of the peer: this variant alone.
    pub variant: Option<String>,
    pub profile: bool,
    pub save: bool,
}

/// How two trainings take turns.
#[derive(Debug, PartialEq)]
pub struct Quality {
    /// Turns of each.
    pub turns: u64,
    pub threads: usize,
    pub save: bool,
}

/// How many clients ask a server at once.
#[derive(Debug, PartialEq)]
pub struct Load {
    /// The run to serve; the model that ships without one.
    pub run: Option<String>,
    pub clients: usize,
    pub seconds: u64,
    pub save: bool,
}

impl Default for Load {
    fn default() -> Self {
        Self { run: None, clients: 64, seconds: 60, save: false }
    }
}

/// A model of the step bench, with its default shape.
#[derive(Debug, PartialEq)]
pub struct Preset {
    pub name: &'static str,
    pub config: &'static str,
    pub batch: usize,
    pub tokens: usize,
    pub fast_steps: usize,
}

/// The models of the step bench.
#[rustfmt::skip]
const PRESETS: &[Preset] = &[
    // The last is of the quickstart's width, without an encoder: what is timed are fits from the prior.
    Preset { name: "small", config: "configs/ltm-small.toml", batch: 2, tokens: 256, fast_steps: 16 },
    Preset { name: "medium", config: "configs/ltm-medium.toml", batch: 2, tokens: 256, fast_steps: 16 },
    Preset { name: "large", config: "configs/ltm-large.toml", batch: 2, tokens: 256, fast_steps: 16 },
    Preset { name: "quickstart", config: "configs/sweeps/fitted.toml", batch: 16, tokens: 96, fast_steps: 16 },
];

/// What the peer can be, in the order in which it is timed; `benches/peers/torch_ltm.py` knows them.
pub const PEER_VARIANTS: &[&str] =
    &["released", "frozen", "compiled", "released_bf16", "frozen_bf16", "compiled_bf16"];

/// What a bench runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Machine {
    #[default]
    Cpu,
    Sim,
    Cuda,
}

/// Every verb as it is written, with one line about it.
pub const VERBS: &[(&str, &str)] = &[
    (
        "test [--long]",
        "run everything that a change must pass, cheapest checks first, and what takes long",
    ),
    ("tidy", "check the project's own rules: file lengths, `unsafe`, paths and names in documents"),
    ("package", "check that each published crate compiles from its own tarball"),
    ("targets", "type-check the libraries for other systems, and the command without CUDA"),
    (
        "browser",
        "drive the page of `ltm explore` in headless Chromium, with screenshots in target/browser",
    ),
    (
        "hf",
        "compare exported models with `ltm` in PyTorch and lm-evaluation-harness (installs them)",
    ),
    ("ptx [op]", "compile every kernel and check its budget of registers and shared memory"),
    ("sim [op]", "run the CUDA tests on the simulator, which must execute every kernel"),
    (
        "clients",
        "run openai and lm-evaluation-harness against the server (of --long; installs them)",
    ),
    ("requests", "send 100,000 mutated requests to the server (of --long)"),
    ("gpu", "create target/gpu, a folder to verify and measure everything on a machine with a GPU"),
    (
        "bench [op] [--shape s] [--device d] [--rung n]",
        "check every op, then time it on `cpu` or `cuda`, or count its work on `sim`",
    ),
    ("bench step [options]", "time whole training iterations, optionally alternating with PyTorch"),
    (
        "bench quality [--turns n] [--threads n] [--save]",
        "time two trainings to the same bound [default: 24 turns of each, 2 threads]",
    ),
    (
        "bench load [--run r] [--clients n] [--seconds n] [--save]",
        "serve many clients at once, and one by one [default: 64 clients, 60 s]",
    ),
    ("bench roofline", "measure the processor's peak rates and the memory's bandwidth"),
];

/// The options of `bench step`.
const STEP_OPTIONS: &str = "  \
  --model small|medium|large|quickstart   the model [default: small]
  --batch n, --tokens n, --fast-steps n   its shape [default: the model's]
  --precision f32|mixed                   of this project's side [default: f32]
  --threads n, --rounds n                 [default: 2 and 5]
  --peer torch                            also check and time PyTorch
  --variant v                             only this variant of PyTorch
  --profile                               time each kind of op instead
  --save                                  keep the run in benches/runs";

/// The list of verbs.
pub fn help() -> String {
    let lines: Vec<_> =
        VERBS.iter().map(|(verb, about)| format!("  cargo xtask {verb:<47}{about}")).collect();
    format!("Development commands:\n\n{}\n\nbench step:\n{STEP_OPTIONS}", lines.join("\n"))
}

/// Reads the arguments after the program's name; the error says what is wrong with them.
pub fn parse(args: impl Iterator<Item = String>) -> Result<Verb, String> {
    let args: Vec<_> = args.collect();
    let words: Vec<_> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] | ["help" | "-h" | "--help"] => Ok(Verb::Help),
        ["test"] => Ok(Verb::Test { long: false }),
        ["test", "--long"] => Ok(Verb::Test { long: true }),
        ["requests"] => Ok(Verb::Requests),
        ["clients"] => Ok(Verb::Clients),
        ["tidy"] => Ok(Verb::Tidy),
        ["package"] => Ok(Verb::Package),
        ["targets"] => Ok(Verb::Targets),
        ["hf"] => Ok(Verb::Hf),
        ["browser"] => Ok(Verb::Browser),
        ["ptx"] => Ok(Verb::Ptx(None)),
        ["sim"] => Ok(Verb::Sim(None)),
        ["ptx", op] if !op.starts_with('-') => Ok(Verb::Ptx(Some((*op).into()))),
        ["sim", op] if !op.starts_with('-') => Ok(Verb::Sim(Some((*op).into()))),
        ["gpu"] => Ok(Verb::Gpu),
        ["bench", "roofline"] => Ok(Verb::Roofline),
        ["bench", "quality", rest @ ..] => parse_quality(rest).map(Verb::Quality),
        ["bench", "load", rest @ ..] => parse_load(rest).map(Verb::Load),
        ["bench", "step", rest @ ..] => parse_step(rest).map(Verb::Step),
        ["bench", rest @ ..] => parse_bench(rest).map(Verb::Bench),
        [
            verb @ ("test" | "requests" | "clients" | "tidy" | "package" | "targets" | "hf"
            | "browser" | "ptx" | "sim" | "gpu"),
            ..,
        ] => Err(format!("`{verb}` does not take `{}`", words[1..].join(" "))),
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
            "--shape" => {
                let shape = words.next().filter(|shape| shape.contains('='));
                let shape = shape.ok_or("`--shape` takes extents such as m=1024,n=768,k=768")?;
                bench.shape = Some((*shape).to_owned());
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
    if bench.shape.is_some() && bench.op.as_ref().is_none_or(|op| op.contains('/')) {
        return Err(
            "`--shape` needs an op, such as `bench matmul --shape m=1024,n=768,k=768`".into()
        );
    }
    Ok(bench)
}

/// The number after an option that takes one above 0.
fn above_zero(option: &str, word: Option<&&str>) -> Result<u64, String> {
    let number = word.and_then(|word| word.parse().ok()).filter(|number| *number > 0);
    number.ok_or(format!("`{option}` takes a number above 0"))
}

fn parse_quality(words: &[&str]) -> Result<Quality, String> {
    let mut quality = Quality { turns: 24, threads: 2, save: false };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut number = || above_zero(word, words.next());
        match *word {
            "--turns" => quality.turns = number()?,
            "--threads" => quality.threads = number()? as usize,
            "--save" => quality.save = true,
            other => return Err(format!("`bench quality` does not take `{other}`")),
        }
    }
    Ok(quality)
}

fn parse_load(words: &[&str]) -> Result<Load, String> {
    let mut load = Load::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut number = || above_zero(word, words.next());
        match *word {
            "--clients" => load.clients = number()? as usize,
            "--seconds" => load.seconds = number()?,
            "--run" => load.run = Some(words.next().ok_or("`--run` takes a folder")?.to_string()),
            "--save" => load.save = true,
            other => return Err(format!("`bench load` does not take `{other}`")),
        }
    }
    Ok(load)
}

fn parse_step(words: &[&str]) -> Result<Step, String> {
    let value = |option: &str| {
        let mut words = words.iter().skip_while(|word| **word != option);
        words.next().map(|_| words.next().copied().unwrap_or_default())
    };
    let number = |option: &str, default: usize| match value(option).map(str::parse) {
        None => Ok(default),
        Some(Ok(number)) if number > 0 => Ok(number),
        Some(_) => Err(format!("`{option}` takes a number above 0")),
    };
    let name = value("--model").unwrap_or("small");
    let model = PRESETS.iter().find(|preset| preset.name == name);
    let model = model.ok_or("`--model` takes small, medium, large or quickstart")?;
    let variant = value("--variant");
    if variant.is_some_and(|variant| !PEER_VARIANTS.contains(&variant)) {
        return Err(format!("`--variant` takes one of {}", PEER_VARIANTS.join(" ")));
    }
    let peer = value("--peer");
    if peer.is_some_and(|peer| peer != "torch") {
        return Err("`--peer` takes torch".into());
    }
    if variant.is_some() && peer.is_none() {
        return Err("`--variant` needs `--peer torch`".into());
    }
    let precision = value("--precision").unwrap_or("f32");
    if !["f32", "mixed"].contains(&precision) {
        return Err("`--precision` takes f32 or mixed".into());
    }
    let step = Step {
        model,
        batch: number("--batch", model.batch)?,
        tokens: number("--tokens", model.tokens)?,
        fast_steps: number("--fast-steps", model.fast_steps)?,
        precision: precision.into(),
        threads: number("--threads", 2)?,
        rounds: number("--rounds", 5)?,
        peer: peer.is_some(),
        variant: variant.map(String::from),
        profile: words.contains(&"--profile"),
        save: words.contains(&"--save"),
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--profile" | "--save" => {}
            "--model" | "--peer" | "--variant" | "--batch" | "--tokens" | "--fast-steps"
            | "--precision" | "--threads" | "--rounds" => drop(words.next()),
            other => return Err(format!("`bench step` does not take `{other}`")),
        }
    }
    Ok(step)
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
        assert_eq!(check("test"), Ok(Verb::Test { long: false }));
        assert_eq!(check("test --long"), Ok(Verb::Test { long: true }));
        assert_eq!(check("clients"), Ok(Verb::Clients));
        assert_eq!(check("bench load"), Ok(Verb::Load(Load::default())));
        let few = Load { clients: 3, seconds: 2, run: Some("runs/a".into()), save: true };
        assert_eq!(
            check("bench load --clients 3 --seconds 2 --run runs/a --save"),
            Ok(Verb::Load(few))
        );
        assert!(check("bench load --clients 0").is_err());
        assert_eq!(check("tidy"), Ok(Verb::Tidy));
        assert_eq!(check("package"), Ok(Verb::Package));
        assert_eq!(check("hf"), Ok(Verb::Hf));
        assert_eq!(check("browser"), Ok(Verb::Browser));
        assert_eq!(check("ptx"), Ok(Verb::Ptx(None)));
        assert_eq!(check("ptx rope"), Ok(Verb::Ptx(Some("rope".into()))));
        assert_eq!(check("sim"), Ok(Verb::Sim(None)));
        assert_eq!(check("sim rope"), Ok(Verb::Sim(Some("rope".into()))));
        assert_eq!(check("gpu"), Ok(Verb::Gpu));
        assert_eq!(check("bench"), Ok(Verb::Bench(Bench::default())));
        let matmul = Bench { op: Some("matmul".into()), ..Bench::default() };
        assert_eq!(check("bench matmul"), Ok(Verb::Bench(matmul)));
        assert_eq!(check("bench roofline"), Ok(Verb::Roofline));
        let rope = || Some("rope".into());
        let rung = Bench { op: rope(), machine: Machine::Sim, rung: Some(2), shape: None };
        assert_eq!(check("bench --device sim rope --rung 2"), Ok(Verb::Bench(rung)));
        let shape = Bench { op: rope(), shape: Some("b=1,t=2".into()), ..Bench::default() };
        assert_eq!(check("bench rope --shape b=1,t=2"), Ok(Verb::Bench(shape)));
    }

    #[test]
    fn a_step_bench_has_the_shape_of_its_model() {
        let Ok(Verb::Step(plain)) = check("bench step") else { panic!("a verb without options") };
        assert_eq!((plain.batch, plain.tokens, plain.fast_steps), (2, 256, 16));
        assert!(!plain.peer && !plain.profile && !plain.save && plain.precision == "f32");
        let line = "bench step --model quickstart --tokens 32 --peer torch --variant frozen --save \
                    --precision mixed";
        let Ok(Verb::Step(step)) = check(line) else { panic!("every option is known") };
        assert_eq!((step.batch, step.tokens, step.model.name), (16, 32, "quickstart"));
        assert_eq!(step.precision, "mixed");
        assert_eq!((step.variant.as_deref(), step.peer, step.save), (Some("frozen"), true, true));
    }

    #[test]
    fn a_quality_bench_has_turns() {
        let quality = |turns, threads, save| Ok(Verb::Quality(Quality { turns, threads, save }));
        assert_eq!(check("bench quality"), quality(24, 2, false));
        assert_eq!(check("bench quality --save --turns 6 --threads 1"), quality(6, 1, true));
    }

    #[test]
    fn refuses_the_rest() {
        assert_eq!(check("tset"), Err("unknown verb `tset`".into()));
        assert_eq!(check("test now"), Err("`test` does not take `now`".into()));
        assert_eq!(check("sim rope matmul"), Err("`sim` does not take `rope matmul`".into()));
        assert_eq!(check("ptx --rung"), Err("`ptx` does not take `--rung`".into()));
        for (line, complaint) in [
            ("bench --rung", "`--rung` takes a number"),
            ("bench --rung 2", "`--rung` needs"),
            ("bench matmul --shape 64", "`--shape` takes extents such as"),
            ("bench --shape m=1", "`--shape` needs an op"),
            ("bench matmul/decode --shape m=1", "`--shape` needs an op"),
            ("bench --device tpu", "`--device` takes cpu, sim or cuda"),
            ("bench step --model huge", "`--model` takes small, medium, large or quickstart"),
            ("bench step --precision f16", "`--precision` takes f32 or mixed"),
            ("bench step --rounds 0", "`--rounds` takes a number above 0"),
            ("bench step --tokens", "`--tokens` takes a number above 0"),
            ("bench step --variant frozen", "`--variant` needs `--peer torch`"),
            ("bench step --peer torch --variant x", "`--variant` takes one of released"),
            ("bench step --peer jax", "`--peer` takes torch"),
            ("bench step matmul", "`bench step` does not take `matmul`"),
            ("bench quality --turns 0", "`--turns` takes a number above 0"),
            ("bench quality --rounds 3", "`bench quality` does not take `--rounds`"),
            ("bench roofline now", "`bench` does not take `now`"),
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
