//! Signals to a command that trains. The first signal to stop finishes the step and saves a checkpoint; the second ends
//! the command immediately. Knows nothing of what is trained.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ltm_train::Next;

/// What signals have asked for so far.
#[derive(Clone, Default)]
pub struct Signals {
    stop: Arc<AtomicBool>,
    save: Arc<AtomicBool>,
    /// The number of the signal that asked to stop; 0 for none.
    number: Arc<AtomicUsize>,
}

impl Signals {
    /// What signals have asked for: to stop, or a checkpoint since the last call.
    pub fn next(&self) -> Next {
        if self.stop.load(Ordering::Relaxed) {
            Next::Stop
        } else if self.save.swap(false, Ordering::Relaxed) {
            Next::Save
        } else {
            Next::Continue
        }
    }

    /// The exit status of a command that was stopped early: 128 and the signal's number, as a shell reports it.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(128 + self.number.load(Ordering::Relaxed) as u8)
    }
}

/// What is printed after the first signal.
const NOTE: &str = "finishing this step and saving a checkpoint";

#[cfg(unix)]
mod system {
    use std::sync::Arc;

    use anyhow::Context;
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    use signal_hook::flag;

    use super::{NOTE, Signals};

    impl Signals {
        /// Handles SIGINT, SIGTERM and SIGHUP, which end the command, and SIGUSR1, which saves a checkpoint.
        pub fn listen() -> anyhow::Result<Self> {
            Self::install().context("cannot listen for signals")
        }

        fn install() -> std::io::Result<Self> {
            let signals = Self::default();
            let mut ending = vec![(SIGINT, "Ctrl-C"), (SIGTERM, "SIGTERM")];
            if !ignored(SIGHUP) {
                ending.push((SIGHUP, "SIGHUP"));
            }
            for (signal, _) in &ending {
                // In the handler itself, so that a second signal works whatever the threads wait for. It comes first:
                // the first signal finds the flag unset and sets it below.
                flag::register_conditional_shutdown(
                    *signal,
                    128 + signal,
                    Arc::clone(&signals.stop),
                )?;
                flag::register_usize(*signal, Arc::clone(&signals.number), *signal as usize)?;
                flag::register(*signal, Arc::clone(&signals.stop))?;
            }
            flag::register(SIGUSR1, Arc::clone(&signals.save))?;
            let mut received =
                signal_hook::iterator::Signals::new(ending.iter().map(|(signal, _)| *signal))?;
            std::thread::spawn(move || {
                for signal in received.forever() {
                    let name = ending.iter().find(|(known, _)| *known == signal);
                    let name = name.map_or("signal", |(_, name)| name);
                    let again =
                        if signal == SIGINT { "press Ctrl-C again" } else { "send it again" };
                    if crate::output::is_first() {
                        note!("\n{name}: {NOTE}; {again} to quit immediately");
                    }
                }
            });
            Ok(signals)
        }
    }

    /// Whether the command was started with this signal ignored, as `nohup` does; known on Linux only.
    fn ignored(signal: i32) -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
    }
}

#[cfg(not(unix))]
mod system {
    use std::sync::atomic::Ordering;

    use anyhow::Context;

    use super::{NOTE, Signals};

    /// SIGINT's number, so that the exit status is the same everywhere.
    const INTERRUPT: usize = 2;

    impl Signals {
        /// Handles Ctrl-C, which ends the command.
        pub fn listen() -> anyhow::Result<Self> {
            let signals = Self::default();
            let handler = signals.clone();
            ctrlc::set_handler(move || {
                handler.number.store(INTERRUPT, Ordering::Relaxed);
                if handler.stop.swap(true, Ordering::Relaxed) {
                    std::process::exit(128 + INTERRUPT as i32);
                }
                note!("\n{NOTE}; press Ctrl-C again to quit immediately");
            })
            .context("cannot listen for Ctrl-C")?;
            Ok(signals)
        }
    }
}
