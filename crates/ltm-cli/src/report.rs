//! `ltm report`: one page from runs and sweeps.

use std::path::PathBuf;
use std::process::ExitCode;

use ltm_train::report;

/// Arguments of `report`.
#[derive(clap::Args)]
#[command(
    after_help = "The page is self-contained: it needs no network and follows the reader's choice of light or dark.
A sweep's page says in words which of the paper's claims hold under the published protocol and which under the
honest ones, in units of standard errors. Charts lie beside it as SVG.

  ltm report runs/storyworld-sweep
  ltm report runs/a runs/b --out compared"
)]
pub struct Args {
    /// Folders of runs and of sweeps
    #[arg(required = true)]
    folders: Vec<PathBuf>,
    /// The folder to write; `report` in the folder given when there is only one
    #[arg(long)]
    out: Option<PathBuf>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let out = match (args.out, args.folders.as_slice()) {
        (Some(out), _) => out,
        (None, [folder]) => folder.join("report"),
        (None, _) => anyhow::bail!("several folders make one page: say where it goes with --out"),
    };
    let bar = crate::progress_bar(0, "{pos}/{len} read");
    let page = report::write(&args.folders, &out, &mut |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    outln!("{}", page?.display())?;
    Ok(ExitCode::SUCCESS)
}
