//! `ltm serve`: models over HTTP.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use ltm_serve::{Options, Server};
use ltm_train::Checkpoint;

use crate::output::usage;

/// Arguments of `serve`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  ltm serve runs/quickstart
  curl http://127.0.0.1:8080/v1/completions -d '{\"model\": \"quickstart\", \"prompt\": \"one sunny morning\"}'

A model's name is that of its folder. `NAME@prequential-16` is the same model, whose scores of echoed prompts are in blocks
of 16 tokens. GET /v1/models lists the models, GET /metrics the server's counters. Ctrl-C and SIGTERM let the texts end that
are being written. docs/serving.md describes every route.")]
pub struct Args {
    /// Run folders (the newest checkpoint of each is used) or checkpoint folders
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Address to listen at; another than a loopback address lets other machines in
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port to listen at; 0 takes a free one
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Host name that requests may be sent to, repeatable [default: those of loopback, and --host]
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// Environment variable with the key that requests must send as `Authorization: Bearer KEY` [default: any key, or none]
    #[arg(long, value_name = "VARIABLE")]
    api_key_env: Option<String>,
    /// Prompts that may wait; a request that finds no room is refused with status 429
    #[arg(long, value_name = "COUNT", default_value_t = Options::default().queue)]
    queue: usize,
    /// Texts that are written together
    #[arg(long, value_name = "COUNT", default_value_t = Options::default().texts)]
    texts: usize,
    /// Seconds that texts may go on for after Ctrl-C or SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = Options::default().drain.as_secs())]
    drain: u64,
    /// Device: `cpu`, `cuda` (the first GPU) or `cuda:N` [default: `run.device` of each configuration]
    #[arg(long, display_order = 901)]
    device: Option<String>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut models = Vec::new();
    for run in &args.runs {
        let mut checkpoint = Checkpoint::load(run)?;
        if let Some(device) = &args.device {
            checkpoint.config.run.device.clone_from(device);
        }
        models.push((name(run)?, checkpoint));
    }
    let api_key = args.api_key_env.as_deref().map(read_key).transpose()?;
    let mut hosts = args.allow_host;
    hosts.push(args.host.clone());
    let names: Vec<String> = models.iter().map(|(name, _)| name.clone()).collect();
    let drain = Duration::from_secs(args.drain);
    let options = Options {
        queue: args.queue,
        texts: args.texts,
        hosts,
        api_key,
        drain,
        ..Options::default()
    };
    let server = Server::start(models, options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // The engine computes; this thread only waits for clients.
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the server's threads")?;
    runtime.block_on(async {
        let place = format!("{}:{}", args.host, args.port);
        let listener =
            tokio::net::TcpListener::bind((args.host.as_str(), args.port)).await.with_context(
                || format!("{place}: cannot listen there; --port chooses another port"),
            )?;
        let address = listener.local_addr().with_context(|| format!("{place}: cannot listen"))?;
        greet(address, &names)?;
        server.run(listener, ended()).await;
        note!("the server has ended");
        Ok(ExitCode::SUCCESS)
    })
}

/// A model's name: that of its run's folder.
fn name(run: &Path) -> anyhow::Result<String> {
    let whole = std::fs::canonicalize(run)
        .with_context(|| format!("{}: cannot be opened", run.display()))?;
    let name = whole.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned)
        .ok_or_else(|| usage(format!("{}: expected a folder with a name in UTF-8", run.display())))
}

fn read_key(variable: &str) -> anyhow::Result<String> {
    match std::env::var(variable) {
        Ok(key) if !key.is_empty() => Ok(key),
        _ => Err(usage(format!(
            "--api-key-env: the environment variable `{variable}` is not set or empty"
        ))),
    }
}

/// Says where the server is. The first line of standard output is its address, for programs that start it.
fn greet(address: SocketAddr, names: &[String]) -> anyhow::Result<()> {
    outln!("http://{address}")?;
    note!("serving {} at http://{address}; Ctrl-C ends it", names.join(", "));
    if !address.ip().is_loopback() {
        note!("note: {address} can be reached from other machines");
    }
    Ok(())
}

/// Done at Ctrl-C or SIGTERM.
async fn ended() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut term) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = term.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
