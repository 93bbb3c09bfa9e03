//! Events.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::driver::capture::refuse_unsafe_call;
use crate::driver::code::{Code, Outcome};
use crate::driver::context::Context;
use crate::driver::event::{EVENTS, Event, Recorded};
use crate::driver::ffi::Out;
use crate::driver::handle::{Handle, locked};

const DISABLE_TIMING: u32 = 2;
const INTERPROCESS: u32 = 4;

/// Records an event in a stream.
fn record(event: Handle, stream: Handle) -> Outcome<()> {
    let context = Context::usable()?;
    let event = EVENTS.get(event)?;
    if event.context != context.id {
        return Err(Code::InvalidHandle.because("the event belongs to another context"));
    }
    let recorded = match context.stream(stream)?.branch() {
        Some(branch) => {
            branch.capture.check_valid()?;
            Recorded::InCapture(branch)
        }
        None => Recorded::At(Instant::now()),
    };
    *locked(&event.recorded) = recorded;
    Ok(())
}

/// Common part of querying and waiting: the event has occurred, unless it was recorded in a
/// capture.
fn require_happened(event: Handle, what: &str) -> Outcome<()> {
    Context::usable()?;
    let event = EVENTS.get(event)?;
    if let Recorded::InCapture(branch) = &*locked(&event.recorded) {
        branch.capture.invalidate();
        return Err(Code::CapturedEvent.because(format!("{what} recorded in a capture")));
    }
    refuse_unsafe_call(what)
}

fn elapsed_ms(start: Handle, end: Handle) -> Outcome<f32> {
    Context::usable()?;
    let (start, end) = (EVENTS.get(start)?, EVENTS.get(end)?);
    if !(start.timed && end.timed) {
        return Err(Code::InvalidHandle.because("an event was created without timing"));
    }
    let time = |event: &Event| match &*locked(&event.recorded) {
        Recorded::At(time) => Ok(*time),
        Recorded::Never => Err(Code::InvalidHandle.because("an event was never recorded")),
        Recorded::InCapture(_) => Err(Code::CapturedEvent.into()),
    };
    let (start, end) = (time(&start)?, time(&end)?);
    let ms = if end >= start {
        (end - start).as_secs_f64() * 1e3
    } else {
        (start - end).as_secs_f64() * -1e3
    };
    Ok(ms as f32)
}

driver_functions! {
    fn cuEventCreate(event_out: Out<Handle>, flags: u32) {
        let context = Context::usable()?;
        if flags & INTERPROCESS != 0 || flags > 7 {
            return Err(Code::InvalidValue.because(format!("event flags {flags} are unknown")));
        }
        let event = Event {
            context: context.id,
            timed: flags & DISABLE_TIMING == 0,
            recorded: Mutex::new(Recorded::Never),
        };
        event_out.set(EVENTS.insert(Arc::new(event)))
    }

    fn cuEventDestroy_v2(event: Handle) {
        let context = Context::current()?;
        EVENTS.remove(event)?;
        context.check_fault()
    }

    fn cuEventRecord(event: Handle, stream: Handle) {
        record(event, stream)
    }

    fn cuEventRecordWithFlags(event: Handle, stream: Handle, flags: u32) {
        if flags != 0 {
            return Err(Code::NotSupported.because("external event nodes are not supported; pass flags 0"));
        }
        record(event, stream)
    }

    fn cuEventQuery(event: Handle) {
        require_happened(event, "a query of an event")
    }

    fn cuEventSynchronize(event: Handle) {
        require_happened(event, "waiting for an event")
    }

    fn cuEventElapsedTime(ms: Out<f32>, start: Handle, end: Handle) {
        ms.set(elapsed_ms(start, end)?)
    }

    fn cuEventElapsedTime_v2(ms: Out<f32>, start: Handle, end: Handle) {
        ms.set(elapsed_ms(start, end)?)
    }

    fn cuStreamWaitEvent(stream: Handle, event: Handle, flags: u32) {
        let context = Context::usable()?;
        if flags != 0 {
            return Err(Code::NotSupported.because("external event nodes are not supported; pass flags 0"));
        }
        let stream = context.stream(stream)?;
        let event = EVENTS.get(event)?;
        let recorded = locked(&event.recorded);
        match (&*recorded, stream.branch()) {
            (Recorded::InCapture(branch), _) => stream.wait_for(&branch.capture, &branch.tail),
            (Recorded::At(_), Some(branch)) => {
                branch.capture.invalidate();
                Err(Code::StreamCaptureIsolation
                    .because("a capturing stream waits for an event recorded outside its capture"))
            }
            // A recorded event has already occurred, and one never recorded is not waited for.
            (Recorded::Never, _) | (Recorded::At(_), None) => Ok(()),
        }
    }
}
