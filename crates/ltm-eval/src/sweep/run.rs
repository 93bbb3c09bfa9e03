//! Runs the points of a sweep that have no result yet: trains a point, scores it, and writes its line. Prints nothing;
//! an observer reports progress.

use std::ops::ControlFlow;
use std::path::Path;

use ltm_files::{Error as FileError, FolderLock, remove_aside, write_whole};
use ltm_train::chain;
use ltm_train::checkpoint::Checkpoint;
use ltm_train::data::{Split, storyworld};
use ltm_train::eval::{Evaluation, evaluate_until};
use ltm_train::json::null_as_nan;
use ltm_train::run_data::open;
use ltm_train::{Group, Next, Observer, Run, Start, StepReport};
use serde::{Deserialize, Serialize};

use super::record::{check_folder, check_line, settings};
use super::results::{PointResult, RESULTS_FILE, read_results, write_results};
use super::{Point, Sweep, generated};
use crate::corpus::suitable;
use crate::measured::{
    Measured, TrueEntropy, nats, sequence_tokens, shown_samples, shown_trace, true_entropy,
};
use crate::{Error, Result};

/// The file of a point's run that records how long its steps took, up to its newest checkpoint.
const TIMING_FILE: &str = "timing.json";

/// Reports how a sweep proceeds, and each of its runs.
pub trait SweepObserver: Observer {
    /// Work on a point begins: the points done before it, of how many.
    fn point_started(&mut self, _point: &Point, _done: usize, _all: usize) -> Next {
        Next::Continue
    }
    /// A point is trained and is being scored: batches done, of all.
    fn scoring(&mut self, _done: u64, _all: u64) -> Next {
        Next::Continue
    }
    /// A point's line was written.
    fn point_finished(&mut self, _result: &PointResult) {}
}

/// How a sweep ended.
#[derive(Clone, Debug)]
pub struct SweepSummary {
    /// Whether every point has a line: false after a stop.
    pub finished: bool,
    /// The lines of the file's points, in its order, as far as they have one.
    pub results: Vec<PointResult>,
}

impl Sweep {
    /// Removes results, so that [`run`](Self::run) makes them again: every line, whose runs stay and are only
    /// scored again, or with `failed_only` the lines of points that failed, whose runs are removed.
    ///
    /// # Errors
    /// [`Error::File`], and those of [`read_results`].
    pub fn forget(&self, failed_only: bool) -> Result<()> {
        if read_results(&self.dir)?.is_empty() {
            return Ok(());
        }
        let _lock = FolderLock::acquire(&self.dir)?;
        let results = read_results(&self.dir)?;
        let failed = |result: &&PointResult| result.outcome.is_err();
        if failed_only {
            for PointResult { point: failed, .. } in results.iter().filter(failed) {
                if let Some(point) = self.points.iter().find(|point| failed.name == point.name) {
                    let dir = &point.placed.run.dir;
                    let _lock = FolderLock::acquire(dir)?;
                    remove_aside(dir)?;
                }
            }
        }
        let kept = results.iter().filter(|result| failed_only && !failed(result));
        write_results(&self.dir, kept)
    }

    /// Runs every point that has no line yet, one after the other, or until the observer stops it: then the present
    /// step is saved, and a later call continues from there.
    ///
    /// A point that fails gets a line with an `error`, and the sweep continues.
    ///
    /// # Errors
    /// [`Error::File`] when another process works on the sweep or a file cannot be written, [`Error::SweepChanged`] when a
    /// recorded point was run with other settings.
    pub fn run(&self, observer: &mut dyn SweepObserver) -> Result<SweepSummary> {
        self.run_in(&Group::alone(), observer)
    }

    /// As [`run`](Self::run), as one of the processes of a group: each trains and scores every so many of the points that
    /// have no line, alone, and adds their lines to the same file. The summary is complete in each.
    ///
    /// # Errors
    /// Those of [`run`](Self::run), and [`Error::Train`] when another process could not begin.
    pub fn run_in(&self, group: &Group, observer: &mut dyn SweepObserver) -> Result<SweepSummary> {
        let begun = match group.is_first() {
            true => self.begin().map(Some),
            false => Ok(None),
        };
        let said = begun.as_ref().map(|_| &()).map_err(|error| chain(error));
        let all = group.agree(said, "the start of the sweep");
        let _lock = begun?;
        all.map_err(ltm_train::Error::from)?;
        let mut results = read_results(&self.dir)?;
        let has_none = |point: &Point, results: &[PointResult]| {
            !results.iter().any(|result| result.point.name == point.name)
        };
        let without = self.points.iter().enumerate();
        let without = without.filter(|(_, point)| has_none(point, &results));
        let own: Vec<_> = without.skip(group.rank()).step_by(group.size()).collect();
        let mut entropy = None;
        for (idx, point) in own {
            if observer.point_started(point, idx, self.points.len()) == Next::Stop {
                break;
            }
            let outcome = match self.run_point(point, observer, &mut entropy) {
                Ok(Some(found)) => Ok(found),
                Ok(None) => break,
                Err(error @ Error::File(FileError::Io { .. } | FileError::Locked { .. })) => {
                    return Err(error);
                }
                Err(error) => Err(chain(&error)),
            };
            let result = PointResult::new(settings(self, point), outcome);
            self.append(&result)?;
            observer.point_finished(&result);
            results.push(result);
        }
        if group.size() > 1 {
            group
                .gather_patiently((), "the points of other processes")
                .map_err(ltm_train::Error::from)?;
            results = read_results(&self.dir)?;
        }
        let of =
            |point: &Point| results.iter().find(|result| result.point.name == point.name).cloned();
        let results: Vec<PointResult> = self.points.iter().filter_map(of).collect();
        Ok(SweepSummary { finished: results.len() == self.points.len(), results })
    }

    /// Takes the lock of the sweep's folder, and makes sure that what is there is this sweep's.
    fn begin(&self) -> Result<FolderLock> {
        let lock = FolderLock::acquire(&self.dir)?;
        let results = read_results(&self.dir)?;
        for point in &self.points {
            match results.iter().find(|result| result.point.name == point.name) {
                Some(result) => check_line(self, point, &result.point)?,
                None => check_folder(point)?,
            }
        }
        // A last line that was cut off would garble the next one.
        write_results(&self.dir, &results)?;
        if results.len() < self.points.len() {
            self.points.iter().try_for_each(|point| self.ensure_stories(point))?;
        }
        Ok(lock)
    }

    /// Generates the stories that the points share, unless they are there.
    fn ensure_stories(&self, point: &Point) -> Result<()> {
        let config = &point.placed;
        if let (true, Some(dir)) = (generated(&point.config), &config.data.path) {
            let seed = self.corpus_seed;
            let (documents, val_documents) = (config.data.documents, config.data.val_documents);
            storyworld::ensure(dir, &storyworld::Parameters { seed, documents, val_documents })?;
        }
        Ok(())
    }

    fn append(&self, result: &PointResult) -> Result<()> {
        let path = self.dir.join(RESULTS_FILE);
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .map_err(Error::io(&path, "open"))?;
        // Another process of the group may write its line.
        file.lock().map_err(Error::io(&path, "lock"))?;
        let text = format!("{}\n", result.json());
        std::io::Write::write_all(&mut file, text.as_bytes())
            .and_then(|()| file.sync_data())
            .map_err(Error::io(&path, "write"))
    }

    /// Trains and scores a point; `None` after a stop.
    fn run_point(
        &self,
        point: &Point,
        observer: &mut dyn SweepObserver,
        entropy: &mut Option<TrueEntropy>,
    ) -> Result<Option<Measured>> {
        let config = &point.placed;
        let mut run = Run::new(config.clone(), Start::FreshOrResume)?;
        let tokenizer = run.tokenizer().clone();
        let mut timed = Timed::new(observer, &config.run.dir);
        let summary = run.run(&mut timed)?;
        #[cfg(feature = "charts")]
        crate::charts::draw(&config.run.dir)?;
        if !summary.finished {
            return Ok(None);
        }
        let seconds = timed.seconds;
        drop(run);
        let weights = config.on_device(&Checkpoint::load(&summary.checkpoint)?.weights)?;
        let val = open(config, Split::Val)?;
        let (protocols, left_out) = suitable(&self.protocols, config, &val);
        let mut progress = |done, all| match observer.scoring(done, all) {
            Next::Stop => ControlFlow::Break(()),
            Next::Continue | Next::Save => ControlFlow::Continue(()),
        };
        let sequences = self.eval_sequences;
        let evaluation =
            evaluate_until(config, &weights, &val, &protocols, sequences, &mut progress)?;
        let Some(evaluation) = evaluation else { return Ok(None) };
        let mut measured = Measured {
            seconds: Some(seconds),
            evaluation: evaluation.scores(),
            left_out,
            nats: nats(&evaluation),
            sequence_tokens: sequence_tokens(&evaluation),
            latents: evaluation.latents.as_ref().map(Into::into),
            trace: shown_trace(config, &weights, &val.sample(self.eval_sequences)?)?,
            samples: shown_samples(config, &weights, &*tokenizer, &val),
            ..Measured::of_training(config, &config.run.dir, config.train.steps)?
        };
        if generated(&point.config) {
            // One corpus and one split for all points: its entropy is found once.
            if entropy.is_none() {
                *entropy = Some(true_entropy(self.corpus_seed, &val, self.eval_sequences)?);
            }
            measured.true_entropy.clone_from(entropy);
        }
        Ok(Some(measured))
    }
}

/// The content of [`TIMING_FILE`].
#[derive(Serialize, Deserialize)]
struct Timing {
    /// Of all steps so far.
    #[serde(deserialize_with = "null_as_nan")]
    seconds: f64,
    /// Steps taken.
    step: u64,
}

/// Forwards a run's reports, and adds up the seconds of its steps over interruptions.
struct Timed<'a> {
    observer: &'a mut dyn SweepObserver,
    path: std::path::PathBuf,
    seconds: f64,
    step: u64,
}

impl<'a> Timed<'a> {
    fn new(observer: &'a mut dyn SweepObserver, run_dir: &Path) -> Self {
        Self { observer, path: run_dir.join(TIMING_FILE), seconds: 0.0, step: 0 }
    }
}

impl Observer for Timed<'_> {
    fn started(&mut self, done: u64, steps: u64) -> Next {
        if done > 0 {
            let text = std::fs::read_to_string(&self.path).unwrap_or_default();
            let timing: Option<Timing> = serde_json::from_str(&text).ok();
            self.seconds = timing.map_or(f64::NAN, |timing| timing.seconds);
        }
        self.observer.started(done, steps)
    }

    fn stepped(&mut self, report: &StepReport, seconds: f64) -> Next {
        self.seconds += seconds;
        self.step = report.step;
        self.observer.stepped(report, seconds)
    }

    fn not_recorded(&mut self, error: &ltm_vi::Error) {
        self.observer.not_recorded(error);
    }

    fn evaluating(&mut self, done: u64, all: u64) -> Next {
        self.observer.evaluating(done, all)
    }

    fn evaluated(&mut self, step: u64, evaluation: &Evaluation) -> Next {
        self.observer.evaluated(step, evaluation)
    }

    fn saved(&mut self, dir: &Path) {
        let timing = Timing { seconds: self.seconds, step: self.step };
        let text = serde_json::to_string(&timing).expect("two numbers");
        // What is lost with it is a duration, which is null in the point's line then.
        let _ = write_whole(&self.path, text.as_bytes());
        self.observer.saved(dir);
    }
}
