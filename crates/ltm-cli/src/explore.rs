//! `ltm explore`: a page that shows what the latents of texts do.

use std::path::PathBuf;
use std::process::ExitCode;

use ltm_eval::explore::{Document, Explorer, Wanted, demo_texts, held_out, page};
use ltm_files::write_whole;

use crate::device_args::CheckpointArgs;
use crate::generate::check_new;
use crate::output::{as_option, usage};

/// Texts on the page where none is given.
const DEMO_TEXTS: usize = 3;

/// Arguments of `explore`.
#[derive(clap::Args)]
#[command(
    after_help = "The page is one self-contained file that needs no network: the fit of each text step by step, what the latents
cost and save, every latent knocked out, halved, doubled, resampled and swapped with those of the other texts, a map of
held-out texts, and on storyworld the facts that each latent carries.

Examples:
  ltm explore runs/quickstart --out explorer.html
  ltm explore runs/quickstart --text \"tom went to the lake .\" --text \"anna went home .\" --out explorer.html"
)]
pub struct Args {
    #[command(flatten)]
    model: CheckpointArgs,
    /// Text to explore; repeatable [default: 3 texts that the model was not trained on]
    #[arg(long, value_name = "TEXT")]
    text: Vec<String>,
    /// New file to write the page to
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Texts on the map that the model was not trained on; 0 for no map and no facts
    #[arg(long, value_name = "COUNT", default_value_t = 512)]
    places: u64,
    /// Texts decoded along each axis of the map
    #[arg(long, value_name = "COUNT", default_value_t = 12)]
    grid: usize,
    /// Seed of the fits
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write the page's content as one JSON object instead
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { model, text: mut texts, out, places, grid, seed, json } = args;
    check_new(&out)?;
    let checkpoint = model.load()?;
    let (config, tokenizer) = (checkpoint.config, checkpoint.tokenizer);
    let weights = config.on_device(&checkpoint.weights)?;
    let wants_corpus = places > 0 || texts.is_empty();
    let held_out = match wants_corpus {
        true => held_out(&config, &tokenizer, places.max(DEMO_TEXTS as u64))?,
        false => None,
    };
    if let (true, Some(held_out)) = (texts.is_empty(), &held_out) {
        texts = demo_texts(held_out, &tokenizer, DEMO_TEXTS)?;
    }
    if texts.is_empty() {
        return Err(usage(
            "the run has no validation split to take texts from: name some with --text",
        ));
    }
    let name =
        config.run.dir.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy());
    let wanted = Wanted { name: name.into_owned(), texts, seed, places, grid };
    let mut explorer = Explorer::new(config, weights, tokenizer).map_err(as_option)?;
    let bar = crate::progress_bar(0, "{msg} {pos}/{len}, ETA {eta}");
    let progress = &mut |part: &str, done, all| {
        bar.set_message(part.to_owned());
        bar.set_length(all);
        bar.set_position(done);
    };
    let document = Document::of(&mut explorer, &wanted, held_out.as_ref(), progress);
    bar.finish_and_clear();
    let document = document.map_err(as_option)?;
    let content = if json { serde_json::to_string(&document)? } else { page(&document, None)? };
    write_whole(&out, content.as_bytes())?;
    outln!("{}", out.display())?;
    Ok(ExitCode::SUCCESS)
}
