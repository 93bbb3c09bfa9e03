//! The one thread that computes: it takes jobs from the queue, fits latents, and writes all texts together, a token of
//! each per round. Knows no HTTP.

mod jobs;
mod worker;

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use ltm_eval::ltm_model::DeviceWeights;
use ltm_eval::ltm_train::Checkpoint;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use jobs::{
    Entry, Event, Events, FittedText, Job, ReadJob, ScoreJob, ThinkJob, Token, WriteJob,
};

use crate::error::{ApiError, Error, Result};
use crate::metrics::Metrics;
use worker::Worker;

/// The way to the engine.
#[derive(Clone)]
pub(crate) struct Queue {
    /// A place for each job that may wait.
    places: Arc<Semaphore>,
    jobs: mpsc::Sender<Waiting>,
    metrics: Arc<Metrics>,
}

/// A job that waits.
struct Waiting {
    job: Job,
    place: Place,
}

/// A place in the queue, free when it is dropped.
struct Place {
    _permit: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.waiting.dec();
    }
}

impl Queue {
    /// Takes all of a request's jobs, or none.
    ///
    /// # Errors
    /// [`ApiError::busy`] where there is no room for all, [`ApiError::internal`] when the engine has ended.
    pub(crate) fn put(&self, jobs: Vec<Job>) -> std::result::Result<(), ApiError> {
        let permits: Vec<_> = jobs
            .iter()
            .map(|_| self.places.clone().try_acquire_owned())
            .collect::<std::result::Result<_, _>>()
            .map_err(|_| ApiError::busy())?;
        for (job, permit) in jobs.into_iter().zip(permits) {
            self.metrics.waiting.inc();
            let place = Place { _permit: permit, metrics: self.metrics.clone() };
            self.jobs.send(Waiting { job, place }).map_err(|_| ApiError::internal())?;
        }
        Ok(())
    }
}

/// Starts the engine, which ends when the last [`Queue`] is dropped and the jobs in it are done. `capacity` jobs may
/// wait, and `texts` be written together. Also returns the models' weights on their devices, in order.
///
/// # Errors
/// [`Error::Model`] for a model that does not write token by token, or for which the device has no memory.
pub(crate) fn start(
    models: Vec<(String, Checkpoint)>,
    capacity: usize,
    texts: usize,
    metrics: Arc<Metrics>,
) -> Result<(Queue, JoinHandle<()>, Vec<DeviceWeights>)> {
    let (jobs, waiting) = mpsc::channel();
    let (started, result) = mpsc::channel();
    let queue =
        Queue { places: Arc::new(Semaphore::new(capacity)), jobs, metrics: metrics.clone() };
    let thread = std::thread::Builder::new()
        .name("engine".into())
        .spawn(move || match Worker::new(models, texts, metrics) {
            Ok(mut worker) => {
                let _ = started.send(Ok(worker.weights()));
                worker.run(waiting);
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        })
        .map_err(|error| Error::Field {
            field: "engine",
            expected: "a thread of its own".into(),
            found: error.to_string(),
        })?;
    let gone = || Error::Field {
        field: "engine",
        expected: "a thread that starts".into(),
        found: "one that ended".into(),
    };
    let weights = result.recv().unwrap_or_else(|_| Err(gone()))?;
    Ok((queue, thread, weights))
}
