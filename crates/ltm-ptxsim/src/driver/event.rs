//! Events: points in a stream, for waiting and timing.
//!
//! Work runs when it is submitted, so a recorded event has already occurred; its time is the host's
//! clock. Must not know what the work was.

use std::sync::Mutex;
use std::time::Instant;

use super::capture::Branch;
use super::handle::Table;

/// All events.
pub(super) static EVENTS: Table<Event> = Table::new("event");

/// An event, made by `cuEventCreate`.
pub(super) struct Event {
    /// The id of its context.
    pub(super) context: usize,
    pub(super) timed: bool,
    pub(super) recorded: Mutex<Recorded>,
}

/// When an event was recorded.
pub(super) enum Recorded {
    Never,
    At(Instant),
    InCapture(Branch),
}
