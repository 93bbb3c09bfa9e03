//! `ltm export` and `ltm import`: models that leave a run, and models that become one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use ltm_eval::hf;
use ltm_train::data::tokenizer::named;
use ltm_train::trained::{check_empty, is_run};
use ltm_train::{Checkpoint, Config, Trained, config::read_text};
use ltm_vi::Protocol;

use crate::device_args::RunArgs;
use crate::output::{as_option, usage};

/// Arguments of `export`.
#[derive(clap::Args)]
pub struct ExportArgs {
    #[command(flatten)]
    model: RunArgs,
    /// New folder for the exported model
    #[arg(value_name = "FOLDER")]
    out: PathBuf,
    /// Form of the exported model
    #[arg(long, value_enum, default_value_t = Format::Hf)]
    format: Format,
    /// Protocol of the log-probabilities of an `hf` model: `prequential:STRIDE:SAMPLES`, or `autoregressive` for a model
    /// without latents [default: prequential:32:8, with a shorter stride for short rows; autoregressive]
    #[arg(long)]
    protocol: Option<Protocol>,
}

/// The form of an exported model.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Folder for Hugging Face's `transformers`, with the model's PyTorch code
    Hf,
    /// Run folder of weights only, which `ltm` can use and which can be moved; training cannot be resumed from it
    Run,
}

/// Arguments of `import`.
#[derive(clap::Args)]
pub struct ImportArgs {
    /// Folder that `ltm export` has written, or safetensors file of weights under the published code's names
    source: PathBuf,
    /// New folder for the run
    #[arg(long, value_name = "RUN")]
    out: PathBuf,
    /// Configuration of a file of weights: `model` describes them, `infer` how latents are fitted
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Tokenizer of a file of weights: `bytes`, `gpt2`, `words` or the path of a tokenizer.json
    #[arg(long)]
    tokenizer: Option<String>,
    /// Override a value of the configuration, such as `model.window=256`; repeatable
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

pub fn export(args: ExportArgs) -> anyhow::Result<ExitCode> {
    let ExportArgs { model, out, format, protocol } = args;
    if format == Format::Run && protocol.is_some() {
        return Err(usage("--protocol applies to --format hf: a run is scored by any protocol"));
    }
    check_empty(&out)?;
    let model = Trained::try_from(model.load()?)?;
    match format {
        Format::Hf => {
            let protocol = protocol.unwrap_or_else(|| hf::default_protocol(&model.config));
            hf::export(&model, protocol, &out).map_err(as_option)?;
            note!("log-probabilities are those of {protocol}");
        }
        Format::Run => {
            model.write_run(&out)?;
        }
    }
    report(&model, &out)
}

pub fn import(args: ImportArgs) -> anyhow::Result<ExitCode> {
    check_empty(&args.out)?;
    let model = match args.source.is_dir() {
        true => from_folder(&args)?,
        false => from_weights(&args)?,
    };
    model.write_run(&args.out)?;
    if !model.has_corpus() {
        note!("the run has no corpus: `ltm eval` needs a corpus folder or a file");
    }
    report(&model, &args.out)
}

fn from_folder(args: &ImportArgs) -> anyhow::Result<Trained> {
    if args.config.is_some() || args.tokenizer.is_some() || !args.set.is_empty() {
        let message =
            "--config, --tokenizer and --set apply to files of weights: a folder has its own";
        return Err(usage(message));
    }
    Ok(match is_run(&args.source) {
        true => Trained::try_from(Checkpoint::load(&args.source)?)?,
        false => hf::import(&args.source)?,
    })
}

fn from_weights(args: &ImportArgs) -> anyhow::Result<Trained> {
    let (Some(path), Some(tokenizer)) = (&args.config, &args.tokenizer) else {
        let message =
            "a file of weights needs --config FILE and --tokenizer NAME, which it does not contain";
        return Err(usage(message));
    };
    let tokenizer = named(tokenizer)?;
    let config = Config::parse_for(&*tokenizer, &read_text(path)?, path, &args.set)?;
    Ok(hf::import_weights(&args.source, config, tokenizer)?)
}

/// Prints what was written.
fn report(model: &Trained, out: &Path) -> anyhow::Result<ExitCode> {
    let (step, count) = (model.step, model.param_count());
    outln!("{}: {count} parameters after {step} steps", out.display())?;
    Ok(ExitCode::SUCCESS)
}
