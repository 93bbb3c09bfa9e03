//! A sweep's results in words: the paper's claims, the distance to the truth and to baselines. Draws nothing.
//!
//! A verdict is one over seeds, as in the module `claims`.

use super::claims::claims;
use super::difference::{Difference, Verdict};
use super::entry::{Entry, Kind, groups, kind, protocols};
use super::seeds::{ONE_SEED, over_seeds};

/// How far below the truth a bound is before its evaluation is called wrong, in standard errors over sequences: the same
/// weights and texts have no seeds to vary over.
const CLEAR: f64 = 2.0;

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
    let settings = over_seeds(entries);
    sentences.extend(against_baselines(&settings));
    sentences.push(
        "Standard errors of a setting with several seeds are over these; a difference between two such settings is \
         clear beyond 1 of 20 by Welch's t-test, and two standard errors. All other standard errors are over \
         validation sequences, paired where two points were scored on the same ones, and do not include the variation \
         between seeds."
            .into(),
    );
    sentences.extend(between_seeds(entries));
    sentences
}

/// The three sentences that come first: the best valid bound against the best model without latents, and the paper's
/// claims on fast steps and on latents, each under a valid bound and as published.
pub(super) fn findings_first(entries: &[Entry]) -> Vec<String> {
    let mut first: Vec<String> = Vec::new();
    first.extend(against_best_baseline(&over_seeds(entries)));
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
    let (verdict, end) = match difference.verdict() {
        Verdict::Below => ("Latents lower the best score", String::new()),
        Verdict::Above => ("No model with latents reaches the best one without", String::new()),
        Verdict::Unclear => {
            ("The best models with and without latents do not differ clearly", String::new())
        }
        Verdict::None => ("The best scores", format!("; {ONE_SEED}")),
    };
    Some(format!(
        "{verdict}: {:.4} (`{}`, {}) with latents, {:.4} (`{}`, {}) without, a difference of {}{end}.",
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
        let (relation, end) = match difference.verdict() {
            Verdict::Below => ("is below", String::new()),
            Verdict::Above => ("is above", String::new()),
            Verdict::Unclear => ("is not clearly different from", String::new()),
            Verdict::None => ("is to be compared with", format!("; {ONE_SEED}")),
        };
        let size = Difference { nats: difference.nats.abs(), ..difference };
        sentences.push(format!(
            "The best valid bound with latents, {:.4} (`{}`, {}), {relation} {:.4} (`{}`, {}) without latents: \
             a difference of {} nats per token{end}.",
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
    use crate::report::claims::tests::{nats, of_seed, sweep};
    use crate::report::entry::tests::entry;

    #[test]
    fn sentences_name_protocol_truth_and_baseline() {
        let text = sentences(&sweep()).join("\n");
        for part in [
            "Do more fast steps lower the score under `elbo-fitted-noise` with fixed noise (the published protocol)? Yes",
            "under `elbo:8` with fixed noise (a valid bound, latents fitted with fixed noise)? No, the score rises",
            "Under `elbo-fitted-noise` 2 of 10 points are below the true entropy of the same texts, 64-fixed by 0.2000",
            "Under `elbo:8` the best of 10 points, 4-fresh, is 0.5000",
            "none is below it",
            "1.5050 (`elbo:8`, 4-fresh (2 seeds)), is below 1.7050 (`autoregressive`, baseline (2 seeds)) without",
            "do not include the variation between seeds",
        ] {
            assert!(text.contains(part), "`{part}` is not in\n{text}");
        }
        assert!(claims(&[]).is_empty());
        let text = sentences(&of_seed(1)).join("\n");
        for part in [
            "under `elbo:8` with fixed noise (a valid bound, latents fitted with fixed noise)? One seed, no verdict",
            "1.5000 (`elbo:8`, 4-fresh), is to be compared with 1.7000 (`autoregressive`, baseline)",
            "nats per token; one seed, no verdict: train more with `ltm sweep FILE --seeds 3`.",
        ] {
            assert!(text.contains(part), "`{part}` is not in\n{text}");
        }
    }

    #[test]
    fn the_findings_that_matter_come_first() {
        let first = findings_first(&sweep());
        assert!(first.len() <= 3 && first.len() >= 2, "{first:?}");
        assert!(
            first[0].contains("Latents lower the best score: 1.5050 (`elbo:8`, 4-fresh (2 seeds))"),
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
        assert!(!sentences(&of_seed(1)).join("\n").contains("Over "));
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
