//! `ltm eval`: scores of a corpus, or of files, by named protocols.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use ltm_train::data::{Corpus, Format, Limit, Order, Rows, Split, load};
use ltm_train::eval::latents_json;
use ltm_train::suites::gsm8k::is_gsm8k;
use ltm_train::{Checkpoint, Config, Evaluation, evaluate, trainer};
use ltm_vi::{LatentUse, Noise, Protocol};
use serde_json::{Value, json};

use crate::device_args::DeviceArgs;
use crate::files::{ReadArgs, Reading};
use crate::gsm8k;
use crate::output::OutputError;
use crate::suites::{self, Request};

/// Arguments of `eval`.
#[derive(clap::Args)]
pub struct Args {
    /// A run's folder (its newest checkpoint) or a checkpoint's
    checkpoint: PathBuf,
    /// A corpus folder, or a file of documents; the run's own validation split when left out
    data: Option<PathBuf>,
    /// What the numbers are to stand for; may be repeated. Those that suit the model and cost little
    /// when left out
    ///
    /// reconstruction: no bound, the thoughts are free.
    /// elbo-fitted-noise: the bound as published, optimistic with fixed noise.
    /// elbo:SAMPLES, iwae:SAMPLES: bounds with fresh noise.
    /// prequential:STRIDE:SAMPLES: blocks of STRIDE tokens predicted from thoughts fitted to what is
    /// before them; comparable with autoregressive models.
    /// autoregressive: exact, without thoughts.
    /// prequential-overlap:STRIDE:SAMPLES, autoregressive-overlap:STRIDE: the same in windows that
    /// overlap, for a longer past.
    /// masked-diffusion:MASKS: the bound of a masked diffusion model.
    ///
    /// SAMPLES and MASKS are 8 when left out. docs/evaluation.md says what each may be compared with.
    #[arg(long, verbatim_doc_comment)]
    protocol: Vec<Protocol>,
    /// Write what each sequence costs to FILE, a JSON object a line
    #[arg(long, value_name = "FILE")]
    per_document: Option<PathBuf>,
    /// For a file with a protocol of its own: samples of the latents for LAMBADA, 8 when left out; answers to each
    /// question of GSM8K, 5 when left out
    #[arg(long)]
    samples: Option<usize>,
    /// Score this many sequences (or passages, or questions) only; 0 for all
    #[arg(long, default_value_t = 0)]
    sequences: u64,
    /// Which part of a corpus folder; `val` when left out
    #[arg(long, value_enum)]
    split: Option<Part>,
    /// What a file holds; its name tells when left out, and GSM8K's `question` and `answer` do
    #[arg(long, value_enum)]
    format: Option<FileFormat>,
    #[command(flatten)]
    read: ReadArgs,
    /// Replace a value of the run's configuration, such as `--set infer.steps=64`
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gsm8k: gsm8k::Gsm8kArgs,
}

/// A part of a corpus.
#[derive(Clone, Copy, ValueEnum)]
pub enum Part {
    /// What was learned from
    Train,
    /// What is measured on
    Val,
}

/// What a file holds, and with that how it is scored.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FileFormat {
    /// Plain text; a line `<|endoftext|>` parts documents
    Text,
    /// A JSON object a line
    Jsonl,
    /// Comma-separated records
    Csv,
    /// A table in Parquet
    Parquet,
    /// LAMBADA, passages in JSON lines: is the last word predicted?
    Lambada,
    /// GSM8K, word problems in JSON lines: pass@k of generated answers
    Gsm8k,
}

impl FileFormat {
    /// The test set that a file's name or its first object tells.
    fn of_suite(file: &Path) -> anyhow::Result<Option<Self>> {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or("").to_lowercase();
        let jsonl = name.ends_with(".jsonl");
        Ok(match jsonl {
            true if name.contains("lambada") => Some(Self::Lambada),
            true if is_gsm8k(file)? => Some(Self::Gsm8k),
            _ => None,
        })
    }
}

/// What is to be scored.
enum Subject {
    /// A folder of token shards.
    Corpus(PathBuf),
    /// A file of documents, scored as a corpus.
    Documents(PathBuf, Option<Format>),
    /// A file of LAMBADA's passages.
    Lambada(PathBuf),
    /// A file of GSM8K's problems.
    Gsm8k(PathBuf),
}

impl Subject {
    fn of(args: &Args, config: &Config) -> anyhow::Result<Self> {
        let of_files = args.format.is_some() || args.read.key.is_some() || args.read.skip_malformed;
        let file = match &args.data {
            Some(path) if of_files || !path.is_dir() => path.clone(),
            _ if of_files => anyhow::bail!(
                "--format, --key and --skip-malformed say how a file is read: name the file"
            ),
            Some(dir) => return Ok(Self::Corpus(dir.clone())),
            None => return Ok(Self::Corpus(trainer::corpus_dir(config))),
        };
        anyhow::ensure!(args.split.is_none(), "--split is for corpus folders: leave it out");
        let told = match (args.format, &args.read.key) {
            (None, None) => FileFormat::of_suite(&file)?,
            (None, Some(_)) => FileFormat::of_suite(&file)?.filter(|f| *f != FileFormat::Gsm8k),
            (format, _) => format,
        };
        Ok(match told {
            None => Self::Documents(file, None),
            Some(FileFormat::Text) => Self::Documents(file, Some(Format::Text)),
            Some(FileFormat::Jsonl) => Self::Documents(file, Some(Format::Jsonl)),
            Some(FileFormat::Csv) => Self::Documents(file, Some(Format::Csv)),
            Some(FileFormat::Parquet) => Self::Documents(file, Some(Format::Parquet)),
            Some(FileFormat::Lambada) => Self::Lambada(file),
            Some(FileFormat::Gsm8k) => Self::Gsm8k(file),
        })
    }

    /// Whether protocols score it, or it has one of its own.
    fn has_protocols(&self) -> bool {
        matches!(self, Self::Corpus(_) | Self::Documents(..))
    }
}

impl Args {
    /// What a suite is asked to do with its file.
    fn request<'a>(
        &self,
        checkpoint: &'a Checkpoint,
        config: &'a Config,
        file: &'a Path,
        samples: usize,
    ) -> Request<'a> {
        let read = self.read.options(None);
        Request { checkpoint, config, file, read, limit: self.sequences, samples, json: self.json }
    }
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let checkpoint = Checkpoint::load(&args.checkpoint)?;
    let file = checkpoint.dir.join(ltm_train::checkpoint::CONFIG_FILE);
    let mut config = Config::load_resolved(&file, &args.set)?;
    args.device.apply(&mut config.run);
    anyhow::ensure!(config.model == checkpoint.config.model, "--set cannot change the model");
    let tokenizer = &checkpoint.state.tokenizer;
    let subject = Subject::of(&args, &config)?;
    if subject.has_protocols() {
        anyhow::ensure!(args.samples.is_none(), "a protocol names its samples: --protocol elbo:8");
    } else {
        let hint =
            "this file has a protocol of its own: leave --protocol out, or say --format jsonl";
        anyhow::ensure!(args.protocol.is_empty(), hint);
        let hint =
            "--per-document is for protocols, and this file has one of its own: leave it out";
        anyhow::ensure!(args.per_document.is_none(), hint);
    }
    if !matches!(subject, Subject::Gsm8k(_)) {
        let hint = "this is not GSM8K: leave --shots and the other arguments for it out";
        anyhow::ensure!(!args.gsm8k.any(), hint);
    }
    let (path, corpus, skipped) = match subject {
        Subject::Corpus(dir) => {
            let split = match args.split {
                Some(Part::Train) => Split::Train,
                Some(Part::Val) | None => Split::Val,
            };
            let corpus = Corpus::open(&dir, split, Some(tokenizer))?;
            (dir, corpus, None)
        }
        Subject::Documents(path, format) => {
            let mut reading = Reading::new();
            let read = load(
                std::slice::from_ref(&path),
                tokenizer,
                &args.read.options(format),
                enough(&config, args.sequences),
                &mut |notice| reading.see(notice),
            );
            reading.finish();
            let (corpus, skipped) = read?;
            (path, corpus, Some(skipped))
        }
        Subject::Lambada(file) => {
            let samples = args.samples.unwrap_or(Protocol::DEFAULT_SAMPLES);
            suites::lambada(&args.request(&checkpoint, &config, &file, samples))?;
            return Ok(ExitCode::SUCCESS);
        }
        Subject::Gsm8k(file) => {
            anyhow::ensure!(args.read.key.is_none(), "GSM8K has its keys: leave --key out");
            let samples = args.samples.unwrap_or(gsm8k::SAMPLES);
            let request = args.request(&checkpoint, &config, &file, samples);
            gsm8k::run(&request, &args.gsm8k)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let batches = trainer::open_corpus(&config, corpus, Order::Sequential)?;
    let mut protocols = args.protocol;
    if protocols.is_empty() {
        protocols = ltm_train::eval::protocols(&config, Protocol::DEFAULT_SAMPLES);
        if protocols.iter().any(|protocol| matches!(protocol, Protocol::Elbo { .. })) {
            protocols.push(Protocol::Iwae { samples: Protocol::DEFAULT_SAMPLES });
        }
    }
    if let Some(file) = &args.per_document {
        check_writable(file)?;
    }
    let bar = crate::progress_bar(0, "scored {pos}/{len} batches by protocol, ETA {eta}");
    let evaluation = evaluate(
        &config,
        &checkpoint.weights,
        &batches,
        &protocols,
        args.sequences,
        &mut |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        },
    );
    bar.finish_and_clear();
    let evaluation = evaluation?;
    if let Some(file) = &args.per_document {
        write_sequences(file, &evaluation)?;
    }
    if args.json {
        let mut numbers = numbers(&evaluation);
        if let Some(skipped) = skipped {
            numbers["file"] = json!({ "path": path, "skipped": skipped });
        }
        outln!("{}", serde_json::to_string_pretty(&numbers)?)?;
    } else {
        outln!("checkpoint {}, data {}", checkpoint.dir.display(), path.display())?;
        if let Some(skipped @ 1..) = skipped {
            outln!("malformed parts left out    {skipped}")?;
        }
        outln!()?;
        print_table(&evaluation, &config)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// How much of a file holds so many rows; 0 asks for all.
fn enough(config: &Config, sequences: u64) -> Limit {
    match (sequences, config.data.row_kind()) {
        (0, _) => Limit::None,
        (_, Rows::Documents) => Limit::Documents(sequences),
        (_, Rows::Windows) => Limit::Tokens(sequences.saturating_mul(config.train.seq_len as u64)),
    }
}

/// Refuses a file that could not be written, before an hour is spent on its content.
fn check_writable(file: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(!file.is_dir(), "--per-document {}: this is a folder", file.display());
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    let found = dir.is_none_or(Path::is_dir);
    anyhow::ensure!(found, "--per-document {}: there is no such folder", file.display());
    Ok(())
}

/// Writes a line a sequence.
fn write_sequences(file: &Path, evaluation: &Evaluation) -> anyhow::Result<()> {
    let lines: String =
        evaluation.sequences.iter().map(|one| format!("{}\n", one.to_json())).collect();
    Ok(ltm_model::write_atomically(file, lines.as_bytes())?)
}

/// The numbers by protocol, and `latents` beside them where there are any.
fn numbers(evaluation: &Evaluation) -> Value {
    let mut numbers = evaluation.to_json();
    if let Some(latents) = &evaluation.latents {
        numbers["latents"] = latents_json(latents);
    }
    numbers
}

/// The estimates as a table, and what the latents carry.
pub fn print_table(evaluation: &Evaluation, config: &Config) -> Result<(), OutputError> {
    let rule = |cells: [&str; 7]| {
        let [protocol, nats, perplexity, bits, mean, tokens, sequences] = cells;
        outln!(
            "{protocol:<30}  {nats:>17}  {perplexity:>10}  {bits:>13}  {mean:>15}  {tokens:>8}  {sequences:>9}"
        )
    };
    rule([
        "protocol",
        "nats per token",
        "perplexity",
        "bits per byte",
        "mean perplexity",
        "tokens",
        "sequences",
    ])?;
    for e in &evaluation.estimates {
        let bits = evaluation.bits_per_byte(e);
        rule([
            &label(e.protocol, config.infer.noise),
            &format!("{:.4} ± {:.4}", e.mean_nats_per_token, e.standard_error),
            &format!("{:.3}", e.perplexity()),
            &bits.map_or("no text".into(), |bits| format!("{bits:.4}")),
            &format!("{:.3}", e.mean_sequence_perplexity),
            &e.tokens.to_string(),
            &e.per_sequence.len().to_string(),
        ])?;
    }
    outln!(
        "mean perplexity             that of the sequences' own, as the published code averages; not to \
         be compared with a corpus perplexity"
    )?;
    if let Some(latents) = &evaluation.latents {
        let kl: Vec<String> = latents.kl_per_layer().iter().map(|kl| format!("{kl:.2}")).collect();
        outln!("KL of each layer            {} nats a sequence", kl.join(", "))?;
        outln!(
            "active latent numbers       {} of {}; the others cost {:.2} nats a sequence",
            latents.active_units(LatentUse::ACTIVE),
            latents.units(),
            latents.kl_floor(LatentUse::ACTIVE),
        )?;
    }
    Ok(())
}

fn label(protocol: Protocol, noise: Noise) -> String {
    match protocol {
        Protocol::Reconstruction => "reconstruction (no bound)".into(),
        Protocol::ElboFittedNoise if noise == Noise::Fixed => {
            "elbo-fitted-noise (optimistic)".into()
        }
        Protocol::Elbo { samples } => format!("elbo, {samples} fresh samples"),
        Protocol::Iwae { samples } => format!("iwae, {samples} fresh samples"),
        Protocol::MaskedDiffusion { samples } => format!("masked-diffusion, {samples} masks"),
        other => other.to_string(),
    }
}
