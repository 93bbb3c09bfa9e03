//! The page's HTML: sections, tables, and charts. Reads no file. Every text of a user passes `escape`.

use std::fmt::Write as _;
use std::path::Path;

use ltm_train::eval::LatentNumbers;

use super::Run;
use super::charts::{Drawer, Drawn};
use super::claims::claims;
use super::compare::Comparison;
use super::difference::Verdict;
use super::entry::{Entry, Kind, kind, protocols};
use super::seeds::over_seeds;
use super::words::{findings_first, plus_minus, sentences};
use crate::Result;
use crate::charts::Curves;
use crate::measured::{Measured, ShownSamples};

/// Black and white in a chart are text and background, which follow the reader's choice of light or dark.
const STYLE: &str = "
:root { color-scheme: light dark; --paper: #fff; --ink: #1a1a1a; --faint: #6b6b6b; --line: #dcdcdc;
  --band: #f5f6f8; --good: #00694c; --bad: #b04a00; }
@media (prefers-color-scheme: dark) { :root { --paper: #15171a; --ink: #e6e6e6; --faint: #9aa0a6;
  --line: #34383d; --band: #1e2125; --good: #4fd0a6; --bad: #ff9b57; } }
body { background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif;
  margin: 0 auto; max-width: 1160px; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; } h2 { font-size: 1.35rem; margin: 2.6rem 0 .4rem;
  border-top: 2px solid var(--line); padding-top: 1.2rem; } h3 { font-size: 1.08rem; margin: 1.8rem 0 .3rem; }
p, li { max-width: 52rem; } p.note { color: var(--faint); font-size: .92rem; }
code { font-size: .92em; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; margin: .6rem 0; }
th { text-align: right; font-weight: 600; white-space: nowrap; vertical-align: bottom; border-bottom: 2px solid var(--line); }
td { text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th, td { padding: .28rem .6rem; } th:first-child, td:first-child { text-align: left; }
caption { text-align: left; padding: .3rem 0; }
ol.findings { font-size: 1.06rem; background: var(--band); padding: .8rem 1rem .8rem 2.2rem; }
ol.findings li { margin: .25rem 0; }
td.text { text-align: left; } th.text { text-align: left; }
tbody tr:hover { background: var(--band); }
.falls { color: var(--good); } .rises { color: var(--bad); } .unclear { color: var(--faint); }
.charts { display: flex; flex-wrap: wrap; gap: .8rem; } .charts figure { margin: 0; }
figure svg { max-width: 100%; height: auto; display: block; }
figure svg [fill=\"#FFFFFF\"] { fill: var(--paper); } figure svg [fill=\"#000000\"] { fill: var(--ink); }
figure svg [stroke=\"#000000\"] { stroke: var(--ink); }
figcaption { font-size: .8rem; color: var(--faint); } a { color: inherit; }
pre { background: var(--band); padding: .7rem .9rem; white-space: pre-wrap; font-size: .86rem; margin: .3rem 0 .8rem; }
details { margin: .4rem 0; } summary { cursor: pointer; }
";

/// What a column of the table shows of a result.
type Cell<'a> = &'a dyn Fn(&Measured) -> String;

/// A page under construction.
pub(super) struct Page<'a> {
    out: &'a Path,
    body: String,
}

impl<'a> Page<'a> {
    /// An empty page, whose charts are written to `out`.
    pub(super) fn new(out: &'a Path) -> Self {
        Self { out, body: String::new() }
    }

    /// Adds a section for runs: one is shown alone, several are compared with the first.
    pub(super) fn runs(&mut self, runs: &[Run], prefix: &str) -> Result<()> {
        let drawer = Drawer { out: self.out, prefix };
        let entries: Vec<Entry> = runs.iter().map(|run| run.entry.clone()).collect();
        match entries.as_slice() {
            [one] => self.heading(2, &format!("Run {}", one.name)),
            _ => self.heading(2, "Comparison of runs"),
        }
        let comparison = Comparison::of(entries.clone());
        if let [_, _, ..] = entries.as_slice() {
            self.findings(&comparison.findings());
            self.comparison(&comparison);
        }
        self.heading(3, "Scores");
        self.note(RUN_NOTE);
        self.table("run", &entries);
        let drawn = match runs {
            [Run { train, val, .. }] => {
                let (valid, other): (Curves, Curves) =
                    val.iter().cloned().partition(|(name, _)| kind(name) == Kind::Valid);
                let mut drawn = drawer.curve("training", "Training batches", train)?;
                drawn.extend(drawer.curve(
                    "validation",
                    "Validation split, valid bounds",
                    &valid,
                )?);
                drawn.extend(drawer.curve(
                    "validation-other",
                    "Validation split, not valid bounds",
                    &other,
                )?);
                drawn
            }
            runs => {
                let curves: Vec<_> = runs
                    .iter()
                    .map(|run| (run.entry.name.as_str(), &run.train, &run.val))
                    .collect();
                drawer.learning(&curves)?
            }
        };
        self.heading(3, "Learning curves");
        self.charts(&drawn);
        self.shared(&drawer, &entries)
    }

    /// What matters most, first.
    fn findings(&mut self, findings: &[String]) {
        if findings.is_empty() {
            return;
        }
        self.push("<ol class=\"findings\">\n");
        for finding in findings {
            let text = code(finding);
            self.push(&format!("<li>{text}</li>\n"));
        }
        self.push("</ol>\n");
    }

    /// Scores by protocol with differences to the first run, and the settings that differ.
    fn comparison(&mut self, comparison: &Comparison) {
        let names = comparison.names();
        self.heading(3, "Differences by protocol");
        self.note("Differences are each run minus the first, in nats per token; lower is better. A paired standard error is that of the differences row by row, where both runs were scored on the same rows. It does not include the variation between training seeds.");
        for table in comparison.tables() {
            let (protocol, status) = (escape(&table.protocol), table.status);
            self.push(&format!(
                "<div class=\"scroll\"><table>\n<caption><code>{protocol}</code>: {status}</caption>\n<thead><tr><th>run</th>\
                 <th>nats per token</th><th>perplexity</th><th>sequences</th><th>difference</th>\
                 <th>in standard errors</th><th class=\"text\">standard error</th></tr></thead>\n<tbody>\n"
            ));
            for (i, row) in table.rows.iter().enumerate() {
                let difference = match row.difference {
                    None if i == 0 => "<td></td><td></td><td class=\"text\">baseline</td>".into(),
                    None => "<td></td><td></td><td></td>".into(),
                    Some(d) => {
                        let errors = d.nats_per_token / d.standard_error;
                        let how = if d.paired { "paired" } else { "not paired" };
                        format!(
                            "<td>{:+.4} ± {:.4}</td><td>{errors:+.1}</td><td class=\"text\">{how}</td>",
                            d.nats_per_token, d.standard_error
                        )
                    }
                };
                let name = escape(names[row.run]);
                self.push(&format!(
                    "<tr><td>{name}</td><td>{}</td><td>{:.3}</td><td>{}</td>{difference}</tr>\n",
                    plus_minus(row.nats_per_token, row.standard_error),
                    row.perplexity,
                    row.sequences
                ));
            }
            self.push("</tbody></table></div>\n");
        }
        self.heading(3, "Settings that differ");
        self.push("<div class=\"scroll\"><table>\n<thead><tr><th>key</th>");
        for name in &names {
            let name = escape(name);
            self.push(&format!("<th>{name}</th>"));
        }
        self.push("</tr></thead>\n<tbody>\n");
        for setting in comparison.settings() {
            let key = escape(&setting.key);
            self.push(&format!("<tr><td><code>{key}</code></td>"));
            for value in setting.values {
                let value = escape(&value.map_or("not set".into(), |value| value.to_string()));
                self.push(&format!("<td>{value}</td>"));
            }
            self.push("</tr>\n");
        }
        self.push("</tbody></table></div>\n");
    }

    /// The whole page.
    pub(super) fn finish(self) -> String {
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>Latent Thought Models: report</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
             <h1>Latent Thought Models</h1>\n<p class=\"note\">{INTRODUCTION}</p>\n{}</body>\n</html>\n",
            self.body
        )
    }

    /// Adds a section for a sweep; its charts' file names begin with `prefix`.
    pub(super) fn sweep(
        &mut self,
        name: &str,
        entries: &[Entry],
        failed: &[(String, String)],
        prefix: &str,
    ) -> Result<()> {
        let drawer = &Drawer { out: self.out, prefix };
        self.heading(2, &format!("Sweep {name}"));
        self.findings(&findings_first(entries));
        self.push("<details><summary>All findings in words</summary>\n<ul>\n");
        for sentence in sentences(entries) {
            let text = code(&sentence);
            self.push(&format!("<li>{text}</li>\n"));
        }
        self.push("</ul></details>\n");
        self.claims(entries);
        let settings = over_seeds(entries);
        for (key, what, title) in [
            ("infer.steps", "fast steps", "Scores against fast steps"),
            ("model.n_latents", "latents", "Scores against latents"),
        ] {
            let drawn = drawer.against(&settings, key, what)?;
            if !drawn.is_empty() {
                self.heading(3, title);
                self.note(
                    "Error bars show ± one standard error, over seeds where a setting has several.",
                );
                self.charts(&drawn);
            }
        }
        let drawn = drawer.against_flops(&settings)?;
        if !drawn.is_empty() {
            self.heading(3, "Scores against training FLOPs");
            self.note("FLOPs are counted from the graphs and include padding. Lines join points that differ only in fast steps.");
            self.charts(&drawn);
        }
        if settings.len() < entries.len() {
            self.heading(3, "Means over seeds");
            self.note("Standard errors are over seeds where a setting has several; all other columns are of its first seed.");
            self.table("setting", &settings);
        }
        self.heading(3, "All points");
        self.table("point", entries);
        for (name, error) in failed {
            let (name, error) = (escape(name), escape(error));
            self.push(&format!("<p><strong>{name}</strong> failed: {error}</p>\n"));
        }
        self.shared(drawer, entries)
    }

    /// KL by layer, fast loops and samples.
    fn shared(&mut self, drawer: &Drawer<'_>, entries: &[Entry]) -> Result<()> {
        if let Some(drawn) = drawer.kl_per_layer(entries)? {
            self.heading(3, "Information in the latents");
            self.charts(&[drawn]);
        }
        let drawn = drawer.traces(entries)?;
        if !drawn.is_empty() {
            self.heading(3, "The fast loop");
            self.note(
                "The first batch that is scored: NLL at the current sample and KL, before each fast step and \
                 after the last. With fixed noise their sum is the published number, which is not a valid bound.",
            );
            self.charts(&drawn);
        }
        self.samples(entries);
        Ok(())
    }

    fn claims(&mut self, entries: &[Entry]) {
        for claim in claims(entries) {
            let what = claim.what;
            self.push(&format!(
                "<details><summary>All comparisons of {what}</summary>\n<div class=\"scroll\"><table>\n\
                 <thead><tr><th>protocol</th><th class=\"text\">noise</th><th class=\"text\">setting</th>\
                 <th>{what}</th><th>difference</th><th>in standard errors</th><th class=\"text\">the score</th>\
                 </tr></thead>\n<tbody>\n"
            ));
            for finding in &claim.findings {
                for step in &finding.steps {
                    let (class, word) = match step.difference.verdict() {
                        Verdict::Below => ("falls", "falls"),
                        Verdict::Above => ("rises", "rises"),
                        Verdict::Unclear => ("unclear", "unclear"),
                        Verdict::None => ("unclear", "one seed"),
                    };
                    let row = format!(
                        "<tr><td><code>{}</code></td><td class=\"text\">{}</td><td class=\"text\">{}</td>\
                         <td>{} → {}</td><td>{:+.4} ± {:.4}</td><td>{:+.1}</td>\
                         <td class=\"text {class}\">{word}</td></tr>\n",
                        escape(&finding.protocol),
                        finding.noise,
                        escape(&step.setting),
                        step.from,
                        step.to,
                        step.difference.nats,
                        step.difference.error,
                        step.difference.errors(),
                    );
                    self.push(&row);
                }
            }
            self.push("</tbody></table></div></details>\n");
        }
    }

    /// One row per entry, of which `what` is the name; columns without any value are omitted.
    fn table(&mut self, what: &str, entries: &[Entry]) {
        let mut columns: Vec<(String, Vec<String>)> = Vec::new();
        for protocol in protocols(entries) {
            let what = match kind(&protocol) {
                Kind::Valid => "",
                Kind::FittedNoise => "<br>optimistic",
                Kind::NoBound => "<br>not a bound",
            };
            let head = format!("<code>{}</code>{what}<br>nats per token", escape(&protocol));
            let cell = |entry: &Entry| {
                let score = entry.score(&protocol)?;
                let (nats, perplexity) = (plus_minus(score.nats, score.error), score.perplexity);
                Some(format!("<span title=\"perplexity {perplexity:.3}\">{nats}</span>"))
            };
            let cells = entries.iter().map(|entry| cell(entry).unwrap_or_default());
            columns.push((head, cells.collect()));
        }
        let number = |number: f64, digits: usize| {
            if number.is_nan() { String::new() } else { format!("{number:.digits$}") }
        };
        let flops = |flops: Option<f64>| flops.map_or(String::new(), |x| format!("{x:.2e}"));
        let mega = |flops: Option<f64>| flops.map_or(String::new(), |x| format!("{:.2}", x * 1e-6));
        let of_latents = |run: &Measured, of: &dyn Fn(&LatentNumbers) -> String| {
            run.latents.as_ref().map_or(String::new(), of)
        };
        let kl = |latents: &LatentNumbers| match &latents.kl_per_layer_nats_per_sequence[..] {
            [] => String::new(),
            kl => format!("{:.2}", kl.iter().sum::<f64>()),
        };
        let cells: [(&str, Cell<'_>); 10] = [
            ("KL<br>nats per<br>sequence", &|run| of_latents(run, &kl)),
            ("worth of latents<br>nats per token", &|run| {
                of_latents(run, &|latents| number(latents.worth_nats_per_token, 4))
            }),
            ("signal<br>share", &|run| {
                of_latents(run, &|latents| number(latents.mean_signal_share, 2))
            }),
            ("parameters", &|run| run.parameters.to_string()),
            ("slow<br>steps", &|run| run.steps.to_string()),
            ("tokens", &|run| run.tokens.to_string()),
            ("training<br>FLOPs", &|run| flops(run.training_flops)),
            ("MFLOP<br>per token,<br>counted", &|run| mega(run.flops_per_token)),
            ("MFLOP<br>per token,<br>formula", &|run| mega(run.flops_per_token_formula)),
            ("seconds", &|run| number(run.seconds.unwrap_or(f64::NAN), 0)),
        ];
        for (head, cell) in cells {
            let cells = entries.iter().map(|entry| cell(&entry.measured)).collect();
            columns.push((head.into(), cells));
        }
        columns.retain(|(_, cells)| cells.iter().any(|cell| !cell.is_empty()));
        let heads: String = columns.iter().map(|(head, _)| format!("<th>{head}</th>")).collect();
        self.push(&format!(
            "<div class=\"scroll\"><table>\n<thead><tr><th>{what}</th>{heads}</tr></thead>\n<tbody>\n"
        ));
        for (idx, entry) in entries.iter().enumerate() {
            let row: String =
                columns.iter().map(|(_, cells)| format!("<td>{}</td>", cells[idx])).collect();
            let name = escape(&entry.name);
            self.push(&format!("<tr><td>{name}</td>{row}</tr>\n"));
        }
        self.push("</tbody></table></div>\n");
        if let Some(truth) = entries.iter().find_map(|entry| entry.measured.true_entropy.as_ref()) {
            let (nats, error) = (truth.nats_per_token, truth.standard_error);
            self.note(&format!(
                "True entropy of the corpus: {nats:.4} ± {error:.4} nats per token."
            ));
        }
    }

    fn samples(&mut self, entries: &[Entry]) {
        let with = || entries.iter().filter(|entry| entry.measured.samples.written.is_some());
        if with().count() == 0 {
            return;
        }
        self.heading(3, "Samples");
        self.note("Temperature 0.8, nucleus sampling 0.95; the prompt is the beginning of the first validation text.");
        for entry in with() {
            let ShownSamples { from_nothing, given, written, .. } = &entry.measured.samples;
            let text = |text: &Option<String>| escape(text.as_deref().unwrap_or_default());
            let html = format!(
                "<details><summary>{}</summary>\nwithout a prompt<pre>{}</pre>\nprompt<pre>{}</pre>\ncontinuation\
                 <pre>{}</pre></details>\n",
                escape(&entry.name),
                text(from_nothing),
                text(given),
                text(written)
            );
            self.push(&html);
        }
    }

    fn charts(&mut self, drawn: &[Drawn]) {
        self.push("<div class=\"charts\">\n");
        for Drawn { svg, file } in drawn {
            let file = escape(file);
            self.push(&format!(
                "<figure>{svg}<figcaption><a href=\"{file}\">{file}</a></figcaption></figure>\n"
            ));
        }
        self.push("</div>\n");
    }

    fn heading(&mut self, level: u8, text: &str) {
        let text = escape(text);
        self.push(&format!("<h{level}>{text}</h{level}>\n"));
    }

    fn note(&mut self, text: &str) {
        let text = code(text);
        self.push(&format!("<p class=\"note\">{text}</p>\n"));
    }

    fn push(&mut self, html: &str) {
        self.body.push_str(html);
    }
}

const INTRODUCTION: &str = "Every score is labelled by its protocol. Scores of different protocols can be compared \
    only where both are valid bounds on the same likelihood. <code>elbo</code> (fresh noise), <code>iwae</code> (many \
    weighted samples, tighter), <code>prequential</code> (latents fitted only to earlier tokens) and \
    <code>autoregressive</code> (exact, for a model without latents) are valid. <code>elbo-fitted-noise</code> is the \
    bound as published, which is optimistic because the fit has seen the noise. <code>reconstruction</code> is the \
    NLL at the fitted latents and not a bound. Lower is better.";

const RUN_NOTE: &str = "Scores are those of a run's last evaluation; `ltm eval` computes others.";

/// Text as HTML.
fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            c => html.push(c),
        }
    }
    html
}

/// Text as HTML, with what is between back-ticks as code.
fn code(text: &str) -> String {
    let mut html = String::new();
    for (idx, part) in text.split('`').enumerate() {
        let part = escape(part);
        if idx % 2 == 1 {
            let _ = write!(html, "<code>{part}</code>");
        } else {
            html.push_str(&part);
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_code_marked() {
        assert_eq!(escape("a<b & \"c\">"), "a&lt;b &amp; &quot;c&quot;&gt;");
        assert_eq!(code("under `elbo:8` <1"), "under <code>elbo:8</code> &lt;1");
    }
}
