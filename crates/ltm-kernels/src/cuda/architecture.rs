//! The architecture that kernels are compiled for. Must not know the compiler or the device.

/// A compute capability to compile for, named as in NVRTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Architecture {
    major: u32,
    minor: u32,
    /// Whether code may use architecture-specific features (suffix `a`). Such code runs on no other
    /// architecture.
    is_specific: bool,
}

impl Architecture {
    /// The architecture of a device with this compute capability.
    pub fn of((major, minor): (u32, u32)) -> Self {
        // Hopper and the first Blackwell have instructions that require the suffix.
        Self { major, minor, is_specific: matches!((major, minor), (9 | 10, 0)) }
    }

    /// Major and minor compute capability.
    pub fn capability(self) -> (u32, u32) {
        (self.major, self.minor)
    }

    /// The newest architecture in `known` whose code runs on this device; a compiler older than the
    /// device may not know the device's own.
    #[cfg(feature = "cuda")]
    pub(crate) fn best_of(self, known: impl Iterator<Item = Self>) -> Option<Self> {
        let fits = |arch: &Self| arch.capability() <= self.capability();
        let best = known.filter(fits).max_by_key(|arch| arch.capability())?;
        Some(Self { is_specific: best == self && self.is_specific, ..best })
    }
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let suffix = if self.is_specific { "a" } else { "" };
        write!(f, "sm_{}{}{suffix}", self.major, self.minor)
    }
}

#[cfg(all(test, feature = "cuda"))]
mod tests {
    use super::*;

    #[test]
    fn architectures_are_named_as_nvrtc_names_them() {
        for (capability, name) in
            [((8, 0), "sm_80"), ((8, 9), "sm_89"), ((9, 0), "sm_90a"), ((12, 0), "sm_120")]
        {
            assert_eq!(Architecture::of(capability).to_string(), name);
        }
    }

    #[test]
    fn code_for_one_architecture_alone_is_for_that_device_alone() {
        let known = [(8, 0), (9, 0), (10, 0)].map(Architecture::of);
        let best = |capability, n_known: usize| {
            let best = Architecture::of(capability).best_of(known[..n_known].iter().copied());
            best.map(|arch| arch.to_string())
        };
        assert_eq!(best((9, 0), 3).as_deref(), Some("sm_90a"));
        assert_eq!(best((10, 0), 3).as_deref(), Some("sm_100a"));
        // Compilers older than the device.
        assert_eq!(best((10, 0), 2).as_deref(), Some("sm_90"));
        assert_eq!(best((10, 3), 3).as_deref(), Some("sm_100"));
        assert_eq!(best((12, 0), 2).as_deref(), Some("sm_90"));
        assert_eq!(best((8, 9), 3).as_deref(), Some("sm_80"));
        assert_eq!(best((7, 5), 3), None);
    }
}
