//! What the server counts, in the text format of Prometheus. Measures nothing itself.

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper limits of the classes of durations, in seconds.
const SECONDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// All counters of a server.
pub(crate) struct Metrics {
    registry: Registry,
    /// Answers by status.
    responses: Family<Vec<(String, String)>, Counter<u64, AtomicU64>>,
    /// Tokens of prompts that the engine has read.
    pub(crate) prompt_tokens: Counter,
    /// Tokens that the engine has written.
    pub(crate) written_tokens: Counter,
    /// Fast steps.
    pub(crate) fast_steps: Counter,
    /// Prompts that wait for the engine.
    pub(crate) waiting: Gauge<i64, AtomicI64>,
    /// Texts that are being written.
    pub(crate) writing: Gauge<i64, AtomicI64>,
    /// Texts whose client went away.
    pub(crate) cancelled: Counter,
    first_token: Histogram,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let new = Self {
            registry: Registry::with_prefix("ltm"),
            responses: Family::default(),
            prompt_tokens: Counter::default(),
            written_tokens: Counter::default(),
            fast_steps: Counter::default(),
            waiting: Gauge::default(),
            writing: Gauge::default(),
            cancelled: Counter::default(),
            first_token: Histogram::new(SECONDS),
        };
        new.registered()
    }

    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register("responses", "Answers by status", self.responses.clone());
        registry.register(
            "prompt_tokens",
            "Tokens of prompts that were read",
            self.prompt_tokens.clone(),
        );
        registry.register(
            "written_tokens",
            "Tokens that were written",
            self.written_tokens.clone(),
        );
        registry.register("fast_steps", "Fast steps that were taken", self.fast_steps.clone());
        registry.register(
            "waiting_prompts",
            "Prompts that wait for the engine",
            self.waiting.clone(),
        );
        registry.register("texts", "Texts that are being written", self.writing.clone());
        registry.register(
            "cancelled_texts",
            "Texts whose client went away",
            self.cancelled.clone(),
        );
        let help = "Time from a prompt's arrival to its first token";
        registry.register_with_unit("first_token", help, Unit::Seconds, self.first_token.clone());
        self
    }

    /// All of it, in the text format.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, status: u16) {
        self.responses.get_or_create(&vec![("status".into(), status.to_string())]).inc();
    }

    /// Counts a text's first token.
    pub(crate) fn first_token(&self, after: Duration) {
        self.first_token.observe(after.as_secs_f64());
    }
}
