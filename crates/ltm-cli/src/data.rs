//! `ltm data`: converts text to token shards, and prints what shards contain.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use ltm_train::data::{Corpus, Error, Meta, PrepareOptions, Split, Tokenizer, prepare};

use crate::files::{Container, ReadArgs, Reading, malformed_records};

/// Verbs of `ltm data`.
#[derive(Subcommand)]
pub enum Verb {
    /// Tokenize text, JSON, tables and folders of them into shards of 16-bit token ids
    ///
    /// In text files, documents are separated by lines containing only `<|endoftext|>`. JSON files have one document per
    /// line or per object of an array, CSV and TSV files one per record, Parquet files one per row; --key names the key
    /// or column with the text. A table without such a header is read as AG News: class, title, description. The
    /// extension of a file determines its format; if the extension is unknown, its content does.
    ///
    /// The shards `train-000.bin`, `val-000.bin` and so on have little-endian ids and no header; `meta.json` describes them.
    Prepare(PrepareArgs),
    /// Print what a corpus folder contains
    Inspect(InspectArgs),
}

/// Arguments of `prepare`.
#[derive(clap::Args)]
pub struct PrepareArgs {
    /// Files (text, JSON, CSV, TSV or Parquet), folders of them, or pipes such as /dev/stdin
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Tokenizer: bytes, gpt2, or words (the closed vocabulary of storyworld)
    #[arg(long, default_value = "gpt2")]
    tokenizer: String,
    /// Folder to write; it must not contain a corpus yet
    #[arg(long)]
    out: PathBuf,
    /// Format of all files [default: detected from each file's name and content]
    #[arg(long, value_enum)]
    format: Option<Container>,
    #[command(flatten)]
    read: ReadArgs,
    /// Fraction of the tokens in the validation split, 0 to 0.5
    #[arg(long, default_value_t = 0.05)]
    val_fraction: f64,
    /// Tokens per shard
    #[arg(long, default_value_t = 100_000_000)]
    shard_tokens: u64,
}

/// Arguments of `inspect`.
#[derive(clap::Args)]
pub struct InspectArgs {
    /// Corpus folder
    dir: PathBuf,
    /// Number of tokens of each split to print
    #[arg(long, default_value_t = 60)]
    tokens: u64,
    /// Tokenizer of shards without a meta.json
    #[arg(long)]
    tokenizer: Option<String>,
    /// Also compare the content of every shard with the hash in meta.json
    #[arg(long)]
    verify: bool,
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
    Ok(())
}

fn inspect(args: InspectArgs) -> anyhow::Result<()> {
    let tokenizer: Option<Tokenizer> = args.tokenizer.as_deref().map(str::parse).transpose()?;
    let train = Corpus::open(&args.dir, Split::Train, tokenizer.as_ref())?;
    if let Some(meta) = Meta::read(&args.dir)? {
        print_meta(&meta)?;
        if meta.skipped > 0 {
            outln!("skipped: {}", malformed_records(meta.skipped))?;
        }
    }
    let val = match Corpus::open(&args.dir, Split::Val, tokenizer.as_ref()) {
        // A corpus may have no validation split; a damaged one is an error.
        Err(Error::EmptySplit { .. }) => None,
        val => Some(val?),
    };
    for (split, corpus) in [("train", Some(&train)), ("val", val.as_ref())] {
        let Some(corpus) = corpus else { continue };
        let tokens = corpus.tokens(0..corpus.len().min(args.tokens))?;
        if args.verify {
            corpus.verify()?;
        }
        outln!(
            "\n{split}, {} tokens, starts with:\n{}",
            corpus.len(),
            corpus.tokenizer().decode(&tokens)
        )?;
    }
    Ok(())
}
