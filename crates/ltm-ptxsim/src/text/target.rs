//! PTX versions and architectures, and which devices run code for which architecture.

use std::fmt;

/// A version of the PTX language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub u32, pub u32);

/// The newest minor version of each major version, from 1.
const LAST_MINOR: [u32; 9] = [5, 3, 2, 3, 0, 5, 8, 8, 5];

impl Version {
    /// Parses `8.0`; `Err` is the reason.
    pub fn parse(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('.');
        let version = numbers.and_then(|(a, b)| Some(Self(a.parse().ok()?, b.parse().ok()?)));
        let Some(Self(major, minor)) = version else {
            return Err(format!("`{text}` is not a version of PTX, such as 8.0"));
        };
        let last = LAST_MINOR.get((major as usize).wrapping_sub(1));
        if last.is_none_or(|last| minor > *last) {
            let newest = (LAST_MINOR.len(), LAST_MINOR[LAST_MINOR.len() - 1]);
            return Err(format!(
                "unsupported .version {text}; the newest is {}.{}",
                newest.0, newest.1
            ));
        }
        Ok(Self(major, minor))
    }
}

/// Which later architectures code can run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// All of them.
    Portable,
    /// `f`: those of the same major version.
    Family,
    /// `a`: none; the code uses features of exactly this architecture.
    Specific,
}

/// The architecture that code was compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Ten times the major compute capability, plus the minor.
    number: u32,
    extent: Extent,
}

/// Architectures, with the PTX version that introduced them.
const KNOWN: [(u32, Version); 32] = [
    (10, Version(1, 0)),
    (11, Version(1, 0)),
    (12, Version(1, 2)),
    (13, Version(1, 2)),
    (20, Version(2, 0)),
    (21, Version(2, 0)),
    (30, Version(3, 0)),
    (32, Version(4, 0)),
    (35, Version(3, 1)),
    (37, Version(4, 1)),
    (50, Version(4, 0)),
    (52, Version(4, 1)),
    (53, Version(4, 2)),
    (60, Version(5, 0)),
    (61, Version(5, 0)),
    (62, Version(5, 0)),
    (70, Version(6, 0)),
    (72, Version(6, 1)),
    (75, Version(6, 3)),
    (80, Version(7, 0)),
    (86, Version(7, 1)),
    (87, Version(7, 4)),
    (88, Version(9, 0)),
    (89, Version(7, 8)),
    (90, Version(7, 8)),
    (100, Version(8, 6)),
    (101, Version(8, 6)),
    (103, Version(8, 8)),
    (107, Version(9, 4)),
    (110, Version(9, 0)),
    (120, Version(8, 7)),
    (121, Version(8, 8)),
];

impl Target {
    /// Parses `sm_80`, `sm_90a` or `compute_100f`; `Err` is the reason.
    pub fn parse(text: &str, version: Option<Version>) -> Result<Self, String> {
        let unsupported = || format!("unsupported .target {text}");
        let name = text.strip_prefix("sm_").or(text.strip_prefix("compute_"));
        let name = name.ok_or_else(unsupported)?;
        let digits = name.trim_end_matches(['a', 'f']);
        let number = digits.parse().ok().ok_or_else(unsupported)?;
        let (_, since) =
            KNOWN.iter().find(|(known, _)| *known == number).ok_or_else(unsupported)?;
        let (extent, extent_since) = match &name[digits.len()..] {
            "" => (Extent::Portable, *since),
            "a" if number >= 90 => (Extent::Specific, Version(8, 0).max(*since)),
            "f" if number >= 100 => (Extent::Family, Version(8, 8)),
            _ => return Err(unsupported()),
        };
        if let Some(version) = version.filter(|version| *version < extent_since) {
            return Err(format!(
                ".target {text} needs .version {}.{} or later, the text has {}.{}",
                extent_since.0, extent_since.1, version.0, version.1
            ));
        }
        Ok(Self { number, extent })
    }

    /// Whether a device of this compute capability can run the code.
    pub fn runs_on(&self, (major, minor): (u32, u32)) -> bool {
        let device = 10 * major + minor;
        match self.extent {
            Extent::Portable => device >= self.number,
            Extent::Family => device >= self.number && device / 10 == self.number / 10,
            Extent::Specific => device == self.number,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = match self.extent {
            Extent::Portable => "",
            Extent::Family => "f",
            Extent::Specific => "a",
        };
        write!(f, "sm_{}{suffix}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_never_were_are_refused() {
        for text in ["1.0", "2.3", "6.5", "7.8", "8.8", "9.0"] {
            assert!(Version::parse(text).is_ok(), "{text}");
        }
        for text in ["0.9", "4.4", "6.6", "7.9", "99.9", "8", "8.x", "-1.0", ""] {
            assert!(Version::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_device_runs_code_for_itself_and_for_older_ones() {
        let check = |text: &str, device: (u32, u32), runs: bool| {
            let target = Target::parse(text, Some(Version(9, 0))).expect(text);
            assert_eq!(target.runs_on(device), runs, "{text} on {device:?}");
            assert_eq!(target.to_string(), text.replace("compute", "sm"));
        };
        check("sm_80", (8, 0), true);
        check("sm_75", (8, 0), true);
        check("compute_80", (9, 0), true);
        check("sm_86", (8, 0), false);
        check("sm_90a", (9, 0), true);
        check("sm_90a", (10, 0), false);
        check("sm_100f", (10, 3), true);
        check("sm_100f", (12, 0), false);
        for text in ["sm_900", "sm_80a", "sm_90f", "sm_", "sm_x", "gfx90"] {
            assert!(Target::parse(text, None).is_err(), "{text}");
        }
        let old = Target::parse("sm_80", Some(Version(6, 5))).expect_err("sm_80 came with 7.0");
        assert!(old.contains("7.0"), "{old}");
    }
}
