//! `POST /v1/completions`: checked, put into the queue, and answered whole or as events. Computes nothing.

mod answer;
mod request;

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::response::sse::{self, Sse};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::engine::{Event, Job, ReadJob, ScoreJob, WriteJob};
use crate::error::ApiError;
use crate::guard::Body;
use crate::shared::Shared;
use answer::Answer;
use request::{Checked, Request};

/// Continues prompts, and with `echo` scores them.
pub(crate) async fn complete(
    State(shared): State<Shared>,
    Body(request): Body<Request>,
) -> Result<Response, ApiError> {
    let checked = request.check(&shared.models)?;
    let (jobs, mut events) = jobs(&checked, seed_of(&checked));
    let (is_stream, with_usage) = (checked.stream, checked.include_usage);
    // A request for no tokens and no scores is answered at once.
    if !jobs.is_empty() {
        shared.queue.put(jobs)?;
    }
    let (id, created) = label();
    let mut answer = Answer::new(shared, checked, id, created);
    if !is_stream {
        while let Some(event) = events.recv().await {
            answer.take(event)?;
        }
        return Ok(Json(answer.whole()?).into_response());
    }
    // A task of its own turns events into lines; it ends when the client has gone away, and its end of the engine's
    // channel with it.
    let (lines, outgoing) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let sent = stream(answer, events, with_usage, &lines).await;
        if let Err(Ended::Failed(error)) = sent {
            let _ = lines.send(data(error.body()));
        }
        let _ = lines.send(sse::Event::default().data("[DONE]"));
    });
    let lines = UnboundedReceiverStream::new(outgoing).map(Ok::<_, Infallible>);
    Ok(Sse::new(lines).into_response())
}

/// Why a stream ended early.
enum Ended {
    /// The client has gone away.
    Gone,
    Failed(ApiError),
}

impl From<ApiError> for Ended {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

/// Sends the chunks of an answer as their events come.
async fn stream(
    mut answer: Answer,
    mut events: mpsc::UnboundedReceiver<Event>,
    with_usage: bool,
    lines: &mpsc::UnboundedSender<sse::Event>,
) -> Result<(), Ended> {
    let send = |event| lines.send(event).map_err(|_| Ended::Gone);
    for chunk in answer.begin() {
        send(data(chunk))?;
    }
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = lines.closed() => return Err(Ended::Gone),
        };
        match event {
            Some(Event::Thinking { step, of }) => {
                send(sse::Event::default().comment(format!("thinking {}/{of}", step + 1)))?;
            }
            Some(event) => {
                for chunk in answer.chunk(event)? {
                    send(data(chunk))?;
                }
            }
            None => break,
        }
    }
    for chunk in answer.end(with_usage)? {
        send(data(chunk))?;
    }
    Ok(())
}

/// A line of a stream.
fn data(value: Value) -> sse::Event {
    sse::Event::default().data(value.to_string())
}

/// The jobs of a request, a prompt each, and where their events arrive.
fn jobs(checked: &Checked, seed: u64) -> (Vec<Job>, mpsc::UnboundedReceiver<Event>) {
    let (events, incoming) = mpsc::unbounded_channel();
    let mut jobs = Vec::new();
    for (number, prompt) in checked.prompts.iter().enumerate() {
        if let (true, Some(top)) = (checked.echo, checked.logprobs) {
            let (named, prompt, events) = (checked.named, prompt.document.clone(), events.clone());
            let job = ScoreJob { named, prompt, number, top, events };
            jobs.push(Job::Read(ReadJob::Score(job)));
        }
        if checked.limits.max_tokens > 0 {
            jobs.push(Job::Write(WriteJob {
                model: checked.named.model,
                prompt: prompt.document.clone(),
                first: number * checked.n,
                count: checked.n,
                seed,
                sample: checked.sample,
                limits: checked.limits.clone(),
                top: checked.logprobs,
                arrived: Instant::now(),
                events: events.clone(),
            }));
        }
    }
    (jobs, incoming)
}

/// The request's seed, or one that no other request has.
fn seed_of(checked: &Checked) -> u64 {
    checked.seed.unwrap_or_else(|| {
        let nanoseconds =
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        (nanoseconds as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

/// The name of an answer, which no other has, and its time.
fn label() -> (String, u64) {
    static ANSWERS: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let number = ANSWERS.fetch_add(1, Ordering::Relaxed);
    (format!("cmpl-{:x}-{number:x}", now.as_nanos()), now.as_secs())
}
