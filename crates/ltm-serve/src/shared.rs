//! What all routes see of the server. Does nothing.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::engine::Queue;
use crate::explorer::Explorers;
use crate::metrics::Metrics;
use crate::models::Model;

/// The most bytes of a request's body.
pub(crate) const BODY_BYTES: usize = 4 << 20;

/// A handle to it, for each route.
pub(crate) type Shared = Arc<Inner>;

/// What routes share.
pub(crate) struct Inner {
    pub(crate) models: Vec<Model>,
    pub(crate) queue: Queue,
    pub(crate) explorers: Explorers,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) hosts: Vec<String>,
    pub(crate) api_key: Option<String>,
    /// Whether the end was asked for.
    pub(crate) is_draining: AtomicBool,
}
