//! Which charts a sweep and a run have. Knows no page.

use std::path::Path;

use serde_json::Value;

use super::entry::{Entry, Kind, groups, kind, numbers};
use super::words::protocols;
use crate::Result;
use crate::metrics::{Axis, Chart, Mark, Series, stacked_bars};

/// A chart that was drawn.
pub(super) struct Drawn {
    /// The SVG's text.
    pub(super) svg: String,
    /// Its file beside the page.
    pub(super) file: String,
}

/// Writes charts of one source into a folder.
pub(super) struct Drawer<'a> {
    pub(super) out: &'a Path,
    /// What the names of files begin with.
    pub(super) prefix: &'a str,
}

const SIZE: (u32, u32) = (540, 360);
const SMALL: (u32, u32) = (350, 250);

impl Drawer<'_> {
    fn draw(&self, name: &str, chart: &Chart) -> Result<Drawn> {
        let file = self.file(name);
        Ok(Drawn { svg: chart.write(&self.out.join(&file))?, file })
    }

    fn file(&self, name: &str) -> String {
        let kept = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
        format!("{}{}.svg", self.prefix, name.chars().map(kept).collect::<String>())
    }

    /// Numbers against one setting, a chart a protocol in which it varies.
    pub(super) fn against(&self, entries: &[Entry], key: &str, what: &str) -> Result<Vec<Drawn>> {
        let mut drawn = Vec::new();
        for protocol in protocols(entries) {
            let scored: Vec<&Entry> = entries
                .iter()
                .filter(|e| e.has_latents() && e.score(&protocol).is_some())
                .collect();
            let series: Vec<Series> = groups(&scored, key)
                .into_iter()
                .map(|(name, group)| Series {
                    name,
                    marks: group
                        .iter()
                        .filter_map(|e| mark(e, e.number(key)?, &protocol))
                        .collect(),
                    dots: true,
                })
                .collect();
            if series.is_empty() {
                continue;
            }
            let mut values: Vec<f64> =
                series.iter().flat_map(|series| &series.marks).map(|mark| mark.x).collect();
            values.sort_by(f64::total_cmp);
            values.dedup();
            let chart = Chart {
                title: title(&protocol),
                x_label: what.into(),
                y_label: "nats per token".into(),
                axis: Axis::Values(values),
                series,
                levels: levels(entries),
                size: SIZE,
            };
            let name = format!("{}-{protocol}", what.replace(' ', "-"));
            drawn.push(self.draw(&name, &chart)?);
        }
        Ok(drawn)
    }

    /// Numbers against the operations that training took, a chart a protocol of bounds. What differs in fast
    /// steps alone is joined.
    pub(super) fn against_flops(&self, entries: &[Entry]) -> Result<Vec<Drawn>> {
        let flops = |entry: &Entry| entry.line["training_flops"].as_f64();
        let mut drawn = Vec::new();
        for protocol in protocols(entries) {
            let scored: Vec<&Entry> = entries
                .iter()
                .filter(|e| e.has_latents() && e.score(&protocol).is_some())
                .collect();
            if kind(&protocol) == Kind::Unbounded || scored.is_empty() {
                continue;
            }
            let joined = groups(&scored, "infer.steps");
            let alone = scored
                .iter()
                .filter(|e| !joined.iter().any(|(_, group)| group.iter().any(|g| g.name == e.name)))
                .map(|e| (e.name.clone(), vec![*e]));
            let mut series: Vec<Series> = joined
                .iter()
                .cloned()
                .chain(alone)
                .map(|(name, group)| Series {
                    name,
                    marks: group.iter().filter_map(|e| mark(e, flops(e)?, &protocol)).collect(),
                    dots: true,
                })
                .collect();
            for entry in entries.iter().filter(|entry| !entry.has_latents()) {
                let honest =
                    entry.scores.iter().find(|score| kind(&score.protocol) == Kind::Honest);
                let marks = honest.and_then(|score| mark(entry, flops(entry)?, &score.protocol));
                let marks = marks.into_iter().collect();
                series.push(Series { name: baseline_name(entry), marks, dots: true });
            }
            let chart = Chart {
                title: title(&protocol),
                x_label: "training FLOPs".into(),
                y_label: "nats per token".into(),
                axis: Axis::Log,
                series,
                levels: levels(entries).into_iter().filter(|(name, _)| name == ENTROPY).collect(),
                size: SIZE,
            };
            drawn.push(self.draw(&format!("flops-{protocol}"), &chart)?);
        }
        Ok(drawn)
    }

    /// KL of each layer, a bar a point.
    pub(super) fn kl_per_layer(&self, entries: &[Entry]) -> Result<Option<Drawn>> {
        let of = |e: &Entry| numbers(&e.line["latents"]["kl_per_layer_nats_per_sequence"]);
        let bars: Vec<(String, Vec<f64>)> = entries
            .iter()
            .map(|entry| (entry.name.clone(), of(entry)))
            .filter(|(_, kl)| !kl.is_empty())
            .collect();
        let layers = bars.iter().map(|(_, kl)| kl.len()).max().unwrap_or(0);
        if layers == 0 {
            return Ok(None);
        }
        let parts: Vec<String> = (1..=layers).map(|layer| format!("layer {layer}")).collect();
        let file = self.file("kl-per-layer");
        let title = "KL of the thoughts from the prior, by layer";
        let svg = stacked_bars(&self.out.join(&file), title, "nats per sequence", &parts, &bars)?;
        Ok(Some(Drawn { svg, file }))
    }

    /// How likelihood and KL part over the fast loop, a chart a point that has one.
    pub(super) fn traces(&self, entries: &[Entry]) -> Result<Vec<Drawn>> {
        let mut drawn = Vec::new();
        for entry in entries {
            let trace = entry.line["trace"].as_array().map_or(&[][..], Vec::as_slice);
            if trace.is_empty() {
                continue;
            }
            let series = |name: &str, y: &dyn Fn(&Value) -> Option<f64>| {
                let mark =
                    |at: &Value| Some(Mark { x: at["step"].as_f64()?, y: y(at)?, error: 0.0 });
                let marks = trace.iter().filter_map(mark).collect();
                Series { name: name.into(), marks, dots: false }
            };
            let (nll, kl) = (|at: &Value| at["nll"].as_f64(), |at: &Value| at["kl"].as_f64());
            let chart = Chart {
                title: entry.name.clone(),
                x_label: "fast step".into(),
                y_label: "nats per token".into(),
                axis: Axis::Linear,
                series: vec![
                    series("NLL at the sample", &nll),
                    series("KL", &kl),
                    series("their sum", &|at| Some(nll(at)? + kl(at)?)),
                ],
                levels: Vec::new(),
                size: SMALL,
            };
            drawn.push(self.draw(&format!("fast-loop-{}", entry.name), &chart)?);
        }
        Ok(drawn)
    }

    /// A run's numbers over its steps.
    pub(super) fn curve(
        &self,
        name: &str,
        title: &str,
        curves: &[(String, Vec<(f64, f64)>)],
    ) -> Result<Option<Drawn>> {
        let dots = curves.iter().all(|(_, points)| points.len() <= 40);
        let series: Vec<Series> = curves
            .iter()
            .filter(|(_, points)| !points.is_empty())
            .map(|(name, points)| Series {
                name: name.clone(),
                marks: points.iter().map(|(x, y)| Mark { x: *x, y: *y, error: 0.0 }).collect(),
                dots,
            })
            .collect();
        if series.is_empty() {
            return Ok(None);
        }
        let chart = Chart {
            title: title.into(),
            x_label: "slow step".into(),
            y_label: "nats per token".into(),
            axis: Axis::Linear,
            series,
            levels: Vec::new(),
            size: SIZE,
        };
        self.draw(name, &chart).map(Some)
    }
}

const ENTROPY: &str = "true entropy";

fn mark(entry: &Entry, x: f64, protocol: &str) -> Option<Mark> {
    let score = entry.score(protocol)?;
    Some(Mark { x, y: score.nats, error: score.error })
}

/// What a protocol is called above its chart.
fn title(protocol: &str) -> String {
    let what = match kind(protocol) {
        Kind::Unbounded => "no bound",
        Kind::Published => "published bound",
        Kind::Honest => "honest",
    };
    format!("{protocol} ({what})")
}

fn baseline_name(entry: &Entry) -> String {
    let by = entry.scores.iter().find(|score| kind(&score.protocol) == Kind::Honest);
    match by {
        Some(score) if !entry.name.contains(&score.protocol) => {
            format!("{} ({})", entry.name, score.protocol)
        }
        _ => entry.name.clone(),
    }
}

/// The true entropy and the baselines without latents, as heights to compare with.
fn levels(entries: &[Entry]) -> Vec<(String, f64)> {
    let entropy =
        entries.iter().find_map(|entry| entry.line["true_entropy"]["nats_per_token"].as_f64());
    let mut levels: Vec<_> = entropy.map(|nats| (ENTROPY.into(), nats)).into_iter().collect();
    for entry in entries.iter().filter(|entry| !entry.has_latents()) {
        if let Some(score) = entry.scores.iter().find(|score| kind(&score.protocol) == Kind::Honest)
        {
            levels.push((baseline_name(entry), score.nats));
        }
    }
    levels
}
