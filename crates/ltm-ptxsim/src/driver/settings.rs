//! Settings from the environment, read once.
//!
//! Knows the `PTXSIM_*` variables and their values. Must not know contexts or launches.

use std::path::PathBuf;
use std::sync::OnceLock;

use super::code::{Code, Outcome};
use crate::{AsyncCopies, DeviceModel, Options, Output};

/// The settings.
pub(super) struct Settings {
    /// How launches run.
    pub(super) options: Options,
    /// Number of devices; with 0, `cuInit` fails as on a machine without a GPU.
    pub(super) devices: i32,
    /// File to which every launch appends one JSON object.
    pub(super) report: Option<PathBuf>,
    /// Kernels to launch with fewer blocks.
    pub(super) grid_cap: Option<GridCap>,
}

/// Caps the number of blocks of some kernels, so that their loops over the grid iterate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GridCap {
    blocks: u32,
    kernels: Vec<String>,
}

impl GridCap {
    /// Parses `2:a,b`.
    fn parse(text: &str) -> Option<GridCap> {
        let (blocks, kernels) = text.split_once(':')?;
        let blocks = blocks.trim().parse().ok().filter(|blocks| *blocks > 0)?;
        let kernels = kernels.split(',').map(|name| name.trim().to_owned()).collect();
        Some(GridCap { blocks, kernels })
    }

    /// The number of blocks along x to launch `kernel` with.
    pub(super) fn cap(&self, kernel: &str, blocks: u32) -> u32 {
        let named = self.kernels.iter().any(|name| name == kernel);
        if named { blocks.min(self.blocks) } else { blocks }
    }
}

/// What is printed on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Log {
    Nothing,
    /// Failures, except of calls that only ask whether something exists.
    Errors,
    /// All failures.
    Failures,
    /// All failures and all calls.
    Calls,
}

/// The settings, or which variable is invalid.
pub(super) fn settings() -> Outcome<&'static Settings> {
    static SETTINGS: OnceLock<Result<Settings, String>> = OnceLock::new();
    let read = || read(|name| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()));
    SETTINGS.get_or_init(read).as_ref().map_err(|story| Code::InvalidValue.because(story))
}

/// The log level. An invalid value gives the default here; [`settings`] reports it.
pub(super) fn log() -> Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    *LOG.get_or_init(|| {
        let text = std::env::var("PTXSIM_LOG").unwrap_or_default();
        let level = LEVELS.iter().find(|(name, _)| *name == text.trim());
        level.map_or(Log::Errors, |(_, level)| *level)
    })
}

const LEVELS: [(&str, Log); 4] = [
    ("errors", Log::Errors),
    ("off", Log::Nothing),
    ("failures", Log::Failures),
    ("calls", Log::Calls),
];

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
        output: Output::new(|text| {
            use std::io::Write;
            // A program whose stdout is closed keeps running, as with a real device.
            let _ = std::io::stdout().write_all(text.as_bytes());
        }),
    };
    let devices = number("PTXSIM_DEVICES", 1)?.min(64) as i32;
    choice("PTXSIM_LOG", &LEVELS.map(|(name, _)| name))?;
    let grid_cap = match variable("PTXSIM_GRID_CAP") {
        None => None,
        Some(text) => Some(GridCap::parse(&text).ok_or_else(|| {
            format!("PTXSIM_GRID_CAP is {text:?}, set it to BLOCKS:KERNEL,KERNEL…")
        })?),
    };
    Ok(Settings {
        options,
        devices,
        grid_cap,
        report: variable("PTXSIM_REPORT").map(PathBuf::from),
    })
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
            ("PTXSIM_GRID_CAP", "2:add,scale"),
            ("PTXSIM_LOG", "off"),
        ])
        .expect("all values are allowed");
        assert_eq!((settings.devices, settings.options.seed), (0, 7));
        assert!(matches!(settings.options.async_copies, AsyncCopies::Eager));
        assert_eq!((settings.options.threads, settings.options.races), (3, false));
        assert_eq!(settings.options.device.compute_capability, (9, 0));
        assert_eq!(settings.options.max_steps, 1000);
        assert_eq!(settings.report, Some(PathBuf::from("launches.jsonl")));
        let cap = settings.grid_cap.expect("it was set");
        assert_eq!([cap.cap("add", 9), cap.cap("add", 1), cap.cap("staged", 9)], [2, 1, 9]);
    }

    #[test]
    fn a_value_that_means_nothing_is_refused_with_the_allowed_ones() {
        for (name, value, wanted) in [
            ("PTXSIM_SEED", "x", "whole number"),
            ("PTXSIM_STEPS", "-1", "whole number"),
            ("PTXSIM_ASYNC", "both", "deferred, eager"),
            ("PTXSIM_RACES", "yes", "1, 0"),
            ("PTXSIM_ARCH", "86", "80, 90, 100"),
            ("PTXSIM_LOG", "loud", "errors, off, failures, calls"),
            ("PTXSIM_GRID_CAP", "0:add", "BLOCKS:KERNEL"),
            ("PTXSIM_GRID_CAP", "add", "BLOCKS:KERNEL"),
        ] {
            let story = check(&[(name, value)]).err().expect("refused");
            assert!(story.contains(name) && story.contains(wanted), "{story}");
        }
    }
}
