//! Which process of which job this one is, as its launcher says in the environment. Connects nothing.

use crate::{Error, Result};

/// What started the processes of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// `torchrun`, or a person who set the variables `RANK` and `WORLD_SIZE`.
    Torchrun,
    /// Slurm's `srun`.
    Slurm,
    /// Open MPI's `mpiexec`.
    OpenMpi,
    /// The `mpiexec` of MPICH and its relatives.
    Mpich,
}

/// The place of this process in its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its number, from 0 to below `size`.
    pub rank: usize,
    /// Processes in the job.
    pub size: usize,
    /// Its number among those of its machine, where the launcher says it.
    pub local_rank: Option<usize>,
    /// What started it.
    pub launcher: Launcher,
}

/// The variables of a launcher: of the rank, of the size, and of the rank on the machine.
struct Variables(Launcher, &'static str, &'static str, &'static str);

/// In the order in which they are looked for.
const LAUNCHERS: &[Variables] = &[
    Variables(Launcher::Torchrun, "RANK", "WORLD_SIZE", "LOCAL_RANK"),
    // Those of a job step: a batch script has a rank too, but only `srun` starts several processes.
    Variables(Launcher::Slurm, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    Variables(
        Launcher::OpenMpi,
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
    ),
    Variables(Launcher::Mpich, "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
];

impl Identity {
    /// The identity that this process was given; `None` for a process that was started alone.
    ///
    /// # Errors
    /// [`Error::Environment`] when one of two variables that belong together is missing, or one is not a number in range.
    pub fn from_env() -> Result<Option<Self>> {
        Self::find(|name| std::env::var(name).ok())
    }

    /// As [`from_env`](Self::from_env), with variables from `variable`.
    ///
    /// # Errors
    /// Those of [`from_env`](Self::from_env).
    ///
    /// ```
    /// use ltm_collective::Identity;
    ///
    /// let of = |text: &'static str| move |name: &str| {
    ///     let value = |pair: &'static str| pair.strip_prefix(name)?.strip_prefix('=');
    ///     text.split(' ').find_map(value).map(String::from)
    /// };
    /// let identity = Identity::find(of("RANK=3 WORLD_SIZE=4"))?.expect("both are there");
    /// assert_eq!((identity.rank, identity.size), (3, 4));
    /// assert_eq!(Identity::find(of("HOME=/"))?, None);
    /// let error = Identity::find(of("RANK=3")).expect_err("of how many?");
    /// assert!(error.to_string().contains("WORLD_SIZE"));
    /// # Ok::<(), ltm_collective::Error>(())
    /// ```
    pub fn find(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let number = |name: &str, valid: &dyn Fn(usize) -> bool, expected: String| {
            let found = variable(name);
            match found.as_deref().and_then(|text| text.trim().parse().ok()) {
                Some(number) if valid(number) => Ok(number),
                _ => Err(Error::Environment {
                    variable: name.into(),
                    expected,
                    found: found.map_or("that it is not set".into(), |text| format!("`{text}`")),
                }),
            }
        };
        for Variables(launcher, rank, size, local_rank) in LAUNCHERS {
            let is_set = |name: &str| variable(name).is_some();
            let there = match launcher {
                // A step of one task may be a shell, in which another launcher starts the processes.
                Launcher::Slurm => is_set(rank) && variable(size).is_some_and(|size| size != "1"),
                _ => is_set(rank) || is_set(size),
            };
            if !there {
                continue;
            }
            let together = format!("because {rank} and {size} belong together");
            let expected = format!("a number of processes from 1, {together}");
            let size = number(size, &|size| size > 0, expected)?;
            let expected = format!("a rank below {size}, {together}");
            let rank = number(rank, &|rank| rank < size, expected)?;
            let local_rank = match is_set(local_rank) {
                true => Some(number(local_rank, &|_| true, "a number from 0".into())?),
                false => None,
            };
            return Ok(Some(Self { rank, size, local_rank, launcher: *launcher }));
        }
        Ok(None)
    }
}

impl Launcher {
    /// Whether the processes that it starts know each other through MPI.
    pub(crate) fn is_of_mpi(self) -> bool {
        self != Self::Torchrun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Result<Option<Identity>> {
        let pairs: Vec<_> =
            text.split_whitespace().filter_map(|pair| pair.split_once('=')).collect();
        Identity::find(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).into()))
    }

    #[test]
    fn every_launcher_is_understood() {
        for (text, launcher) in [
            ("RANK=1 WORLD_SIZE=4 LOCAL_RANK=1 PMI_RANK=0 PMI_SIZE=2", Launcher::Torchrun),
            (
                "SLURM_PROCID=1 SLURM_STEP_NUM_TASKS=4 SLURM_LOCALID=1 SLURM_NTASKS=9",
                Launcher::Slurm,
            ),
            (
                "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=1",
                Launcher::OpenMpi,
            ),
            ("PMI_RANK=1 PMI_SIZE=4 MPI_LOCALRANKID=1", Launcher::Mpich),
        ] {
            let identity = Identity { rank: 1, size: 4, local_rank: Some(1), launcher };
            assert_eq!(found(text), Ok(Some(identity)), "{text}");
        }
    }

    #[test]
    fn half_an_identity_is_refused_by_the_name_of_the_variable() {
        for (text, variable) in [
            ("RANK=0", "WORLD_SIZE"),
            ("WORLD_SIZE=2", "RANK"),
            ("RANK=2 WORLD_SIZE=2", "RANK"),
            ("RANK=-1 WORLD_SIZE=2", "RANK"),
            ("RANK=0 WORLD_SIZE=0", "WORLD_SIZE"),
            ("RANK=0 WORLD_SIZE=two", "WORLD_SIZE"),
            ("RANK=0 WORLD_SIZE=2 LOCAL_RANK=x", "LOCAL_RANK"),
            ("PMI_RANK=0", "PMI_SIZE"),
            ("OMPI_COMM_WORLD_SIZE=2", "OMPI_COMM_WORLD_RANK"),
        ] {
            let Err(Error::Environment { variable: named, .. }) = found(text) else {
                panic!("{text}: {:?}", found(text));
            };
            assert_eq!(named, variable, "{text}");
        }
    }

    #[test]
    fn a_batch_script_of_slurm_is_one_process() {
        assert_eq!(found("SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_JOB_ID=7"), Ok(None));
        let shell = "SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=1";
        assert_eq!(found(shell), Ok(None));
        let within = found(&format!("{shell} PMI_RANK=1 PMI_SIZE=2")).expect("valid").expect("two");
        assert_eq!((within.rank, within.launcher), (1, Launcher::Mpich));
    }
}
