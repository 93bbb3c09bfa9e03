//! The fast learning rate: over training, and within one fit.

use std::f64::consts::PI;

use crate::{InferConfig, Schedule};

impl InferConfig {
    /// The rate of fast step `step` of `steps` in a fit at `progress` of training, from 0 to 1.
    ///
    /// With [`Schedule::Cosine`]: `r·f + (r - r·f)·(1 + cos(π·step/steps))/2`, where `f` is
    /// `final_ratio` and `r` the rate at this point of training. As in the published code, the last step
    /// is one before the end of the cosine.
    pub fn lr_at(&self, step: usize, progress: f64) -> f64 {
        let rate = self.lr + (self.lr_end.unwrap_or(self.lr) - self.lr) * progress.clamp(0.0, 1.0);
        match self.schedule {
            Schedule::Constant => rate,
            Schedule::Cosine => {
                let last = rate * self.final_ratio;
                let angle = PI * step as f64 / self.steps.max(1) as f64;
                last + (rate - last) * (1.0 + angle.cos()) / 2.0
            }
        }
    }

    /// The weight of the KL in the objective at `progress` of training, from 0 to 1: 0 during `kl_hold`, then rising
    /// linearly over `kl_warmup`.
    pub fn kl_weight_at(&self, progress: f64) -> f64 {
        match progress - self.kl_hold {
            before if before < 0.0 => 0.0,
            since if since < self.kl_warmup => since / self.kl_warmup,
            _ => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_training_and_the_cosine() {
        let config = InferConfig::published();
        let check = |step, progress, expected: f64| {
            let rate = config.lr_at(step, progress);
            assert!((rate - expected).abs() <= 1e-12, "{rate} is not {expected}");
        };
        check(0, 0.0, 0.3);
        check(0, 0.5, 0.32);
        check(0, 1.0, 0.34);
        check(1, 1.0, 0.337_060_147_901_694_36);
        check(8, 1.0, 0.187);
        check(15, 1.0, 0.036_939_852_098_305_75);
        let constant = InferConfig { schedule: Schedule::Constant, lr_end: None, ..config };
        assert_eq!(constant.lr_at(9, 0.7), 0.3);
    }

    #[test]
    fn the_kl_counts_in_full_after_the_warmup() {
        let weights = |kl_warmup| {
            let config = InferConfig { kl_warmup, ..InferConfig::published() };
            [0.0, 0.1, 0.2, 1.0].map(|progress| config.kl_weight_at(progress))
        };
        assert_eq!(weights(0.0), [1.0; 4]);
        assert_eq!(weights(0.2), [0.0, 0.5, 1.0, 1.0]);
        assert_eq!(weights(1.0), [0.0, 0.1, 0.2, 1.0]);
        let held = InferConfig { kl_hold: 0.25, kl_warmup: 0.5, ..InferConfig::published() };
        let weights = [0.0, 0.25, 0.5, 0.75, 1.0].map(|progress| held.kl_weight_at(progress));
        assert_eq!(weights, [0.0, 0.0, 0.5, 1.0, 1.0]);
        // A hold without a ramp ends at once.
        let held = InferConfig { kl_warmup: 0.0, ..held };
        assert_eq!([0.2, 0.25].map(|progress| held.kl_weight_at(progress)), [0.0, 1.0]);
    }
}
