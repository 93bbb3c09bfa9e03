//! `ltm data`: converts text to token shards, and prints what shards contain.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use ltm_train::data::tokenizer::{TOKENIZER_FILE, json, named};
use ltm_train::data::{
    Corpus, Error, Meta, PrepareOptions, ReadOptions, SharedTokenizer, Split, prepare,
};

use crate::files::{Container, ReadArgs, Reading, malformed_records};
use crate::output::usage;

/// Verbs of `ltm data`.
#[derive(Subcommand)]
pub enum Verb {
    /// Tokenize text, JSON, tables and folders of them into shards of token ids
    ///
    /// In text files, documents are separated by lines containing only `<|endoftext|>`. JSON files have one document per
    /// line or per object of an array, CSV and TSV files one per record, Parquet files one per row; --key names the key
    /// or column with the text. A table without such a header is read as AG News: class, title, description. The
    /// extension of a file determines its format; if the extension is unknown, its content does.
    ///
    /// The shards `train-000.bin`, `val-000.bin` and so on have little-endian ids: 16 bits each without a header, or 32 bits
    /// with llm.c's header for a vocabulary of more than 65,536 ids. `meta.json` describes them.
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
    /// Tokenizer: bytes, gpt2, words (the closed vocabulary of storyworld), the path of a Hugging Face tokenizer.json, or a
    /// corpus folder, whose tokenizer is taken
    #[arg(long, default_value = "gpt2")]
    tokenizer: String,
    /// With gpt2: keep the single bytes and the tokens that occur at least so often in the files, and write the others in
    /// shorter ones
    ///
    /// A small corpus uses a small part of GPT-2's vocabulary, and a model of it need not have embeddings for the rest. The
    /// files are read twice, so pipes are refused, and tokens of the validation split count too.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    min_count: Option<u64>,
    /// Token of a tokenizer.json that ends documents, such as `</s>` [default: the first usual one that it has]
    #[arg(long, value_name = "TOKEN")]
    end_of_document: Option<String>,
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
    /// Tokenizer of shards without a meta.json, as in `ltm data prepare`
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
    if let (Some(Container::Gsm8k), Some(_)) = (args.format, &args.read.key) {
        return Err(usage("--key does not apply to GSM8K, whose keys are `question` and `answer`"));
    }
    let read = args.read.options(args.format.map(Container::into));
    let tokenizer = tokenizer(&args, &read)?;
    let options = PrepareOptions {
        read,
        val_fraction: args.val_fraction,
        shard_tokens: args.shard_tokens,
        ..PrepareOptions::new(args.out.clone(), tokenizer.clone())
    };
    let mut reading = Reading::new();
    let meta = prepare(&args.files, &options, &mut |notice| reading.see(notice));
    reading.finish();
    let meta = meta?;
    print_meta(&meta, &tokenizer)?;
    outln!("written to {}", args.out.display())?;
    Ok(())
}

fn tokenizer(args: &PrepareArgs, read: &ReadOptions) -> anyhow::Result<SharedTokenizer> {
    if let Some(least) = args.min_count {
        if args.tokenizer != "gpt2" || args.end_of_document.is_some() {
            return Err(usage("--min-count applies to the tokenizer gpt2"));
        }
        let is_pipe = |path: &&PathBuf| path.metadata().is_ok_and(|m| !m.is_file() && !m.is_dir());
        if let Some(pipe) = args.files.iter().find(is_pipe) {
            let message = "--min-count reads its files twice: write the text of";
            return Err(usage(format!("{message} {} to a file first", pipe.display())));
        }
        return part_of_gpt2(&args.files, least, read);
    }
    let path = Path::new(&args.tokenizer);
    // A name stands for its tokenizer, also where there is such a folder.
    let corpus = match &*args.tokenizer {
        "bytes" | "gpt2" | "words" => None,
        _ if path.is_dir() => Meta::read(path)?,
        _ => None,
    };
    Ok(match (&args.end_of_document, corpus) {
        (Some(_), Some(_)) => {
            return Err(usage(
                "--end-of-document applies to a tokenizer.json, not to that of a corpus",
            ));
        }
        (Some(token), None) => {
            let file = path.is_dir().then(|| path.join(TOKENIZER_FILE));
            json(file.as_deref().unwrap_or(path), Some(token))?
        }
        (None, Some(corpus)) => corpus.tokenizer(path, None)?,
        (None, None) => named(&args.tokenizer)?,
    })
}

/// GPT-2's tokenizer without the tokens that occur less than `least` times in the files.
#[cfg(feature = "gpt2")]
fn part_of_gpt2(
    files: &[PathBuf],
    least: u64,
    read: &ReadOptions,
) -> anyhow::Result<SharedTokenizer> {
    use ltm_train::data::{Gpt2, Gpt2Subset, Notice, count_tokens};

    let mut reading = Reading::new();
    let counts = count_tokens(files, &Gpt2, read, &mut |notice| {
        // What is skipped is named when it is read again.
        if matches!(notice, Notice::Read { .. }) {
            reading.see(notice);
        }
    });
    reading.finish();
    Ok(std::sync::Arc::new(Gpt2Subset::frequent(&counts?, least)))
}

/// The error of a build without GPT-2's tokenizer.
#[cfg(not(feature = "gpt2"))]
fn part_of_gpt2(_: &[PathBuf], _: u64, _: &ReadOptions) -> anyhow::Result<SharedTokenizer> {
    Ok(named("gpt2")?)
}

fn print_meta(meta: &Meta, tokenizer: &SharedTokenizer) -> anyhow::Result<()> {
    outln!("tokenizer {}, vocabulary {}", meta.tokenizer, tokenizer.vocab_size())?;
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
    let tokenizer = args.tokenizer.as_deref().map(named).transpose()?;
    let train = Corpus::open(&args.dir, Split::Train, tokenizer.as_ref())?;
    if let Some(meta) = Meta::read(&args.dir)? {
        print_meta(&meta, train.tokenizer())?;
        if meta.skipped > 0 {
            outln!("skipped: {}", malformed_records(meta.skipped))?;
        }
    }
    let val = match Corpus::open(&args.dir, Split::Val, Some(train.tokenizer())) {
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
