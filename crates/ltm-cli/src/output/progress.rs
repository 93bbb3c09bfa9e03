//! Progress on standard error: bars on a terminal, otherwise a line now and then. It never fails.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

/// The pause between two lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(30);

/// Columns of such a line.
const WIDTH: u16 = 240;

/// A progress bar; `template` is indicatif's, and begins after the bar itself.
pub fn progress_bar(len: u64, template: &str) -> ProgressBar {
    let bar = if io::stderr().is_terminal() { "{bar:24} " } else { "" };
    let style = ProgressStyle::with_template(&format!("{bar}{template}"))
        .expect("templates are constants of this program");
    let bar = ProgressBar::with_draw_target(Some(len), target()).with_style(style);
    // Time goes on, and lines appear, between two updates.
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}

/// Several bars, drawn together.
pub fn progress_bars() -> MultiProgress {
    MultiProgress::with_draw_target(target())
}

fn target() -> ProgressDrawTarget {
    if io::stderr().is_terminal() {
        ProgressDrawTarget::term_like_with_hz(Box::new(Terminal(Term::buffered_stderr())), 20)
    } else {
        ProgressDrawTarget::term_like_with_hz(Box::new(Lines::new(Instant::now())), 1)
    }
}

/// A terminal that may go away while bars are drawn: indicatif panics on some of its errors.
#[derive(Debug)]
struct Terminal(Term);

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        self.0.size().1
    }

    fn height(&self) -> u16 {
        self.0.size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        ignore(self.0.move_cursor_up(n))
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        ignore(self.0.move_cursor_down(n))
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        ignore(self.0.move_cursor_right(n))
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        ignore(self.0.move_cursor_left(n))
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        ignore(self.0.write_line(text))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        ignore(self.0.write_str(text))
    }

    fn clear_line(&self) -> io::Result<()> {
        ignore(self.0.clear_line())
    }

    fn flush(&self) -> io::Result<()> {
        ignore(self.0.flush())
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the trait's methods return it")]
fn ignore(_: io::Result<()>) -> io::Result<()> {
    Ok(())
}

/// A log file or a pipe: what is drawn becomes a line when [`PAUSE`] has passed since the last.
struct Lines(Mutex<State>);

struct State {
    last: Instant,
    /// What is being drawn, a part for each bar.
    parts: Vec<String>,
}

impl Lines {
    fn new(now: Instant) -> Self {
        Self(Mutex::new(State { last: now, parts: Vec::new() }))
    }

    fn add(&self, text: &str) {
        let text = text.trim();
        if !text.is_empty() {
            self.state().parts.push(text.into());
        }
    }

    /// The line that is to be written at `now`, if one is due.
    fn line(&self, now: Instant) -> Option<String> {
        let mut state = self.state();
        let parts = std::mem::take(&mut state.parts);
        if parts.is_empty() || now.duration_since(state.last) < PAUSE {
            return None;
        }
        state.last = now;
        Some(parts.join(", "))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lines")
    }
}

impl TermLike for Lines {
    fn width(&self) -> u16 {
        WIDTH
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.add(text);
        Ok(())
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.add(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        if let Some(line) = self.line(Instant::now()) {
            note!("{line}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn without_a_terminal_a_line_comes_every_pause() {
        let start = Instant::now();
        let lines = Lines::new(start);
        let draw = |seconds| {
            lines.add("point 1/3 ");
            lines.add("   ");
            lines.add("7/9 training");
            lines.line(start + Duration::from_secs(seconds))
        };
        let found: Vec<_> = [0, 29, 30, 59, 60, 61].map(draw).into();
        let line = || Some("point 1/3, 7/9 training".into());
        assert_eq!(found, [None, None, line(), None, line(), None]);
        assert_eq!(lines.line(start + Duration::from_secs(200)), None, "nothing was drawn");
    }

    /// Bars with all their calls over a terminal that has gone.
    #[cfg(unix)]
    #[test]
    fn a_terminal_that_has_gone_ends_nothing() {
        #[derive(Debug)]
        struct Gone;
        impl io::Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        impl io::Read for Gone {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Ok(0)
            }
        }
        impl std::os::fd::AsRawFd for Gone {
            fn as_raw_fd(&self) -> std::os::fd::RawFd {
                -1
            }
        }
        let term = Term::read_write_pair(Gone, Gone);
        assert!(term.write_line("x").is_err(), "the terminal is gone");
        let target = ProgressDrawTarget::term_like(Box::new(Terminal(term)));
        let bars = MultiProgress::with_draw_target(target);
        let (outer, inner) = (bars.add(ProgressBar::new(3)), bars.add(ProgressBar::new(9)));
        let drawn = Arc::new(Mutex::new(0));
        for step in 0..9 {
            inner.set_position(step);
            inner.tick();
            outer.suspend(|| *drawn.lock().unwrap() += 1);
        }
        outer.finish_and_clear();
        inner.finish_and_clear();
        assert_eq!(*drawn.lock().unwrap(), 9);
    }
}
