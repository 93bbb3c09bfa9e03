//! What the environment asks of the simulator, read once.
//!
//! Knows the `PTXSIM_*` variables and their values. Must not know contexts or launches.

use std::path::PathBuf;
use std::sync::OnceLock;

use super::error::{Code, Outcome};
use crate::{AsyncCopies, DeviceModel, Options};

/// The environment, understood.
pub(super) struct Settings {
    /// How launches run.
    pub(super) options: Options,
    /// Devices to report; 0 makes `cuInit` fail as on a machine without one.
    pub(super) devices: i32,
    /// Where every launch appends a JSON line.
    pub(super) report: Option<PathBuf>,
}

/// The settings, or what is wrong with the environment.
pub(super) fn settings() -> Outcome<&'static Settings> {
    static SETTINGS: OnceLock<Result<Settings, String>> = OnceLock::new();
    let read = || read(|name| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()));
    SETTINGS.get_or_init(read).as_ref().map_err(|story| Code::InvalidValue.because(story))
}

/// Whether every call is to be printed.
pub(super) fn trace() -> bool {
    static TRACE: OnceLock<bool> = OnceLock::new();
    *TRACE.get_or_init(|| std::env::var_os("PTXSIM_TRACE").is_some_and(|value| value == "1"))
}

fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Settings, String> {
    let number = |name: &str, default: u64| match variable(name) {
        None => Ok(default),
        Some(text) => {
            text.trim().parse().map_err(|_| format!("{name} is {text:?}, set it to a whole number"))
        }
    };
    let choice = |name: &str, allowed: &[&str]| match variable(name) {
        None => Ok(0),
        Some(text) => allowed
            .iter()
            .position(|word| *word == text.trim())
            .ok_or_else(|| format!("{name} is {text:?}, set it to one of {}", allowed.join(", "))),
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let options = Options {
        seed: number("PTXSIM_SEED", 0)?,
        async_copies: match choice("PTXSIM_ASYNC", &["deferred", "eager"])? {
            0 => AsyncCopies::Deferred,
            _ => AsyncCopies::Eager,
        },
        threads: number("PTXSIM_THREADS", cores)?.clamp(1, 1024) as usize,
        races: choice("PTXSIM_RACES", &["1", "0"])? == 0,
        max_steps: number("PTXSIM_STEPS", Options::MAX_STEPS)?,
        device: match choice("PTXSIM_ARCH", &["80", "90", "100"])? {
            0 => DeviceModel::sm_80(),
            1 => DeviceModel::sm_90(),
            _ => DeviceModel::sm_100(),
        },
    };
    let devices = number("PTXSIM_DEVICES", 1)?.min(64) as i32;
    Ok(Settings { options, devices, report: variable("PTXSIM_REPORT").map(PathBuf::from) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(variables: &[(&str, &str)]) -> Result<Settings, String> {
        read(|name| variables.iter().find(|pair| pair.0 == name).map(|pair| pair.1.to_string()))
    }

    #[test]
    fn the_defaults_check_everything_on_one_device() {
        let settings = check(&[]).expect("an empty environment is fine");
        assert_eq!((settings.devices, settings.options.seed), (1, 0));
        assert!(settings.options.races && settings.report.is_none());
        assert_eq!(settings.options.device.compute_capability, (8, 0));
        assert_eq!(settings.options.max_steps, Options::MAX_STEPS);
    }

    #[test]
    fn each_variable_is_read() {
        let settings = check(&[
            ("PTXSIM_SEED", "7"),
            ("PTXSIM_ASYNC", "eager"),
            ("PTXSIM_RACES", "0"),
            ("PTXSIM_THREADS", "3"),
            ("PTXSIM_ARCH", "90"),
            ("PTXSIM_STEPS", "1000"),
            ("PTXSIM_DEVICES", "0"),
            ("PTXSIM_REPORT", "launches.jsonl"),
        ])
        .expect("all values are allowed");
        assert_eq!((settings.devices, settings.options.seed), (0, 7));
        assert!(matches!(settings.options.async_copies, AsyncCopies::Eager));
        assert_eq!((settings.options.threads, settings.options.races), (3, false));
        assert_eq!(settings.options.device.compute_capability, (9, 0));
        assert_eq!(settings.options.max_steps, 1000);
        assert_eq!(settings.report, Some(PathBuf::from("launches.jsonl")));
    }

    #[test]
    fn a_value_that_means_nothing_is_refused_with_the_allowed_ones() {
        for (name, value, wanted) in [
            ("PTXSIM_SEED", "x", "whole number"),
            ("PTXSIM_STEPS", "-1", "whole number"),
            ("PTXSIM_ASYNC", "both", "deferred, eager"),
            ("PTXSIM_RACES", "yes", "1, 0"),
            ("PTXSIM_ARCH", "86", "80, 90, 100"),
        ] {
            let story = check(&[(name, value)]).err().expect("refused");
            assert!(story.contains(name) && story.contains(wanted), "{story}");
        }
    }
}
