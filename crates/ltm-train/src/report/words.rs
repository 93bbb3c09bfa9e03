//! What a sweep's numbers say of the paper's claims, in words. Draws nothing.
//!
//! A difference counts as one from two of its standard errors on; below, nothing is claimed.

use super::entry::{Difference, Entry, Kind, groups, kind};

/// The number of standard errors from which a difference is said to be one.
const CLEAR: f64 = 2.0;

/// A claim, put to the test: what is turned up, and by which numbers.
pub(super) struct Claim {
    /// What more of it is said to lower the numbers, in words.
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

/// From one value to a greater one, everything else equal.
pub(super) struct Step {
    pub(super) setting: String,
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) difference: Difference,
    /// Whether it is from the least value to the greatest.
    pub(super) whole: bool,
}

/// Which way a difference goes.
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
    /// Comparisons from the least to the greatest value that go this way.
    fn count(&self, way: Way) -> usize {
        self.steps.iter().filter(|step| step.whole && step.way() == way).count()
    }

    fn all(&self) -> usize {
        self.steps.iter().filter(|step| step.whole).count()
    }

    /// The verdict in a sentence's end.
    pub(super) fn verdict(&self) -> String {
        let [falls, rises, unclear] = [Way::Falls, Way::Rises, Way::Unclear].map(|w| self.count(w));
        let all = self.all();
        if falls == all {
            return format!("it holds, in {falls} of {all} comparisons");
        }
        if falls == 0 && rises == all {
            return format!("the opposite is true, in {rises} of {all} comparisons");
        }
        let mut parts = Vec::new();
        for (count, text) in [
            (falls, "the number falls"),
            (rises, "it rises"),
            (unclear, "the difference is under two standard errors"),
        ] {
            if count > 0 {
                parts.push(format!("in {count} {text}"));
            }
        }
        let holds = if falls == 0 { "it does not hold" } else { "it holds in part" };
        format!("{holds}: of {all} comparisons, {}", parts.join(", "))
    }
}

/// The paper's two claims under every protocol that is a bound, or said to be one.
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
        if kind(&protocol) == Kind::Unbounded {
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
    // What was published first: the bound whose noise the fit has seen, with fixed noise.
    findings.sort_by_key(|finding| (finding.kind == Kind::Honest, finding.noise == "fresh"));
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

/// Sentences on a sweep: its claims, how far its best numbers are from the truth and from baselines, and
/// what its errors leave out.
pub(super) fn sentences(entries: &[Entry]) -> Vec<String> {
    let mut sentences = Vec::new();
    for claim in claims(entries) {
        for finding in &claim.findings {
            let status = match (finding.kind, finding.noise) {
                (Kind::Published, "fixed") => "the published protocol",
                (Kind::Published, _) => "the published bound, fitted with fresh noise",
                (_, "fixed") => "an honest protocol, thoughts fitted with fixed noise",
                _ => "an honest protocol",
            };
            let most =
                finding.steps.iter().filter(|step| step.whole).max_by(|a, b| {
                    a.difference.errors().abs().total_cmp(&b.difference.errors().abs())
                });
            let most = most.map_or(String::new(), |step| {
                format!(
                    " The clearest is from {} to {}{}: {}.",
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
                "More {} lower the number under `{}` with {} noise ({status}): {}.{most}",
                claim.what,
                finding.protocol,
                finding.noise,
                finding.verdict()
            ));
        }
    }
    sentences.extend(against_truth(entries));
    sentences.extend(against_baselines(entries));
    sentences.push(
        "Standard errors are over validation sequences, taken in pairs where two points scored the same \
         ones. They do not hold what another training seed would change: a point is one run."
            .into(),
    );
    sentences.extend(between_seeds(entries));
    sentences
}

/// What another seed changes under honest protocols, where points differ in nothing else.
fn between_seeds(entries: &[Entry]) -> Vec<String> {
    let mut sentences = Vec::new();
    for (setting, group) in groups(&entries.iter().collect::<Vec<_>>(), "run.seed") {
        for protocol in protocols(entries).iter().filter(|p| kind(p) == Kind::Honest) {
            let scored = group.iter().filter_map(|entry| entry.score(protocol));
            let mut nats: Vec<f64> = scored.map(|score| score.nats).collect();
            nats.sort_by(f64::total_cmp);
            if let [least, .., most] = nats[..] {
                let at = if setting.is_empty() { "" } else { " at " };
                sentences.push(format!(
                    "Over {} seeds `{protocol}`{at}{setting} runs from {least:.4} to {most:.4}: a difference \
                     between two points that is not well above {:.4} may be chance.",
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
            (Kind::Honest, 0) => format!(
                "Under `{protocol}` the best of {all} points, {}, lies {} nats per token above the true \
                 entropy of the same texts; none lies below it.",
                best.name,
                plain(least)
            ),
            (Kind::Honest, _) => format!(
                "Under `{protocol}` {below} of {all} points lie below the true entropy of the same texts by \
                 more than two standard errors, {} the most ({}): no bound can, and something is wrong.",
                best.name,
                signed(least)
            ),
            (_, 0) => format!(
                "Under `{protocol}` none of {all} points lies below the true entropy of the same texts; the \
                 lowest, {}, is {} above it.",
                best.name,
                plain(least)
            ),
            _ => format!(
                "Under `{protocol}` {below} of {all} points lie below the true entropy of the same texts, \
                 which no bound can: {} by {} nats per token. The number is not one to believe.",
                best.name,
                plain(Difference { nats: -least.nats, ..least })
            ),
        });
    }
    sentences
}

/// The best point with thoughts beside each point without, under honest protocols.
fn against_baselines(entries: &[Entry]) -> Vec<String> {
    let honest = |entry: &Entry| {
        let scores = entry.scores.iter().filter(|score| kind(&score.protocol) == Kind::Honest);
        scores.min_by(|a, b| a.nats.total_cmp(&b.nats)).cloned()
    };
    let best = entries
        .iter()
        .filter(|entry| entry.has_latents())
        .filter_map(|entry| Some((entry, honest(entry)?)))
        .min_by(|a, b| a.1.nats.total_cmp(&b.1.nats));
    let Some((best, score)) = best else { return Vec::new() };
    let mut sentences = Vec::new();
    for baseline in entries.iter().filter(|entry| !entry.has_latents()) {
        let Some(its) = honest(baseline) else { continue };
        let Some(difference) = best.minus(&score.protocol, baseline, &its.protocol) else {
            continue;
        };
        let beside = match difference.errors() {
            errors if errors <= -CLEAR => "below",
            errors if errors >= CLEAR => "above",
            _ => "not clearly apart from",
        };
        let size = Difference { nats: difference.nats.abs(), ..difference };
        sentences.push(format!(
            "The best honest number with latents, {:.4} by `{}` of {}, is {beside} {:.4} by `{}` of {} \
             without: a difference of {} nats per token.",
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
    format!("{:.4} ± {:.4}", difference.nats, difference.error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::entry::tests::entry;

    /// Nats of sequences that are `x` a token, with a little scatter that pairs share but for `own`.
    fn nats(x: f64, own: f64) -> [f64; 4] {
        [2.0 * x + 0.3 + own, 3.0 * x - 0.2, 2.0 * x - 0.3, 3.0 * x + 0.2 - own]
    }

    /// A sweep in which fast steps help the published number and harm the honest one.
    fn sweep() -> Vec<Entry> {
        let point = |steps: u64, noise, published: f64, honest: f64| {
            let own = 0.01 * steps as f64 / 64.0;
            entry(
                &format!("{steps}-{noise}"),
                [6, steps],
                noise,
                &[("elbo-fitted-noise", nats(published, own)), ("elbo:8", nats(honest, own))],
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
        let unclear =
            "it does not hold: of 1 comparisons, in 1 the difference is under two standard errors";
        let expected = [
            ("elbo-fitted-noise", "fixed", 3, "it holds, in 1 of 1 comparisons"),
            ("elbo-fitted-noise", "fresh", 1, unclear),
            ("elbo:8", "fixed", 3, "the opposite is true, in 1 of 1 comparisons"),
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
            "More fast steps lower the number under `elbo-fitted-noise` with fixed noise (the published protocol): it holds",
            "under `elbo:8` with fixed noise (an honest protocol, thoughts fitted with fixed noise): the opposite",
            "Under `elbo-fitted-noise` 1 of 5 points lie below the true entropy of the same texts, which no bound can: 64-fixed by 0.2000",
            "Under `elbo:8` the best of 5 points, 4-fresh, lies 0.5000",
            "none lies below it",
            "1.5000 by `elbo:8` of 4-fresh, is below 1.7000 by `autoregressive` of baseline",
            "a point is one run",
        ] {
            assert!(text.contains(part), "`{part}` is not in\n{text}");
        }
        assert!(claims(&[]).is_empty());
    }

    #[test]
    fn seeds_say_what_training_itself_changes() {
        let seeded = |seed: u64, x| {
            let mut entry = entry("a", [6, 4], "fresh", &[("elbo:8", nats(x, 0.0))]);
            entry.config.insert("run.seed".into(), seed.into());
            entry
        };
        let text = sentences(&[seeded(1, 1.5), seeded(2, 1.7), seeded(3, 1.6)]).join("\n");
        let expected = "Over 3 seeds `elbo:8` runs from 1.5000 to 1.7000: a difference between two points that \
                        is not well above 0.2000 may be chance.";
        assert!(text.contains(expected), "{text}");
        assert!(!sentences(&sweep()).join("\n").contains("seeds"));
    }

    #[test]
    fn an_honest_number_below_the_truth_is_reported_as_wrong() {
        let entries = [entry("a", [6, 4], "fresh", &[("iwae:8", nats(0.5, 0.01))])];
        let text = sentences(&entries).join("\n");
        assert!(
            text.contains("`iwae:8` 1 of 1 points lie below") && text.contains("wrong"),
            "{text}"
        );
    }
}
