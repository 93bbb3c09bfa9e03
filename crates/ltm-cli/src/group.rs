//! The processes of a job that runs this command, where a launcher started several.

use std::thread::available_parallelism;

use anyhow::Context;
use ltm_train::Group;
use ltm_train::ltm_collective::Identity;
use ltm_train::ltm_kernels::Device;

use crate::output;

/// The verbs that several processes do together.
const TOGETHER: &str = "train, sweep, generate, and eval of a corpus or text";

/// Joins the processes that were started with this one, and prints who they are. A GPU without a number becomes that of
/// this process, and the cores of a machine are divided among its processes.
///
/// # Errors
/// Half of an identity in the environment, a device that is not there, no way to connect, a process that does not come.
pub fn join(device: &mut String) -> anyhow::Result<Group> {
    let Some(identity) = Identity::from_env()? else { return Ok(Group::alone()) };
    output::set_rank(identity.rank, identity.size);
    if device == "cuda" {
        *device = format!("cuda:{}", identity.local_rank.unwrap_or(0));
    }
    let opened: Device = device.parse().context("`run.device` cannot be used")?;
    let group = Group::join(identity, &opened)?;
    let threads = threads(&group);
    if let Some(description) = group.description().filter(|_| group.is_first()) {
        match threads {
            Some(1) => note!("{description}; a thread each"),
            Some(threads) => note!("{description}; {threads} threads each"),
            None => note!("{description}"),
        }
    }
    Ok(group)
}

/// Refuses to do what one process does, in a job of several: each would do it, and write what the others write.
pub fn alone(what: &str) -> anyhow::Result<()> {
    match Identity::from_env()? {
        Some(identity) if identity.size > 1 => Err(output::usage(format!(
            "{what} is done by one process, not by {}; together they do {TOGETHER}",
            identity.size
        ))),
        _ => Ok(()),
    }
}

/// Gives this process its share of the machine's cores, unless the environment says how many threads; their number.
fn threads(group: &Group) -> Option<usize> {
    if group.size() == 1 || std::env::var_os("RAYON_NUM_THREADS").is_some() {
        return None;
    }
    let cores = available_parallelism().map_or(1, usize::from);
    let threads = (cores / group.on_this_machine()).max(1);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build_global().is_ok().then_some(threads)
}
