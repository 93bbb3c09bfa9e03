//! A sweep's results in words: the paper's claims, the distance to the truth and to baselines. Draws nothing.
//!
//! A difference of less than two standard errors is called unclear.

use super::entry::{Difference, Entry, Kind, groups, kind};

/// A smaller difference, in standard errors, is reported as unclear.
const CLEAR: f64 = 2.0;

/// A claim that more of something lowers the numbers, with the comparisons that test it.
pub(super) struct Claim {
    /// What increases, in words.
    pub(super) what: &'static str,
    pub(super) findings: Vec<Finding>,
}

/// A claim under one protocol and one kind of noise.
pub(super) struct Finding {
    pub(super) protocol: String,
    pub(super) noise: &'static str,
    pub(super) kind: Kind,
    pub(super) steps: Vec<Step>,
}

/// A comparison of one value with a greater one, all other settings being equal.
pub(super) struct Step {
    pub(super) setting: String,
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) difference: Difference,
    /// Whether it is from the least value to the greatest.
    pub(super) whole: bool,
}

/// The sign of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Falls,
    Rises,
    Unclear,
}

impl Step {
    pub(super) fn way(&self) -> Way {
        match self.difference.errors() {
            errors if errors <= -CLEAR => Way::Falls,
            errors if errors >= CLEAR => Way::Rises,
            _ => Way::Unclear,
        }
    }
}

impl Finding {
    /// Comparisons of the least with the greatest value that go this way.
    fn count(&self, way: Way) -> usize {
        self.steps.iter().filter(|step| step.whole && step.way() == way).count()
    }

    fn all(&self) -> usize {
        self.steps.iter().filter(|step| step.whole).count()
    }

    /// The answer to "Do more … lower the score?".
    pub(super) fn verdict(&self) -> String {
        let [falls, rises, unclear] = [Way::Falls, Way::Rises, Way::Unclear].map(|w| self.count(w));
        let all = self.all();
        if falls == all {
            return format!("yes, in {falls} of {all} comparisons");
        }
        if falls == 0 && rises == all {
            return format!("no, the score rises in {rises} of {all} comparisons");
        }
        let mut parts = Vec::new();
        for (count, text) in [
            (falls, "the score falls"),
            (rises, "the score rises"),
            (unclear, "the difference is below two standard errors"),
        ] {
            if count > 0 {
                parts.push(format!("in {count} {text}"));
            }
        }
        let answer = if falls == 0 { "no" } else { "in part" };
        format!("{answer}; of {all} comparisons, {}", parts.join(", "))
    }
}

/// The paper's two claims under every protocol that is, or was published as, a bound.
pub(super) fn claims(entries: &[Entry]) -> Vec<Claim> {
    [("infer.steps", "fast steps"), ("model.n_latents", "latents")]
        .into_iter()
        .map(|(key, what)| Claim { what, findings: findings(entries, key) })
        .filter(|claim| !claim.findings.is_empty())
        .collect()
}

fn findings(entries: &[Entry], key: &str) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for protocol in protocols(entries) {
        if kind(&protocol) == Kind::NoBound {
            continue;
        }
        for (fixed, noise) in [(true, "fixed"), (false, "fresh")] {
            let scored: Vec<&Entry> = entries
                .iter()
                .filter(|e| {
                    e.is_fitted() && e.fixed_noise() == fixed && e.score(&protocol).is_some()
                })
                .collect();
            let mut steps = Vec::new();
            for (setting, group) in groups(&scored, key) {
                steps.extend(steps_of(&group, key, &protocol, &setting));
            }
            if !steps.is_empty() {
                let kind = kind(&protocol);
                findings.push(Finding { protocol: protocol.clone(), noise, kind, steps });
            }
        }
    }
    // The published protocol first: the bound whose noise the fit has seen, with fixed noise.
    findings.sort_by_key(|finding| (finding.kind == Kind::Valid, finding.noise == "fresh"));
    findings
}

fn steps_of(group: &[&Entry], key: &str, protocol: &str, setting: &str) -> Vec<Step> {
    let step = |from: &Entry, to: &Entry, whole| {
        Some(Step {
            setting: setting.into(),
            from: from.number(key)?,
            to: to.number(key)?,
            difference: to.minus(protocol, from, protocol)?,
            whole,
        })
    };
    let mut steps: Vec<Step> =
        group.windows(2).filter_map(|pair| step(pair[0], pair[1], group.len() == 2)).collect();
    if let (Some(first), Some(last)) = (group.first(), group.last())
        && group.len() > 2
    {
        steps.extend(step(first, last, true));
    }
    steps
}

/// Every protocol that some entry was scored by, those of bounds first.
pub(super) fn protocols(entries: &[Entry]) -> Vec<String> {
    let mut protocols: Vec<String> = Vec::new();
    for score in entries.iter().flat_map(|entry| &entry.scores) {
        if !protocols.contains(&score.protocol) {
            protocols.push(score.protocol.clone());
        }
    }
    protocols.sort_by_key(|protocol| (kind(protocol), protocol.clone()));
    protocols
}

/// Sentences on a sweep: its claims, how far its best numbers are from the truth and from baselines, and what its
/// errors do not include.
pub(super) fn sentences(entries: &[Entry]) -> Vec<String> {
    let mut sentences = Vec::new();
    for claim in claims(entries) {
        for finding in &claim.findings {
            let status = match (finding.kind, finding.noise) {
                (Kind::FittedNoise, "fixed") => "the published protocol",
                (Kind::FittedNoise, _) => "the published bound, fitted with fresh noise",
                (_, "fixed") => "a valid bound, latents fitted with fixed noise",
                _ => "a valid bound",
            };
            let most =
                finding.steps.iter().filter(|step| step.whole).max_by(|a, b| {
                    a.difference.errors().abs().total_cmp(&b.difference.errors().abs())
                });
            let most = most.map_or(String::new(), |step| {
                format!(
                    " The largest difference in standard errors is from {} to {}{}: {}.",
                    step.from,
                    step.to,
                    if step.setting.is_empty() {
                        String::new()
                    } else {
                        format!(" ({})", step.setting)
                    },
                    signed(step.difference)
                )
            });
            sentences.push(format!(
                "Do more {} lower the score under `{}` with {} noise ({status})? {}.{most}",
                claim.what,
                finding.protocol,
                finding.noise,
                capitalised(&finding.verdict())
            ));
        }
    }
    sentences.extend(against_truth(entries));
    sentences.extend(against_baselines(entries));
    sentences.push(
        "Standard errors are over validation sequences, paired where two points were scored on the same ones. \
         They do not include the variation between training seeds: each point is one run."
            .into(),
    );
    sentences.extend(between_seeds(entries));
    sentences
}

/// The three sentences that come first: the best valid bound against the best model without latents, and the paper's
/// claims on fast steps and on latents, each under a valid bound and as published.
pub(super) fn findings_first(entries: &[Entry]) -> Vec<String> {
    let mut first: Vec<String> = Vec::new();
    first.extend(against_best_baseline(entries));
    for claim in claims(entries) {
        let of = |valid: bool| {
            let findings = claim.findings.iter().filter(|f| (f.kind == Kind::Valid) == valid);
            // The protocol with the most comparisons, the first of those.
            let most = findings.rev().max_by_key(|f| f.all())?;
            Some(format!("`{}` with {} noise: {}", most.protocol, most.noise, most.verdict()))
        };
        let (valid, published) = (of(true), of(false));
        let parts: Vec<String> = [("valid bound", valid), ("published bound", published)]
            .into_iter()
            .filter_map(|(what, text)| Some(format!("Under the {what} {}.", text?)))
            .collect();
        first.push(format!("Do more {} lower the score? {}", claim.what, parts.join(" ")));
    }
    first.extend(against_truth(entries));
    first.truncate(3);
    first
}

/// The best point with latents against the best without.
fn against_best_baseline(entries: &[Entry]) -> Option<String> {
    let valid = |entry: &Entry| {
        let scores = entry.scores.iter().filter(|score| kind(&score.protocol) == Kind::Valid);
        scores.min_by(|a, b| a.nats.total_cmp(&b.nats)).cloned()
    };
    let best = |latents: bool| {
        let scored = entries.iter().filter(|entry| entry.has_latents() == latents);
        let scored = scored.filter_map(|entry| Some((entry, valid(entry)?)));
        scored.min_by(|a, b| a.1.nats.total_cmp(&b.1.nats))
    };
    let ((with, score), (without, its)) = (best(true)?, best(false)?);
    let difference = with.minus(&score.protocol, without, &its.protocol)?;
    let verdict = match difference.errors() {
        errors if errors <= -CLEAR => "Latents lower the best score",
        errors if errors >= CLEAR => "No model with latents reaches the best one without",
        _ => "The best models with and without latents do not differ clearly",
    };
    Some(format!(
        "{verdict}: {:.4} (`{}`, {}) with latents, {:.4} (`{}`, {}) without, a difference of {}.",
        score.nats,
        score.protocol,
        with.name,
        its.nats,
        its.protocol,
        without.name,
        signed(difference)
    ))
}

/// What another seed changes under valid bounds, where points differ in nothing else.
fn between_seeds(entries: &[Entry]) -> Vec<String> {
    let mut sentences = Vec::new();
    for (setting, group) in groups(&entries.iter().collect::<Vec<_>>(), "run.seed") {
        for protocol in protocols(entries).iter().filter(|p| kind(p) == Kind::Valid) {
            let scored = group.iter().filter_map(|entry| entry.score(protocol));
            let mut nats: Vec<f64> = scored.map(|score| score.nats).collect();
            nats.sort_by(f64::total_cmp);
            if let [least, .., most] = nats[..] {
                let at = if setting.is_empty() { "" } else { " at " };
                sentences.push(format!(
                    "Over {} seeds, `{protocol}`{at}{setting} ranges from {least:.4} to {most:.4}: a difference \
                     between two points that is not well above {:.4} may be due to the seed.",
                    nats.len(),
                    most - least
                ));
            }
        }
    }
    sentences
}

/// How far the numbers are above the exact likelihood of the same texts.
fn against_truth(entries: &[Entry]) -> Vec<String> {
    let mut sentences = Vec::new();
    for protocol in protocols(entries) {
        let above: Vec<(&Entry, Difference)> = entries
            .iter()
            .filter_map(|entry| Some((entry, entry.above_truth(&protocol)?)))
            .collect();
        let Some((best, least)) =
            above.iter().min_by(|a, b| a.1.nats.total_cmp(&b.1.nats)).map(|(e, d)| (*e, *d))
        else {
            continue;
        };
        let below = above.iter().filter(|(_, d)| d.errors() <= -CLEAR).count();
        let all = above.len();
        sentences.push(match (kind(&protocol), below) {
            (Kind::Valid, 0) => format!(
                "Under `{protocol}` the best of {all} points, {}, is {} nats per token above the true entropy \
                 of the same texts; none is below it.",
                best.name,
                plain(least)
            ),
            (Kind::Valid, _) => format!(
                "Under `{protocol}` {below} of {all} points are below the true entropy of the same texts by more \
                 than two standard errors, {} the most ({}). This is impossible for a valid bound: the evaluation is wrong.",
                best.name,
                signed(least)
            ),
            (_, 0) => format!(
                "Under `{protocol}` none of {all} points is below the true entropy of the same texts; the \
                 lowest, {}, is {} nats per token above it.",
                best.name,
                plain(least)
            ),
            _ => format!(
                "Under `{protocol}` {below} of {all} points are below the true entropy of the same texts, \
                 {} by {} nats per token: this protocol is not a bound.",
                best.name,
                plain(Difference { nats: -least.nats, ..least })
            ),
        });
    }
    sentences
}

/// The best point with latents compared with each point without, under valid bounds.
fn against_baselines(entries: &[Entry]) -> Vec<String> {
    let valid = |entry: &Entry| {
        let scores = entry.scores.iter().filter(|score| kind(&score.protocol) == Kind::Valid);
        scores.min_by(|a, b| a.nats.total_cmp(&b.nats)).cloned()
    };
    let best = entries
        .iter()
        .filter(|entry| entry.has_latents())
        .filter_map(|entry| Some((entry, valid(entry)?)))
        .min_by(|a, b| a.1.nats.total_cmp(&b.1.nats));
    let Some((best, score)) = best else { return Vec::new() };
    let mut sentences = Vec::new();
    for baseline in entries.iter().filter(|entry| !entry.has_latents()) {
        let Some(its) = valid(baseline) else { continue };
        let Some(difference) = best.minus(&score.protocol, baseline, &its.protocol) else {
            continue;
        };
        let relation = match difference.errors() {
            errors if errors <= -CLEAR => "below",
            errors if errors >= CLEAR => "above",
            _ => "not clearly different from",
        };
        let size = Difference { nats: difference.nats.abs(), ..difference };
        sentences.push(format!(
            "The best valid bound with latents, {:.4} (`{}`, {}), is {relation} {:.4} (`{}`, {}) without latents: \
             a difference of {} nats per token.",
            score.nats,
            score.protocol,
            best.name,
            its.nats,
            its.protocol,
            baseline.name,
            plain(size)
        ));
    }
    sentences
}

/// The same text with a capital at its beginning.
fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

/// `-0.0312 ± 0.0020 nats per token (-15.6 standard errors)`.
pub(super) fn signed(difference: Difference) -> String {
    format!(
        "{:+.4} ± {:.4} nats per token ({:+.1} standard errors)",
        difference.nats,
        difference.error,
        difference.errors()
    )
}

fn plain(difference: Difference) -> String {
    plus_minus(difference.nats, difference.error)
}

/// A mean with its standard error, which a single sequence does not have.
pub(super) fn plus_minus(mean: f64, error: f64) -> String {
    if error.is_nan() { format!("{mean:.4}") } else { format!("{mean:.4} ± {error:.4}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::entry::tests::entry;

    /// Nats of sequences that are `x` per token, with a little scatter that pairs share but for `own`.
    fn nats(x: f64, own: f64) -> [f64; 4] {
        [2.0 * x + 0.3 + own, 3.0 * x - 0.2, 2.0 * x - 0.3, 3.0 * x + 0.2 - own]
    }

    /// A sweep in which fast steps lower the published bound and raise the valid one.
    fn sweep() -> Vec<Entry> {
        let point = |steps: u64, noise, published: f64, valid: f64| {
            let own = 0.01 * steps as f64 / 64.0;
            entry(
                &format!("{steps}-{noise}"),
                [6, steps],
                noise,
                &[("elbo-fitted-noise", nats(published, own)), ("elbo:8", nats(valid, own))],
            )
        };
        vec![
            point(4, "fixed", 1.4, 1.6),
            point(16, "fixed", 1.1, 1.8),
            point(64, "fixed", 0.8, 2.1),
            point(4, "fresh", 1.5, 1.5),
            point(64, "fresh", 1.5, 1.5),
            entry("baseline", [0, 4], "fresh", &[("autoregressive", nats(1.7, 0.0))]),
        ]
    }

    #[test]
    fn claims_are_tested_by_protocol_whichever_way_they_fall() {
        let sweep = sweep();
        let claims = claims(&sweep);
        assert_eq!(claims.len(), 1, "latents do not vary where there are any");
        let found: Vec<_> = claims[0]
            .findings
            .iter()
            .map(|f| (f.protocol.as_str(), f.noise, f.steps.len(), f.verdict()))
            .collect();
        let unclear = "no; of 1 comparisons, in 1 the difference is below two standard errors";
        let expected = [
            ("elbo-fitted-noise", "fixed", 3, "yes, in 1 of 1 comparisons"),
            ("elbo-fitted-noise", "fresh", 1, unclear),
            ("elbo:8", "fixed", 3, "no, the score rises in 1 of 1 comparisons"),
            ("elbo:8", "fresh", 1, unclear),
        ];
        assert_eq!(found, expected.map(|(a, b, c, d)| (a, b, c, d.to_string())));
        let step = &claims[0].findings[0].steps[2];
        assert_eq!((step.from, step.to, step.whole), (4.0, 64.0, true));
        assert!((step.difference.nats + 0.6).abs() <= 1e-9, "{:?}", step.difference);
    }

    #[test]
    fn sentences_name_protocol_truth_and_baseline() {
        let text = sentences(&sweep()).join("\n");
        for part in [
            "Do more fast steps lower the score under `elbo-fitted-noise` with fixed noise (the published protocol)? Yes",
            "under `elbo:8` with fixed noise (a valid bound, latents fitted with fixed noise)? No, the score rises",
            "Under `elbo-fitted-noise` 1 of 5 points are below the true entropy of the same texts, 64-fixed by 0.2000",
            "Under `elbo:8` the best of 5 points, 4-fresh, is 0.5000",
            "none is below it",
            "1.5000 (`elbo:8`, 4-fresh), is below 1.7000 (`autoregressive`, baseline)",
            "each point is one run",
        ] {
            assert!(text.contains(part), "`{part}` is not in\n{text}");
        }
        assert!(claims(&[]).is_empty());
    }

    #[test]
    fn the_findings_that_matter_come_first() {
        let first = findings_first(&sweep());
        assert!(first.len() <= 3 && first.len() >= 2, "{first:?}");
        assert!(
            first[0].contains("Latents lower the best score: 1.5000 (`elbo:8`, 4-fresh)"),
            "{first:?}"
        );
        let steps = "Do more fast steps lower the score? Under the valid bound `elbo:8` with fixed noise: no,";
        assert!(first[1].starts_with(steps), "{first:?}");
        assert!(
            first[1]
                .contains("Under the published bound `elbo-fitted-noise` with fixed noise: yes"),
            "{first:?}"
        );
        assert!(findings_first(&[]).is_empty());
    }

    #[test]
    fn the_range_over_seeds_is_reported() {
        let seeded = |seed: u64, x| {
            let mut entry = entry("a", [6, 4], "fresh", &[("elbo:8", nats(x, 0.0))]);
            entry.config.insert("run.seed".into(), seed.into());
            entry
        };
        let text = sentences(&[seeded(1, 1.5), seeded(2, 1.7), seeded(3, 1.6)]).join("\n");
        let expected = "Over 3 seeds, `elbo:8` ranges from 1.5000 to 1.7000: a difference between two points that \
                        is not well above 0.2000 may be due to the seed.";
        assert!(text.contains(expected), "{text}");
        assert!(!sentences(&sweep()).join("\n").contains("Over "));
    }

    #[test]
    fn a_valid_bound_below_the_truth_is_reported_as_wrong() {
        let entries = [entry("a", [6, 4], "fresh", &[("iwae:8", nats(0.5, 0.01))])];
        let text = sentences(&entries).join("\n");
        assert!(
            text.contains("`iwae:8` 1 of 1 points are below") && text.contains("wrong"),
            "{text}"
        );
    }
}
