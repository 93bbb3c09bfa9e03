//! `ltm compare`: scores of several runs and the settings that differ.

use std::path::PathBuf;
use std::process::ExitCode;

use ltm_eval::report::{Comparison, ProtocolTable};
use ltm_vi::Protocol;

use crate::output::{number, plus_minus};

/// Arguments of `compare`.
#[derive(clap::Args)]
#[command(
    after_help = "The first run is the baseline: differences are other runs minus it, in nats per token; lower is better.
Where two runs were scored on the same rows, the standard error is that of the differences row by row.
It does not include the variation between training seeds, which `ltm sweep FILE --seeds 3` measures. `ltm report RUN RUN --out DIR` draws the curves.

  ltm compare runs/baseline runs/latents
  ltm compare runs/baseline runs/latents --protocol iwae:32 --sequences 256"
)]
pub struct Args {
    /// Folders of runs; the first is the baseline
    #[arg(required = true, num_args = 2.., value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Score the newest checkpoints by this protocol, repeatable [default: the scores of each run's last evaluation]
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
        "no run has been evaluated yet: add --protocol to score them"
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
        for (i, row) in rows.iter().enumerate() {
            let (difference, paired) = match row.difference {
                None if i == 0 => ("baseline".into(), ""),
                None => ("n/a".into(), ""),
                Some(d) if d.nats_per_token.is_nan() => ("n/a".into(), ""),
                Some(d) => {
                    let text =
                        format!("{:+.4} ± {}", d.nats_per_token, number(d.standard_error, 4));
                    (text, if d.paired { "yes" } else { "no" })
                }
            };
            let score = plus_minus((row.nats_per_token, row.standard_error), 4);
            let (name, perplexity, n) = (names[row.run], number(row.perplexity, 3), row.sequences);
            outln!(
                "  {name:width$}  {score:>17}  {perplexity:>10}  {n:>9}  {difference:>19}  {paired:>6}"
            )?;
        }
    }
    outln!(
        "\nErrors are over rows of text and do not cover other training seeds: two runs decide nothing."
    )?;
    Ok(())
}
