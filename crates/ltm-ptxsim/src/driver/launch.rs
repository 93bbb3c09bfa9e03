//! Kernel launches: the driver's checks before a kernel starts, and the error code of a fault.
//!
//! Must not know instructions; a [`Fault`] describes itself.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use super::code::{Code, Failure, Outcome};
use super::device::model;
use super::engine::Engine;
use super::module::Function;
use super::report;
use super::settings::settings;
use crate::{Fault, FaultKind, LaunchConfig};

/// A checked launch with a copy of its arguments.
pub(super) struct Launch {
    /// Weak, because a captured launch may outlive its module.
    function: Weak<Function>,
    name: String,
    config: LaunchConfig,
    /// Whether `PTXSIM_GRID_CAP` reduced its number of blocks.
    is_capped: bool,
    params: Vec<u8>,
}

impl Launch {
    /// A launch that has been [checked](check).
    pub(super) fn new(
        function: &Arc<Function>,
        config: LaunchConfig,
        is_capped: bool,
        params: Vec<u8>,
    ) -> Launch {
        let name = function.name().to_owned();
        Launch { function: Arc::downgrade(function), name, config, is_capped, params }
    }

    /// Runs the kernel. After a fault the context is unusable.
    pub(super) fn run(&self, engine: &Engine) -> Outcome<()> {
        let unloaded =
            || Code::InvalidHandle.because(format!("{}: its module was unloaded", self.name));
        let function = self.function.upgrade().ok_or_else(unloaded)?;
        let settings = settings()?;
        let module = &function.module.module;
        let outcome = crate::launch(
            module,
            &self.name,
            self.config,
            &self.params,
            &engine.memory,
            &settings.options,
        );
        match outcome {
            Ok(counters) => match &settings.report {
                Some(path) => {
                    report::append(path, &self.name, &self.config, self.is_capped, &counters)
                }
                None => Ok(()),
            },
            Err(fault) => {
                let failure = failure_of(&fault);
                // A launch over a limit never started, so the context stays usable.
                if !matches!(fault.kind, FaultKind::Limit | FaultKind::Unsupported) {
                    engine.poison(&failure);
                }
                Err(failure)
            }
        }
    }

    /// A one-line description for printing a graph.
    pub(super) fn label(&self) -> String {
        format!("{} grid {:?} block {:?}", self.name, self.config.grid, self.config.block)
    }
}

/// The error code that hardware would return, with the description of the fault.
fn failure_of(fault: &Fault) -> Failure {
    let code = match fault.kind {
        FaultKind::OutOfBounds | FaultKind::UseAfterFree => Code::IllegalAddress,
        FaultKind::Misaligned => Code::MisalignedAddress,
        FaultKind::Deadlock | FaultKind::Endless => Code::LaunchTimeout,
        FaultKind::Limit => Code::InvalidValue,
        FaultKind::Assert => Code::Assert,
        FaultKind::Unsupported => Code::NotSupported,
        FaultKind::Trap => Code::LaunchFailed,
        // Faults that hardware does not detect have no code of their own.
        _ => Code::LaunchFailed,
    };
    code.because(fault.to_string())
}

/// The checks that a driver makes before a kernel starts.
pub(super) fn check(function: &Function, config: &LaunchConfig) -> Outcome<()> {
    let model = model()?;
    let refuse =
        |story: String| Err(Code::InvalidValue.because(format!("{}: {story}", function.name())));
    for axis in 0..3 {
        let (grid, block) = (config.grid[axis], config.block[axis]);
        if grid == 0 || grid > model.max_grid[axis] || block == 0 || block > model.max_block[axis] {
            return refuse(format!(
                "grid {:?} and block {:?}; 1 to {:?} and 1 to {:?} are allowed",
                config.grid, config.block, model.max_grid, model.max_block
            ));
        }
    }
    let threads: u64 = config.block.iter().map(|&extent| u64::from(extent)).product();
    let most = function.entry().max_threads.unwrap_or(model.max_threads_per_block);
    if threads > u64::from(most.min(model.max_threads_per_block)) {
        return refuse(format!("{threads} threads in a block, at most {most} are allowed"));
    }
    let allowed = function.max_dynamic_shared.load(Ordering::Relaxed);
    if config.dynamic_shared_bytes > allowed {
        return refuse(format!(
            "{} bytes of dynamic shared memory, {allowed} are allowed; raise \
             CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES of this function, up to {}",
            config.dynamic_shared_bytes,
            model.shared_per_block_optin.saturating_sub(function.entry().static_shared_bytes),
        ));
    }
    Ok(())
}
