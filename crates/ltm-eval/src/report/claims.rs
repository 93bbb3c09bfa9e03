//! The paper's claims, tested on a sweep by every protocol. Writes no sentence but the verdict.
//!
//! A verdict is one over seeds: a difference that seeds may explain is called unclear, and of one seed there is none.

use super::difference::{Difference, Verdict};
use super::entry::{Entry, Kind, groups, kind, protocols};
use super::seeds::{ONE_SEED, over_seeds};

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

impl Finding {
    /// Comparisons of the least with the greatest value that go this way.
    fn count(&self, verdict: Verdict) -> usize {
        let of = |step: &&Step| step.whole && step.difference.verdict() == verdict;
        self.steps.iter().filter(of).count()
    }

    pub(super) fn all(&self) -> usize {
        self.steps.iter().filter(|step| step.whole).count()
    }

    /// The answer to "Do more … lower the score?".
    pub(super) fn verdict(&self) -> String {
        let [falls, rises, unclear, none] =
            [Verdict::Below, Verdict::Above, Verdict::Unclear, Verdict::None]
                .map(|verdict| self.count(verdict));
        let all = self.all();
        if none == all {
            return ONE_SEED.into();
        }
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
            (unclear, "seeds may explain the difference"),
            (none, "there is one seed"),
        ] {
            if count > 0 {
                parts.push(format!("in {count} {text}"));
            }
        }
        let answer = if falls == 0 { "no" } else { "in part" };
        format!("{answer}; of {all} comparisons, {}", parts.join(", "))
    }
}

/// The paper's two claims under every protocol that is, or was published as, a bound: about settings, over their seeds.
pub(super) fn claims(entries: &[Entry]) -> Vec<Claim> {
    let entries = &over_seeds(entries);
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::report::entry::tests::entry;

    /// Nats of sequences that are `x` per token, with a little scatter that pairs share but for `own`.
    pub(crate) fn nats(x: f64, own: f64) -> [f64; 4] {
        [2.0 * x + 0.3 + own, 3.0 * x - 0.2, 2.0 * x - 0.3, 3.0 * x + 0.2 - own]
    }

    /// Two seeds of a sweep in which fast steps lower the published bound and raise the valid one.
    pub(crate) fn sweep() -> Vec<Entry> {
        [1, 2].into_iter().flat_map(of_seed).collect()
    }

    /// The points of one seed, which moves all of them by as much.
    pub(crate) fn of_seed(seed: u64) -> Vec<Entry> {
        let moved = 0.01 * seed as f64 - 0.01;
        let named = |name: &str| match seed {
            1 => name.to_string(),
            _ => format!("{name},seed={seed}"),
        };
        let point = |steps: u64, noise, published: f64, valid: f64| {
            let own = 0.01 * steps as f64 / 64.0;
            let [published, valid] = [published, valid].map(|x| nats(x + moved, own));
            let scores = [("elbo-fitted-noise", published), ("elbo:8", valid)];
            entry(&named(&format!("{steps}-{noise}")), [6, steps], noise, &scores)
        };
        let baseline = [("autoregressive", nats(1.7 + moved, 0.0))];
        let mut points = vec![
            point(4, "fixed", 1.4, 1.6),
            point(16, "fixed", 1.1, 1.8),
            point(64, "fixed", 0.8, 2.1),
            point(4, "fresh", 1.5, 1.5),
            point(64, "fresh", 1.5, 1.5),
            entry(&named("baseline"), [0, 4], "fresh", &baseline),
        ];
        for point in &mut points {
            point.config.insert("run.seed".into(), seed.into());
        }
        points
    }

    #[test]
    fn claims_are_tested_by_protocol_whichever_way_they_fall() {
        let sweep = sweep();
        let found_of = |entries: &[Entry]| -> Vec<_> {
            let claims = claims(entries);
            assert_eq!(claims.len(), 1, "latents do not vary where there are any");
            let findings = claims[0].findings.iter();
            findings.map(|f| (f.protocol.clone(), f.noise, f.steps.len(), f.verdict())).collect()
        };
        let unclear = "no; of 1 comparisons, in 1 seeds may explain the difference";
        let expected = [
            ("elbo-fitted-noise", "fixed", 3, "yes, in 1 of 1 comparisons"),
            ("elbo-fitted-noise", "fresh", 1, unclear),
            ("elbo:8", "fixed", 3, "no, the score rises in 1 of 1 comparisons"),
            ("elbo:8", "fresh", 1, unclear),
        ];
        let of = |(protocol, noise, steps, verdict): (&str, _, _, &str)| {
            (protocol.to_string(), noise, steps, verdict.to_string())
        };
        assert_eq!(found_of(&sweep), expected.map(of));
        let claims = claims(&sweep);
        let step = &claims[0].findings[0].steps[2];
        assert_eq!((step.from, step.to, step.whole), (4.0, 64.0, true));
        assert!((step.difference.nats + 0.6).abs() <= 1e-9, "{:?}", step.difference);
        // The same numbers of one seed, whatever their errors over sequences are.
        for (_, _, _, verdict) in found_of(&of_seed(1)) {
            assert_eq!(verdict, ONE_SEED);
        }
    }
}
