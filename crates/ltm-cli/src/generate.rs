//! `ltm generate`: thoughts first, then words, and what can be said of many texts at once.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use ltm_model::SampleConfig;
use ltm_train::Checkpoint;
use ltm_train::data::{Document, ReadOptions, Tokenizer, documents};
use ltm_train::metrics::JsonlWriter;
use ltm_train::suites::generation::{BLEU_ORDER, TextMetrics};
use ltm_vi::{GenerateOptions, LatentSource, generate_many};
use serde_json::json;

use crate::device_args::DeviceArgs;
use crate::files::Reading;
use crate::output::OutputError;

/// How tokens are chosen where nothing else is asked for: from the model's own distribution, without its tail.
pub const SAMPLE: SampleConfig = SampleConfig { temperature: 0.8, top_k: 0, top_p: 0.95 };

/// Texts decoded together.
const TOGETHER: u64 = 8;

/// Arguments of `generate`.
#[derive(clap::Args)]
pub struct Args {
    /// A run's folder (its newest checkpoint) or a checkpoint's
    checkpoint: PathBuf,
    /// Text to continue: thoughts are fitted to it, then it is continued with them fixed. Without a prompt,
    /// thoughts come from the prior
    #[arg(long, default_value = "")]
    prompt: String,
    /// The most tokens to write
    #[arg(long, default_value_t = 256)]
    max_tokens: usize,
    /// How many texts, each with a thought of its own
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// 0 takes the likeliest token
    #[arg(long, default_value_t = SAMPLE.temperature)]
    temperature: f64,
    /// Keep only so many likeliest tokens; 0 for all
    #[arg(long, default_value_t = SAMPLE.top_k)]
    top_k: usize,
    /// Keep only the likeliest tokens of together this probability
    #[arg(long, default_value_t = SAMPLE.top_p)]
    top_p: f64,
    /// Seed of thoughts and words; the second text has the next one, and so on
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write past the end of the document
    #[arg(long)]
    no_stop: bool,
    /// Write the texts to this new file, a JSON object a line, and print what they measure
    ///
    /// Each line has the `text`, the prompt included, and its `prompt`, `tokens` and `seed`. The lists of texts that MAUVE
    /// (`mauve.compute_mauve(p_text=…, q_text=…)`) and measures of generative perplexity (such as `perplexity` of Hugging
    /// Face's `evaluate`) take are the `text` of such lines.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print what the texts measure beside as many texts of this file, cut to the longest that was written: *.jsonl,
    /// *.csv, *.parquet, or plain text parted by lines `<|endoftext|>`
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,
    /// What is counted and compared
    #[arg(long, value_enum, default_value_t = Units::Words)]
    units: Units,
    /// Print what the texts measure as JSON
    #[arg(long, requires = "out")]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// What texts are made of.
#[derive(Clone, Copy, ValueEnum)]
enum Units {
    /// Parted by white space, the same for every model
    Words,
    /// The model's own
    Tokens,
}

impl Units {
    fn name(self) -> &'static str {
        match self {
            Self::Words => "words",
            Self::Tokens => "tokens",
        }
    }

    /// Of a text that was read.
    fn read(self, tokenizer: &Tokenizer, text: &str) -> anyhow::Result<Vec<String>> {
        Ok(match self {
            Self::Words => words(text),
            Self::Tokens => tokenizer.encode(text)?.iter().map(u16::to_string).collect(),
        })
    }

    /// Of a text that was written, whose tokens need not be those that its characters would have.
    fn written(self, tokenizer: &Tokenizer, tokens: &[i32]) -> Vec<String> {
        match self {
            Self::Words => words(&decode(tokenizer, tokens)),
            Self::Tokens => {
                let end = i32::from(tokenizer.separator());
                tokens.strip_suffix(&[end]).unwrap_or(tokens).iter().map(i32::to_string).collect()
            }
        }
    }
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut checkpoint = Checkpoint::load(&args.checkpoint)?;
    args.device.apply(&mut checkpoint.config.run);
    let (device, precision) = checkpoint.config.run.compute()?;
    let (config, tokenizer) = (&checkpoint.config, &checkpoint.state.tokenizer);
    let prompt = encode(tokenizer, &args.prompt)?;
    let reference = args.reference.as_deref().map(|file| read_reference(file, args.count));
    let reference = reference.transpose()?;
    let mut out = args.out.as_deref().map(create).transpose()?;
    let options = GenerateOptions {
        max_tokens: args.max_tokens,
        sample: SampleConfig {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
        },
        latents: if prompt.len() > 1 { LatentSource::Prompt } else { LatentSource::Prior },
        seed: args.seed,
        stop: (!args.no_stop).then_some(i32::from(tokenizer.separator())),
        device,
        precision,
    };
    let mut texts = Vec::new();
    let bar = crate::progress_bar(args.count, "text {pos}/{len} ETA {eta}");
    for first in (0..args.count).step_by(TOGETHER as usize) {
        let draws = first..args.count.min(first + TOGETHER);
        let (weights, infer) = (&checkpoint.weights, &config.infer);
        let written =
            generate_many(weights, &config.model, infer, &prompt, &options, draws.clone())?;
        for (draw, written) in draws.zip(written) {
            // Decoded together, so that a space or a character that parts prompt and answer is right.
            let mut tokens = prompt[1..].to_vec();
            tokens.extend(&written.tokens);
            let text = decode(tokenizer, &tokens);
            match &mut out {
                Some(out) => out.append(&json!({
                    "text": text,
                    "prompt": args.prompt,
                    "tokens": written.tokens.len(),
                    "seed": args.seed.wrapping_add(draw),
                }))?,
                None => bar.suspend(|| outln!("{text}"))?,
            }
            // What the texts share, the prompt, says nothing of them.
            texts.push(args.units.written(tokenizer, &written.tokens));
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    if args.out.is_none() && reference.is_none() {
        return Ok(ExitCode::SUCCESS);
    }
    let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
    let mut columns = vec![("samples", measure(&texts))];
    if let Some(reference) = reference {
        let split = |text: &String| {
            let mut units = args.units.read(tokenizer, text)?;
            units.truncate(longest);
            Ok(units)
        };
        let reference = reference.iter().map(split).collect::<anyhow::Result<Vec<_>>>()?;
        columns.push(("reference", measure(&reference)));
    }
    if args.json {
        let mut object = json!({ "units": args.units.name() });
        for (name, metrics) in &columns {
            object[name] = serde_json::to_value(metrics)?;
        }
        outln!("{}", serde_json::to_string_pretty(&object)?)?;
    } else {
        print_table(args.units, &columns)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts a file of lines that does not exist yet.
pub fn create(file: &Path) -> anyhow::Result<JsonlWriter> {
    anyhow::ensure!(!file.exists(), "{}: exists; name another file or remove it", file.display());
    Ok(JsonlWriter::create(file)?)
}

/// The first texts of a file, as many as are to be compared with.
fn read_reference(file: &Path, count: u64) -> anyhow::Result<Vec<String>> {
    let mut texts = Vec::new();
    let mut reading = Reading::new();
    let mut take = |document: Document<'_>| {
        texts.push(document.text.to_string());
        Ok(if (texts.len() as u64) < count {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        })
    };
    let read =
        documents(&[file.into()], &ReadOptions::default(), &mut take, &mut |n| reading.see(n));
    reading.finish();
    read?;
    let found = texts.len();
    anyhow::ensure!(found > 0, "{}: there is no text in it", file.display());
    if (found as u64) < count {
        note!("{}: only {found} texts to hold beside {count}", file.display());
    }
    Ok(texts)
}

fn measure(texts: &[Vec<String>]) -> TextMetrics {
    let bar = crate::progress_bar(0, "compared {pos}/{len} ETA {eta}");
    let metrics = TextMetrics::of(texts, &mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    metrics
}

fn print_table(units: Units, columns: &[(&str, TextMetrics)]) -> Result<(), OutputError> {
    let row = |name: &str, value: &dyn Fn(&TextMetrics) -> String| {
        let values = columns.iter().map(|(_, metrics)| format!("  {:>18}", value(metrics)));
        outln!("{name:<26}{}", values.collect::<String>())
    };
    let mean =
        |mean: &ltm_train::suites::Mean| format!("{:.3} ± {:.3}", mean.mean, mean.standard_error);
    let share = |share: Option<f64>| share.map_or("none".into(), |share| format!("{share:.4}"));
    let names = columns.iter().map(|(name, _)| format!("  {name:>18}")).collect::<String>();
    outln!("{:<26}{names}", format!("of {}", units.name()))?;
    row("texts", &|m| m.texts.to_string())?;
    row("empty texts", &|m| m.empty.to_string())?;
    row("length", &|m| mean(&m.length))?;
    row("shortest to longest", &|m| format!("{} to {}", m.shortest, m.longest))?;
    row("entropy of a text, nats", &|m| mean(&m.entropy))?;
    for (n, i) in (1..).zip(0..3) {
        row(&format!("distinct-{n}"), &|m| share(m.distinct[i]))?;
    }
    row(&format!("self-BLEU-{BLEU_ORDER}"), &|m| share(m.self_bleu))?;
    row("rep-4 of a text", &|m| mean(&m.repetition))
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(Into::into).collect()
}

/// A text as the model reads it: behind the separator that documents begin with.
pub fn encode(tokenizer: &Tokenizer, text: &str) -> anyhow::Result<Vec<i32>> {
    let separator = i32::from(tokenizer.separator());
    let ids = tokenizer.encode(text)?;
    Ok([separator].into_iter().chain(ids.into_iter().map(i32::from)).collect())
}

/// Tokens as text, without a separator at the end.
pub fn decode(tokenizer: &Tokenizer, tokens: &[i32]) -> String {
    let mut ids: Vec<u16> = tokens.iter().map(|token| *token as u16).collect();
    if ids.last() == Some(&tokenizer.separator()) {
        ids.pop();
    }
    tokenizer.decode(&ids)
}
