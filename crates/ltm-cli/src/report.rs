//! `ltm report`: an HTML page about runs and sweeps.

use std::path::PathBuf;
use std::process::ExitCode;

use ltm_eval::report;

use crate::output::usage;

/// Arguments of `report`.
#[derive(clap::Args)]
#[command(
    after_help = "The page is self-contained: it needs no network and follows the browser's light or dark mode.
For a sweep it states which of the paper's claims hold under the published protocol and which under valid
bounds, with differences in units of standard errors; verdicts are over seeds, and there is none where a setting has
one. Several runs are compared with the first: one table per protocol with
paired differences, one set of learning curves, and the settings that differ. Charts are also written as SVG.

  ltm report runs/storyworld-sweep
  ltm report runs/a runs/b --out compared"
)]
pub struct Args {
    /// Folders of runs and sweeps
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Folder to write the page to [default: DIR/report, if there is only one DIR]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let out = match (args.out, args.folders.as_slice()) {
        (Some(out), _) => out,
        (None, [folder]) => folder.join("report"),
        (None, _) => {
            return Err(usage("several folders are given: name the folder of the page with --out"));
        }
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
