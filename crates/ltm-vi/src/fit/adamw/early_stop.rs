//! Early stopping of single sequences, while others of the batch go on. Knows no optimiser.

use ltm_kernels::Buffer;

use crate::Result;

/// Compares the mean bound of each window of steps with that of the window before. A sequence whose bound is no lower
/// stops: its posterior is kept as it is then.
pub(super) struct EarlyStop {
    window: usize,
    steps: usize,
    sums: Vec<f64>,
    /// Of the window before; infinite for the first.
    before: Vec<f64>,
    stopped: Vec<bool>,
    /// The posteriors of those that stopped, one buffer for each of their parameters.
    kept: Vec<Buffer>,
}

impl EarlyStop {
    /// For `b` sequences with posteriors like these parameters; `None` without windows.
    pub(super) fn new(window: usize, b: usize, posterior: &[&Buffer]) -> Result<Option<Self>> {
        if window == 0 {
            return Ok(None);
        }
        let kept = posterior.iter().map(|now| now.try_clone());
        Ok(Some(Self {
            window,
            steps: 0,
            sums: vec![0.0; b],
            before: vec![f64::INFINITY; b],
            stopped: vec![false; b],
            kept: kept.collect::<ltm_kernels::Result<_>>()?,
        }))
    }

    /// Takes in the bound of each sequence before a step whose update led to this posterior; whether all have stopped.
    pub(super) fn after(&mut self, bounds: &[f64], posterior: &[&Buffer]) -> Result<bool> {
        self.sums.iter_mut().zip(bounds).for_each(|(sum, bound)| *sum += bound);
        self.steps += 1;
        if self.steps < self.window {
            return Ok(false);
        }
        for (row, sum) in self.sums.iter_mut().enumerate() {
            if !self.stopped[row] && *sum >= self.before[row] {
                self.stopped[row] = true;
                for (kept, now) in self.kept.iter_mut().zip(posterior) {
                    copy_row(kept, now, row, self.stopped.len())?;
                }
            }
            self.before[row] = std::mem::take(sum);
        }
        self.steps = 0;
        Ok(self.stopped.iter().all(|stopped| *stopped))
    }

    /// Puts back what was kept.
    pub(super) fn restore(&self, posterior: Vec<&mut Buffer>) -> Result<()> {
        for (now, kept) in posterior.into_iter().zip(&self.kept) {
            for (row, _) in self.stopped.iter().enumerate().filter(|(_, stopped)| **stopped) {
                copy_row(now, kept, row, self.stopped.len())?;
            }
        }
        Ok(())
    }
}

/// Copies the numbers of one of `b` sequences.
fn copy_row(to: &mut Buffer, from: &Buffer, row: usize, b: usize) -> Result<()> {
    let len = from.len() / b;
    Ok(to.copy_range(row * len, from, row * len, len)?)
}

/// The bound of each of `b` sequences from the NLL `(B·T)` and the KL `(B·L)`.
pub(super) fn bounds(b: usize, nll: &[f64], kl: &[f64]) -> Vec<f64> {
    let rows = nll.chunks(nll.len() / b).zip(kl.chunks(kl.len() / b));
    rows.map(|(nll, kl)| nll.iter().chain(kl).sum()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_stops_when_a_window_is_no_better_and_keeps_its_posterior() {
        let buffer = |numbers: [f32; 2]| Buffer::from_vec(numbers.to_vec());
        let mut now = [buffer([0.0, 0.0]), buffer([0.0, 0.0])];
        let mut stop = EarlyStop::new(2, 2, &now.each_ref()).unwrap().unwrap();
        let mut at = |step: f32, bounds: [f64; 2]| {
            let posterior = [buffer([step, 10.0 + step]), buffer([-step, -10.0 - step])];
            stop.after(&bounds, &posterior.each_ref()).unwrap()
        };
        assert!(!at(1.0, [9.0, 9.0]) && !at(2.0, [8.0, 9.0]));
        // The first falls from 17 to 16; the second stops at 18.
        assert!(!at(3.0, [9.0, 9.0]) && !at(4.0, [7.0, 9.0]));
        // Later bounds do not start it again.
        assert!(!at(5.0, [7.0, 1.0]) && !at(6.0, [7.0, 1.0]));
        assert!(!at(7.0, [6.0, 1.0]) && !at(8.0, [6.0, 1.0]));
        stop.restore(now.each_mut().into()).unwrap();
        assert_eq!(now[0].to_f32().unwrap(), [0.0, 14.0]);
        assert_eq!(now[1].to_f32().unwrap(), [0.0, -14.0]);
        assert!(EarlyStop::new(0, 2, &now.each_ref()).unwrap().is_none());
        assert_eq!(bounds(2, &[1.0, 2.0, 3.0, 4.0], &[10.0, 20.0]), [13.0, 27.0]);
    }
}
