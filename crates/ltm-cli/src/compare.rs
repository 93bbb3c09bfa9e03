//! `ltm compare`: runs next to each other.

use std::path::PathBuf;
use std::process::ExitCode;

use ltm_train::report::{Comparison, ProtocolTable};
use ltm_vi::Protocol;

/// Arguments of `compare`.
#[derive(clap::Args)]
#[command(
    after_help = "The first run is the baseline: differences are other runs minus it, in nats per token; lower is better.
Where two runs were scored on the same rows, the standard error is that of the differences row by row.
It does not include what another training seed would change. `ltm report RUN RUN --out DIR` draws the curves.

  ltm compare runs/baseline runs/latents
  ltm compare runs/baseline runs/latents --protocol iwae:32 --sequences 256"
)]
pub struct Args {
    /// Folders of runs; the first is the baseline
    #[arg(required = true, num_args = 2.., value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Score the newest checkpoints by this protocol, repeatable [default: the numbers of each run's last evaluation]
    #[arg(long)]
    protocol: Vec<Protocol>,
    /// Sequences to score with --protocol; 0 for the whole validation split
    #[arg(long, default_value_t = 0, requires = "protocol")]
    sequences: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let bar = crate::progress_bar(0, "run {msg}: scored {pos}/{len} batches");
    let mut progress = |run: usize, done, all| {
        bar.set_message(format!("{} of {}", run + 1, args.runs.len()));
        bar.set_length(all);
        bar.set_position(done);
    };
    let comparison = Comparison::read(&args.runs, &args.protocol, args.sequences, &mut progress);
    bar.finish_and_clear();
    let comparison = comparison?;
    if args.json {
        outln!("{}", serde_json::to_string_pretty(&comparison.to_json())?)?;
    } else {
        print(&comparison)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(comparison: &Comparison) -> anyhow::Result<()> {
    let names = comparison.names();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(8);
    let settings = comparison.settings();
    if settings.is_empty() {
        outln!("the configurations do not differ")?;
    } else {
        outln!("settings that differ")?;
        for setting in &settings {
            outln!("  {}", setting.key)?;
            for (name, value) in names.iter().zip(&setting.values) {
                let value = value.as_ref().map_or("not set".into(), ToString::to_string);
                outln!("    {name:width$}  {value}")?;
            }
        }
    }
    let tables = comparison.tables();
    anyhow::ensure!(
        !tables.is_empty(),
        "no run has been evaluated yet: score them with --protocol"
    );
    for ProtocolTable { protocol, status, rows } in &tables {
        outln!("\n{protocol} ({status}), nats per token")?;
        outln!(
            "  {:width$}  {:>17}  {:>10}  {:>9}  {:>19}  {:>6}",
            "run",
            "score",
            "perplexity",
            "sequences",
            "difference",
            "paired"
        )?;
        for row in rows {
            let (difference, paired) = match row.difference {
                None => ("baseline".into(), ""),
                Some(d) => {
                    let text = format!("{:+.4} ± {:.4}", d.nats_per_token, d.standard_error);
                    (text, if d.paired { "yes" } else { "no" })
                }
            };
            let score = format!("{:.4} ± {:.4}", row.nats_per_token, row.standard_error);
            let (name, perplexity, n) = (names[row.run], row.perplexity, row.sequences);
            outln!(
                "  {name:width$}  {score:>17}  {perplexity:>10.3}  {n:>9}  {difference:>19}  {paired:>6}"
            )?;
        }
    }
    Ok(())
}
