//! `ltm data`: text into token shards, and a look into them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use ltm_train::data::{Corpus, Meta, PrepareOptions, Split, Tokenizer, prepare};

use crate::files::{Container, ReadArgs, Reading};

/// What to do with data.
#[derive(Subcommand)]
pub enum Verb {
    /// Tokenise text, JSON lines, tables and folders of them into shards of 16-bit ids
    ///
    /// A line `<|endoftext|>` in a text parts documents; *.jsonl has a document a line, *.csv one a record (a column that
    /// the header names, or AG News's title and description), *.parquet one a row. The shards are
    /// headerless little-endian `train_*.bin` and `val_*.bin`, beside them `meta.json` with the tokeniser.
    Prepare(PrepareArgs),
    /// Print what a corpus folder holds
    Inspect(InspectArgs),
}

/// Arguments of `prepare`.
#[derive(clap::Args)]
pub struct PrepareArgs {
    /// *.txt (or any other name, as text), *.jsonl, *.csv, *.parquet, or folders of them
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// bytes, gpt2, or words (those of storyworld)
    #[arg(long, default_value = "gpt2")]
    tokenizer: String,
    /// The folder to write; it must not hold a corpus yet
    #[arg(long)]
    out: PathBuf,
    /// How the files hold documents; each file's extension tells when left out
    #[arg(long, value_enum)]
    format: Option<Container>,
    #[command(flatten)]
    read: ReadArgs,
    /// The share of the corpus to measure on
    #[arg(long, default_value_t = 0.05)]
    val_fraction: f64,
    /// Tokens of a shard
    #[arg(long, default_value_t = 100_000_000)]
    shard_tokens: u64,
}

/// Arguments of `inspect`.
#[derive(clap::Args)]
pub struct InspectArgs {
    /// The corpus folder
    dir: PathBuf,
    /// Tokens to show of each split
    #[arg(long, default_value_t = 60)]
    tokens: u64,
    /// The tokeniser, for shards without a meta.json
    #[arg(long)]
    tokenizer: Option<String>,
}

pub fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Prepare(args) => prepare_corpus(args)?,
        Verb::Inspect(args) => inspect(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn prepare_corpus(args: PrepareArgs) -> anyhow::Result<()> {
    let tokenizer: Tokenizer = args.tokenizer.parse()?;
    let options = PrepareOptions {
        read: args.read.options(args.format.map(Container::into)),
        val_fraction: args.val_fraction,
        shard_tokens: args.shard_tokens,
        ..PrepareOptions::new(args.out.clone(), tokenizer)
    };
    let mut reading = Reading::new();
    let meta = prepare(&args.files, &options, &mut |notice| reading.see(notice));
    reading.finish();
    let meta = meta?;
    print_meta(&meta)?;
    outln!("written to {}", args.out.display())?;
    Ok(())
}

fn print_meta(meta: &Meta) -> anyhow::Result<()> {
    let tokenizer = &meta.tokenizer;
    outln!("tokenizer {tokenizer}, vocabulary {}", tokenizer.vocab_size())?;
    for split in Split::ALL {
        if let Some(found) = meta.split(split) {
            outln!(
                "{split}: {} tokens, {} documents, {} bytes of text, {} shards",
                found.tokens,
                found.documents,
                found.bytes,
                found.shards.len()
            )?;
        }
    }
    if meta.skipped > 0 {
        outln!("skipped: {} malformed parts", meta.skipped)?;
    }
    Ok(())
}

fn inspect(args: InspectArgs) -> anyhow::Result<()> {
    let tokenizer: Option<Tokenizer> = args.tokenizer.as_deref().map(str::parse).transpose()?;
    let train = Corpus::open(&args.dir, Split::Train, tokenizer.as_ref())?;
    if let Some(meta) = Meta::read(&args.dir)? {
        print_meta(&meta)?;
    }
    let val = Corpus::open(&args.dir, Split::Val, tokenizer.as_ref());
    for (split, corpus) in [("train", Some(&train)), ("val", val.as_ref().ok())] {
        let Some(corpus) = corpus else { continue };
        let tokens = corpus.tokens(0..corpus.len().min(args.tokens))?;
        outln!(
            "\n{split}, {} tokens, begins:\n{}",
            corpus.len(),
            corpus.tokenizer().decode(&tokens)
        )?;
    }
    Ok(())
}
