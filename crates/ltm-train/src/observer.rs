//! How training reports its progress, and how it is stopped. Trains nothing.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::eval::Evaluation;
use crate::step::StepReport;

/// What is to happen after a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Next {
    /// Training goes on.
    #[default]
    Continue,
    /// A run saves a checkpoint once the step is finished, and goes on; without a folder as [`Next::Continue`].
    Save,
    /// Training stops. A step that was taken counts; an evaluation that is not complete leaves nothing. A run saves a
    /// checkpoint.
    Stop,
}

/// Follows training and may stop it. A method that is not overridden does nothing and lets training go on.
pub trait Observer {
    /// Training starts: `done` of `steps` slow steps were taken before.
    fn started(&mut self, _done: u64, _steps: u64) -> Next {
        Next::Continue
    }
    /// A step was taken, in this many seconds.
    fn stepped(&mut self, _report: &StepReport, _seconds: f64) -> Next {
        Next::Continue
    }
    /// The device cannot record the fast steps, for this reason: they run more slowly, with the same results.
    fn not_recorded(&mut self, _error: &ltm_vi::Error) {}
    /// Progress of an evaluation: batches done, of all.
    fn evaluating(&mut self, _done: u64, _all: u64) -> Next {
        Next::Continue
    }
    /// The validation split was scored after this many steps.
    fn evaluated(&mut self, _step: u64, _evaluation: &Evaluation) -> Next {
        Next::Continue
    }
    /// A run has written a checkpoint.
    fn saved(&mut self, _dir: &Path) {}
}

/// Trains to the last step without reporting anything.
impl Observer for () {}
