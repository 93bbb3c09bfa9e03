//! What is done to single latents: a value for each intervention, and the latents that it makes.

use serde::Serialize;

/// An intervention on latents.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Change {
    /// To the prior's mean: the latent says nothing.
    Prior,
    /// Its distance from the prior's mean times a factor.
    Scale {
        /// The factor.
        factor: f32,
    },
    /// To a sample of the prior: the latent says something else.
    Resample,
    /// To that of another text.
    Swap {
        /// The other text's place among those explored.
        with: usize,
    },
}

/// What the model makes of changed latents.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Changed {
    /// The latent, from 0, layer after layer; `None` for all.
    pub latent: Option<usize>,
    /// What was done to it.
    pub change: Change,
    /// The text that is decoded greedily.
    pub text: String,
    /// Nats of the original text at the changed latents.
    pub nll: f64,
}

/// Where changed latents come from, each `(L·Z,C)`.
pub(super) struct Sources<'a> {
    /// The prior's mean.
    pub(super) prior: &'a [f32],
    /// A sample of the prior.
    pub(super) sample: &'a [f32],
    /// The posterior's mean of every text explored.
    pub(super) texts: &'a [&'a [f32]],
}

impl Change {
    /// All interventions on a latent of the text at place `own` of `texts`.
    pub(super) fn all(own: usize, texts: usize) -> impl Iterator<Item = Self> {
        let scales = [0.5, 2.0].map(|factor| Self::Scale { factor });
        let swaps = (0..texts).filter(move |with| *with != own).map(|with| Self::Swap { with });
        [Self::Prior].into_iter().chain(scales).chain([Self::Resample]).chain(swaps)
    }

    /// The latents `z (L·Z,C)` with one of width `dim`, or all, changed.
    pub(super) fn apply(
        self,
        z: &[f32],
        latent: Option<usize>,
        dim: usize,
        from: &Sources<'_>,
    ) -> Vec<f32> {
        let at = |i: usize| match self {
            Self::Prior => from.prior[i],
            Self::Scale { factor } => from.prior[i] + factor * (z[i] - from.prior[i]),
            Self::Resample => from.sample[i],
            Self::Swap { with } => from.texts[with][i],
        };
        let is_changed = |i: usize| latent.is_none_or(|latent| i / dim == latent);
        (0..z.len()).map(|i| if is_changed(i) { at(i) } else { z[i] }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_of_one_latent_or_of_all() {
        let z = [2.0, 4.0, 6.0, 8.0];
        let from = Sources {
            prior: &[1.0; 4],
            sample: &[-1.0, -2.0, -3.0, -4.0],
            texts: &[&z, &[20.0, 21.0, 22.0, 23.0]],
        };
        let changes: Vec<Change> = Change::all(0, 2).collect();
        let found = changes.iter().map(|change| change.apply(&z, Some(1), 2, &from));
        let expected = [[1.0, 1.0], [3.5, 4.5], [11.0, 15.0], [-3.0, -4.0], [22.0, 23.0]];
        for (found, [c, d]) in found.zip(expected) {
            assert_eq!(found, [2.0, 4.0, c, d]);
        }
        assert_eq!(changes.len(), expected.len());
        assert_eq!(Change::Resample.apply(&z, None, 2, &from), from.sample);
        let json = serde_json::to_value(Change::all(1, 3).collect::<Vec<_>>()).expect("plain data");
        assert_eq!(json[1], serde_json::json!({"kind": "scale", "factor": 0.5}));
        assert_eq!(json[5], serde_json::json!({"kind": "swap", "with": 2}));
    }
}
