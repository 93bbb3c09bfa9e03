//! Which charts a sweep and a run have. Knows no page.

use std::path::Path;

use super::entry::{Entry, Kind, groups, kind, protocols};
use crate::Result;
use crate::charts::{Axis, Chart, Curves, Mark, Series, stacked_bars};
use crate::measured::TracePoint;

/// A drawn chart.
pub(super) struct Drawn {
    /// The SVG's text.
    pub(super) svg: String,
    /// Its file next to the page.
    pub(super) file: String,
}

/// Writes charts of one source into a folder.
pub(super) struct Drawer<'a> {
    pub(super) out: &'a Path,
    /// Prefix of the files' names.
    pub(super) prefix: &'a str,
}

const SIZE: (u32, u32) = (540, 360);
const SMALL: (u32, u32) = (350, 250);

impl Drawer<'_> {
    /// Draws a chart, as several panels where it has many series.
    fn draw(&self, name: &str, chart: Chart) -> Result<Vec<Drawn>> {
        let panels = chart.panels();
        let several = panels.len() > 1;
        let draw = |(idx, panel): (usize, &Chart)| {
            let number = if several { format!("-{}", idx + 1) } else { String::new() };
            let file = self.file(&format!("{name}{number}"));
            Ok(Drawn { svg: panel.write(&self.out.join(&file))?, file })
        };
        panels.iter().enumerate().map(draw).collect()
    }

    fn file(&self, name: &str) -> String {
        let kept = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
        format!("{}{}.svg", self.prefix, name.chars().map(kept).collect::<String>())
    }

    /// Scores against one setting, one chart per protocol under which it varies.
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
                levels: if kind(&protocol) == Kind::Valid {
                    levels(entries)
                } else {
                    entropy(entries)
                },
                size: SIZE,
            };
            let name = format!("{}-{protocol}", what.replace(' ', "-"));
            drawn.extend(self.draw(&name, chart)?);
        }
        Ok(drawn)
    }

    /// Scores against the operations that training took, one chart per protocol of bounds. Points that differ in fast
    /// steps only are joined. Models without latents are shown next to valid bounds only.
    pub(super) fn against_flops(&self, entries: &[Entry]) -> Result<Vec<Drawn>> {
        let flops = |entry: &Entry| entry.measured.training_flops;
        let mut drawn = Vec::new();
        for protocol in protocols(entries) {
            let scored: Vec<&Entry> = entries
                .iter()
                .filter(|e| e.has_latents() && e.score(&protocol).is_some())
                .collect();
            if kind(&protocol) == Kind::NoBound || scored.is_empty() {
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
            let is_valid = kind(&protocol) == Kind::Valid;
            for entry in entries.iter().filter(|entry| is_valid && !entry.has_latents()) {
                let score = entry.scores.iter().find(|score| kind(&score.protocol) == Kind::Valid);
                let marks = score.and_then(|score| mark(entry, flops(entry)?, &score.protocol));
                let marks = marks.into_iter().collect();
                series.push(Series { name: baseline_name(entry), marks, dots: true });
            }
            let chart = Chart {
                title: title(&protocol),
                x_label: "training FLOPs".into(),
                y_label: "nats per token".into(),
                axis: Axis::Log,
                series,
                levels: entropy(entries),
                size: SIZE,
            };
            drawn.extend(self.draw(&format!("flops-{protocol}"), chart)?);
        }
        Ok(drawn)
    }

    /// KL of each layer, one bar per point.
    pub(super) fn kl_per_layer(&self, entries: &[Entry]) -> Result<Option<Drawn>> {
        let bars: Vec<(String, Vec<f64>)> = entries
            .iter()
            .filter_map(|entry| Some((entry.name.clone(), entry.measured.latents.as_ref()?)))
            .map(|(name, latents)| (name, latents.kl_per_layer_nats_per_sequence.clone()))
            .filter(|(_, kl)| !kl.is_empty())
            .collect();
        let layers = bars.iter().map(|(_, kl)| kl.len()).max().unwrap_or(0);
        if layers == 0 {
            return Ok(None);
        }
        let parts: Vec<String> = (1..=layers).map(|layer| format!("layer {layer}")).collect();
        let file = self.file("kl-per-layer");
        let title = "KL of the posterior from the prior, by layer";
        let svg = stacked_bars(&self.out.join(&file), title, "nats per sequence", &parts, &bars)?;
        Ok(Some(Drawn { svg, file }))
    }

    /// Likelihood and KL over the fast loop, one chart per point that has one.
    pub(super) fn traces(&self, entries: &[Entry]) -> Result<Vec<Drawn>> {
        let mut drawn = Vec::new();
        for entry in entries {
            let trace = &entry.measured.trace;
            if trace.is_empty() {
                continue;
            }
            let series = |name: &str, y: &dyn Fn(&TracePoint) -> f64| {
                let mark = |at: &TracePoint| Mark { x: at.step as f64, y: y(at), error: 0.0 };
                let marks = trace.iter().map(mark).filter(|mark| !mark.y.is_nan()).collect();
                Series { name: name.into(), marks, dots: false }
            };
            let chart = Chart {
                title: entry.name.clone(),
                x_label: "fast step".into(),
                y_label: "nats per token".into(),
                axis: Axis::Linear,
                series: vec![
                    series("NLL at the sample", &|at| at.nll),
                    series("KL", &|at| at.kl),
                    series("their sum", &|at| at.nll + at.kl),
                ],
                levels: Vec::new(),
                size: SMALL,
            };
            drawn.extend(self.draw(&format!("fast-loop-{}", entry.name), chart)?);
        }
        Ok(drawn)
    }

    /// Scores over the slow steps.
    pub(super) fn curve(
        &self,
        name: &str,
        title: &str,
        curves: &[(String, Vec<(f64, f64)>)],
    ) -> Result<Vec<Drawn>> {
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
            return Ok(Vec::new());
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
        self.draw(name, chart)
    }

    /// One set of learning curves for all runs: training batches, and the validation split under each protocol.
    pub(super) fn learning(&self, runs: &[(&str, &Curves, &Curves)]) -> Result<Vec<Drawn>> {
        let mut drawn = Vec::new();
        let of = |curves: &Curves, key: &str| -> Vec<(f64, f64)> {
            let found = curves.iter().find(|(name, _)| name == key);
            found.map(|(_, points)| thinned(points)).unwrap_or_default()
        };
        // The bound where there are latents, otherwise the loss, which then is the likelihood.
        let training = runs.iter().map(|(name, train, _)| {
            let bound = of(train, "bound_fitted_noise");
            let points = if bound.is_empty() { of(train, "loss") } else { bound };
            (name.to_string(), points)
        });
        let training: Curves = training.collect();
        drawn.extend(self.curve("training", "Training batches, NLL + KL", &training)?);
        let mut protocols: Vec<&String> =
            runs.iter().flat_map(|(_, _, val)| val.iter().map(|(name, _)| name)).collect();
        protocols.sort_by_key(|protocol| (kind(protocol), protocol.to_string()));
        protocols.dedup();
        for protocol in protocols {
            let curves = runs.iter().map(|(name, _, val)| (name.to_string(), of(val, protocol)));
            let curves: Curves = curves.collect();
            drawn.extend(self.curve(
                &format!("validation-{protocol}"),
                &title(protocol),
                &curves,
            )?);
        }
        Ok(drawn)
    }
}

/// At most 400 means over consecutive points, so that a page of long runs stays small.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let each = points.len().div_ceil(400).max(1);
    let mean = |points: &[(f64, f64)]| {
        let sum = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / points.len() as f64, sum.1 / points.len() as f64)
    };
    points.chunks(each).map(mean).collect()
}

fn mark(entry: &Entry, x: f64, protocol: &str) -> Option<Mark> {
    let score = entry.score(protocol)?;
    Some(Mark { x, y: score.nats, error: score.error })
}

/// The title of a protocol's chart.
fn title(protocol: &str) -> String {
    format!("{protocol} ({})", kind(protocol).status())
}

fn baseline_name(entry: &Entry) -> String {
    let by = entry.scores.iter().find(|score| kind(&score.protocol) == Kind::Valid);
    match by {
        Some(score) if !entry.name.contains(&score.protocol) => {
            format!("{} ({})", entry.name, score.protocol)
        }
        _ => entry.name.clone(),
    }
}

/// The true entropy, as a reference line.
fn entropy(entries: &[Entry]) -> Vec<(String, f64)> {
    let truth = entries.iter().find_map(|entry| entry.measured.true_entropy.as_ref());
    truth.map(|truth| ("true entropy".into(), truth.nats_per_token)).into_iter().collect()
}

/// The true entropy and the baselines without latents, as reference lines.
fn levels(entries: &[Entry]) -> Vec<(String, f64)> {
    let mut levels = entropy(entries);
    for entry in entries.iter().filter(|entry| !entry.has_latents()) {
        if let Some(score) = entry.scores.iter().find(|score| kind(&score.protocol) == Kind::Valid)
        {
            levels.push((baseline_name(entry), score.nats));
        }
    }
    levels
}
