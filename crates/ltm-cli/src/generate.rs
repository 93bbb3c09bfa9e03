//! `ltm generate`: latents, then tokens; and measures of many generated texts.

mod measures;
mod rounds;

use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use indicatif::ProgressBar;
use ltm_eval::samples::{SAMPLE, Text, Written, continue_prompt};
use ltm_eval::suites::stories::{self, Story, StoryMetrics};
use ltm_eval::text::encode;
use ltm_model::SampleConfig;
use ltm_train::data::{Document, ReadOptions, documents};
use ltm_train::metrics::JsonlWriter;
use ltm_vi::{GenerateOptions, LatentSource};
use serde::Serialize;
use serde_json::json;

use crate::device_args::CheckpointArgs;
use crate::files::Reading;
use crate::output::usage;

use self::measures::{Units, measure, print_stories, print_table};
pub use self::rounds::RethinkArgs;
use self::rounds::Rounds;

/// A path, or a text, that stands for standard input.
const STDIN: &str = "-";

/// Arguments of `generate`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  ltm generate runs/quickstart --prompt \"one sunny morning\"
  ltm generate runs/quickstart --prompt - --json < prompt.txt
  ltm generate runs/quickstart --prompt \"one sunny morning\" --refit 16
  ltm generate runs/quickstart --prompt \"one sunny morning\" --rethink 4
  ltm generate runs/quickstart --count 100 --out samples.jsonl --reference book.txt

With --json or --out each text is an object with `text` (the prompt included), `prompt`, `tokens` (generated),
`seed`, and `finish_reason`: `stop` at the end of a document, `length` at --max-tokens. With --rethink it also has
`round`, the round that the text is of, and `rounds`: for each its `text`, `tokens` and `score`, which has `protocol`,
`nats_per_token` and `sampling_error`, or is null. MAUVE and generative perplexity (such as `evaluate` of Hugging Face)
take lists of such `text`.

For a model of storyworld, --out also measures how many texts are stories of its grammar, and how many facts (who, where,
what, how many) they keep, within the words that attention spans and beyond them.")]
pub struct Args {
    #[command(flatten)]
    model: CheckpointArgs,
    /// Text to continue; `-` reads it from standard input [default: none]
    ///
    /// The posterior of the latents is fitted to the prompt; without a prompt latents are sampled from the prior.
    /// Of a prompt longer than the context, the last tokens are used.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// File with the text to continue; `-` is standard input. One line break at its end is removed
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompt_file: Option<PathBuf>,
    /// Maximum number of tokens to generate per text
    ///
    /// When the context is full, the model continues from its last half, with the same latents.
    #[arg(long, value_name = "COUNT", default_value_t = 256)]
    max_tokens: usize,
    /// Fit the latents again to the text so far after every N generated tokens [default: only to the prompt]
    ///
    /// Each fit begins at the posterior before it, or at what an encoder predicts, and the text is read again with a new
    /// sample of the latents.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    refit: Option<u64>,
    #[command(flatten)]
    rethink: RethinkArgs,
    /// Number of texts, each from its own sample of the latents
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Sampling temperature; 0 always takes the most likely token
    #[arg(long, default_value_t = SAMPLE.temperature)]
    temperature: f64,
    /// Sample from the K most likely tokens only; 0 keeps all
    #[arg(long, value_name = "K", default_value_t = SAMPLE.top_k)]
    top_k: usize,
    /// Nucleus sampling: keep the smallest set of tokens whose total probability is at least P
    #[arg(long, value_name = "P", default_value_t = SAMPLE.top_p)]
    top_p: f64,
    /// Seed of latents and tokens; text i of --count uses SEED + i
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Continue past the end of the document
    #[arg(long)]
    no_stop: bool,
    /// Line printed between texts
    #[arg(long, value_name = "LINE", default_value = "<|endoftext|>")]
    separator: String,
    /// Write the texts to this new file, one JSON object per line, and print measures of diversity and length
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Also measure the first COUNT texts of this file, truncated to the longest generated text
    ///
    /// The format is detected from its name and content, as by `ltm data prepare`.
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,
    /// Unit of the measures
    #[arg(long, value_enum, default_value_t = Units::Words)]
    units: Units,
    /// Print JSON: the texts, one object per line, or with --out the measures
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.json && args.reference.is_some() && args.out.is_none() {
        return Err(usage(
            "--json prints the texts; to compare with --reference, write them with --out",
        ));
    }
    let sample =
        SampleConfig { temperature: args.temperature, top_k: args.top_k, top_p: args.top_p };
    check_sample(&sample)?;
    let mut checkpoint = args.model.load()?;
    let group = crate::group::join(&mut checkpoint.config.run.device)?;
    let (_, precision) = checkpoint.config.run.compute_evaluation()?;
    let (config, tokenizer) = (&checkpoint.config, &*checkpoint.tokenizer);
    let given = read_prompt(&args)?;
    let prompt = encode(tokenizer, &given)?;
    let prompt_tokens = prompt.len();
    let rethink = args.rethink.of(config)?;
    let context = config.model.max_seq_len;
    if prompt_tokens > context {
        note!(
            "note: the prompt has {prompt_tokens} tokens; the last {context}, which fit the context, are used"
        );
    }
    let reference = args.reference.as_deref().map(|file| read_reference(file, args.count));
    let reference = reference.transpose()?;
    let mut out = args.out.as_deref().map(NewFile::new).transpose()?;
    let options = GenerateOptions {
        max_tokens: args.max_tokens,
        sample,
        latents: LatentSource::Prompt,
        refit: args.refit.map(|tokens| usize::try_from(tokens).unwrap_or(usize::MAX)),
        rethink,
        seed: args.seed,
        stop: (!args.no_stop).then_some(tokenizer.separator() as i32),
        precision,
    };
    let weights = config.on_device(&checkpoint.weights)?;
    let are_stories = stories::are_stories(tokenizer);
    // After the separator that the prompt begins with.
    let story = |tokens: &[i32]| {
        let tokens = prompt[1..].iter().chain(tokens).map(|token| *token as u32).collect();
        Story { tokens, given: prompt_tokens - 1 }
    };
    let (mut texts, mut whole) = (Vec::new(), Vec::new());
    let mut rounds = rethink.map(|rethink| Rounds::new(&rethink));
    let (mut ended_by_length, mut longest) = (0, 0);
    let bar = match group.is_first() {
        true => crate::progress_bar(args.count, "text {pos}/{len}{msg}, {elapsed} elapsed"),
        false => ProgressBar::hidden(),
    };
    let mut on_written = |written| -> anyhow::Result<()> {
        let Text { draw, text, tokens, stopped, round, rounds: all } = match written {
            Written::Text(text) => text,
            Written::Round(round) => {
                let last = rethink.map_or(0, |rethink| rethink.rounds);
                bar.set_message(format!(", round {} of {last}", round + 1));
                bar.tick();
                return Ok(());
            }
        };
        ended_by_length += u64::from(!stopped);
        longest = longest.max(tokens.len());
        let mut sample = json!({
            "text": text,
            "prompt": given,
            "tokens": tokens.len(),
            "seed": args.seed.wrapping_add(draw),
            "finish_reason": if stopped { "stop" } else { "length" },
        });
        if let Some(rounds) = &mut rounds {
            sample["round"] = round.into();
            sample["rounds"] = all.iter().map(rounds::line).collect();
            rounds.add(round, &all);
        }
        match &mut out {
            Some(out) => out.append(&sample)?,
            None if args.json => bar.suspend(|| outln!("{sample}"))?,
            None => bar.suspend(|| {
                if draw > 0 {
                    outln!("{}", args.separator)?;
                }
                outln!("{text}")
            })?,
        }
        // The prompt, which all texts share, is not measured.
        texts.push(args.units.written(tokenizer, &tokens));
        whole.push((story(&tokens), all.iter().map(|round| story(&round.tokens)).collect()));
        bar.inc(1);
        Ok(())
    };
    let own = group.share(usize::try_from(args.count)?);
    let own = own.start as u64..own.end as u64;
    if group.size() == 1 {
        continue_prompt(config, &weights, tokenizer, &given, &options, own, &mut on_written)?;
    } else {
        let mut texts = Vec::new();
        let mut keep = |written| -> anyhow::Result<()> {
            if let Written::Text(text) = written {
                texts.push(text);
            }
            Ok(())
        };
        continue_prompt(config, &weights, tokenizer, &given, &options, own, &mut keep)?;
        let all = group.gather_patiently(texts, "the texts of other processes")?;
        if group.is_first() {
            all.into_iter().flatten().try_for_each(|text| on_written(Written::Text(text)))?;
        }
    }
    let is_first = group.is_first();
    group.leave()?;
    if !is_first {
        return Ok(ExitCode::SUCCESS);
    }
    bar.finish_and_clear();
    if ended_by_length > 0 && !args.no_stop {
        let (count, most) = (args.count, args.max_tokens);
        note!(
            "note: {ended_by_length} of {count} texts ended at --max-tokens {most}, not at the end of a document"
        );
    }
    if prompt_tokens.min(context) + longest > context + 1 {
        note!(
            "note: the context of {context} tokens was full; texts were continued from its last half"
        );
    }
    if let Some(rounds) = &rounds {
        note!("note: {}", rounds.summary());
    }
    if args.out.is_none() && reference.is_none() {
        return Ok(ExitCode::SUCCESS);
    }
    let check = |stories: &[Story]| {
        are_stories.then(|| StoryMetrics::of(stories, stories::reach(&config.model)))
    };
    let (whole, by_round): (Vec<Story>, Vec<Vec<Story>>) = whole.into_iter().unzip();
    let found = check(&whole);
    let rounds = rounds.map(|rounds| rounds.measure(&by_round, &check));
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
        if let Some(stories) = &found {
            object["stories"] = serde_json::to_value(stories)?;
        }
        if let Some(rounds) = &rounds {
            object["rounds"] = serde_json::to_value(rounds)?;
        }
        outln!("{}", serde_json::to_string_pretty(&object)?)?;
    } else {
        print_table(args.units, &columns)?;
        if let Some(stories) = &found {
            print_stories(stories)?;
        }
        if let Some(rounds) = &rounds {
            rounds::print_table(rounds)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The prompt of the arguments, a file or standard input; empty without one.
fn read_prompt(args: &Args) -> anyhow::Result<String> {
    let path = match (&args.prompt, &args.prompt_file) {
        (Some(text), _) if text != STDIN => return Ok(text.clone()),
        (None, None) => return Ok(String::new()),
        (_, Some(path)) if path.as_os_str() != STDIN => Some(path),
        _ => None,
    };
    let (name, bytes) = match path {
        Some(path) => (path.display().to_string(), std::fs::read(path)),
        None => {
            let mut bytes = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut bytes);
            ("standard input".into(), read.map(|_| bytes))
        }
    };
    let bytes = bytes.with_context(|| format!("{name}: cannot read the prompt"))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let position = error.utf8_error().valid_up_to();
        anyhow::anyhow!("{name}: expected UTF-8 text, found an invalid byte at position {position}")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    Ok(text.into())
}

/// A new file of JSON lines. It is created with the first of them, so that a call that fails before leaves none.
pub struct NewFile<'a> {
    path: &'a Path,
    writer: Option<JsonlWriter>,
}

impl<'a> NewFile<'a> {
    /// Refuses a file that [`check_new`] refuses.
    pub fn new(path: &'a Path) -> anyhow::Result<Self> {
        check_new(path)?;
        Ok(Self { path, writer: None })
    }

    /// Appends one object.
    pub fn append(&mut self, object: &impl Serialize) -> ltm_train::Result<()> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            empty => empty.insert(JsonlWriter::create(self.path)?),
        };
        writer.append(object)
    }
}

/// Refuses options of sampling that are out of range, by the names of the options.
pub fn check_sample(sample: &SampleConfig) -> anyhow::Result<()> {
    sample.validate().map_err(|error| match error {
        ltm_model::Error::Config { field, expected, found } => {
            let option = field.replace('_', "-");
            usage(format!("--{option}: expected {expected}, found {found}"))
        }
        error => error.into(),
    })
}

/// Refuses a file that exists, whatever it is, or whose folder does not, before the work whose result it is to hold.
pub fn check_new(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("{shown}: cannot be written")),
        Ok(_) => anyhow::bail!("{shown}: the file exists; choose another name or remove it"),
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    anyhow::ensure!(folder.is_none_or(Path::is_dir), "{shown}: its folder does not exist");
    Ok(())
}

/// The first `count` texts of a file.
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
    anyhow::ensure!(found > 0, "{}: contains no text", file.display());
    if (found as u64) < count {
        note!("note: {} contains only {found} of {count} texts", file.display());
    }
    Ok(texts)
}
