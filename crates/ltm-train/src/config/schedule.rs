//! What follows from the number of a slow step: the learning rate, a warm-up and then a cosine, and whether the weights
//! are scored.

use std::f64::consts::PI;

use super::TrainConfig;

impl TrainConfig {
    /// Steps that the schedules span: those of the run, unless `schedule_steps` is set.
    pub fn schedule_steps(&self) -> u64 {
        self.schedule_steps.unwrap_or(self.steps)
    }

    /// The rate of slow step `step`, counted from 0: linear up to `lr` over `warmup` steps, then half
    /// a cosine down to `lr_min` at the schedule's last step, and `lr_min` after it.
    pub fn lr_at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.lr * (step + 1) as f64 / self.warmup as f64;
        }
        let span = self.schedule_steps().saturating_sub(self.warmup).saturating_sub(1).max(1);
        let share = ((step - self.warmup) as f64 / span as f64).min(1.0);
        self.lr_min + (self.lr - self.lr_min) * (1.0 + (PI * share).cos()) / 2.0
    }

    /// The share of the schedule that precedes slow step `step`, from 0 to 1; the fast rate and the KL warm-up
    /// follow it.
    pub fn progress(&self, step: u64) -> f64 {
        (step as f64 / self.schedule_steps().saturating_sub(1).max(1) as f64).min(1.0)
    }

    /// Samples of the posterior that a slow step takes at `progress` of training.
    pub fn samples_at(&self, progress: f64) -> usize {
        if progress < self.importance_from { 1 } else { self.importance_samples }
    }

    /// Whether the weights after `step` slow steps are scored: after every `eval_every` steps, and after the last.
    pub fn evaluates_after(&self, step: u64) -> bool {
        let periodic = self.eval_every > 0 && step > 0 && step.is_multiple_of(self.eval_every);
        periodic || step == self.steps
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    #[test]
    fn rises_then_falls_to_the_least() {
        let text = include_str!("../../tests/tiny.toml");
        let set = ["steps=101", "warmup=10", "lr=1.0", "lr_min=0.1"];
        let set: Vec<String> = set.iter().map(|text| format!("train.{text}")).collect();
        let train = Config::parse(text, Path::new("tiny.toml"), &set).expect("good").train;
        for (step, expected) in [(0, 0.1), (9, 1.0), (10, 1.0), (55, 0.55), (100, 0.1), (999, 0.1)]
        {
            let found = train.lr_at(step);
            assert!((found - expected).abs() <= 1e-12, "step {step}: {found}");
        }
        assert_eq!((train.progress(0), train.progress(50), train.progress(100)), (0.0, 0.5, 1.0));
        let longer =
            crate::config::TrainConfig { steps: 500, schedule_steps: Some(101), ..train.clone() };
        for step in [0, 9, 55, 100, 400] {
            assert_eq!(longer.lr_at(step), train.lr_at(step), "step {step}");
            assert_eq!(longer.progress(step), train.progress(step), "step {step}");
        }
    }
}
