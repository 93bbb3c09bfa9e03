//! Kernel launches: the driver's checks before a kernel starts, and the error code of a fault.
//!
//! Must not know instructions; a [`Fault`] describes itself.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use super::context::Context;
use super::device::model;
use super::error::{Code, Failure, Outcome};
use super::ffi::{KernelArguments, LaunchDescription, Out, PointerArray};
use super::module::Function;
use super::operation::Operation;
use super::report;
use super::settings::settings;
use super::state::Handle;
use super::stream::{resolve, submit};
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
    /// Runs the kernel. After a fault the context is unusable.
    pub(super) fn run(&self, context: &Context) -> Outcome<()> {
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
            &context.memory,
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
                    context.poison(&failure);
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
fn check(function: &Function, config: &LaunchConfig) -> Outcome<()> {
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

fn launch(
    function: Handle,
    config: LaunchConfig,
    stream: Handle,
    arguments: KernelArguments,
) -> Outcome<()> {
    let context = Context::usable()?;
    let function = super::library::function_of(&context, function)?;
    if function.context != context.id {
        return Err(Code::InvalidHandle.because("the function belongs to another context"));
    }
    resolve(&context, stream)?;
    check(&function, &config)?;
    let asked = config.grid[0];
    let mut config = config;
    if let Some(cap) = &settings()?.grid_cap {
        config.grid[0] = cap.cap(function.name(), config.grid[0]);
    }
    let params = arguments.pack(&function.entry().params)?;
    let name = function.name().to_owned();
    let is_capped = config.grid[0] < asked;
    let launch = Launch { function: Arc::downgrade(&function), name, config, is_capped, params };
    submit(&context, stream, Operation::Kernel(Arc::new(launch)))
}

/// A cooperative launch needs all blocks to run at the same time, which the simulator does not
/// support.
const COOPERATIVE: u32 = 2;
const CLUSTER_DIMENSION: u32 = 4;

driver_functions! {
    fn cuLaunchKernel(
        function: Handle,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared_bytes: u32,
        stream: Handle,
        pointers: PointerArray,
        extra: PointerArray,
    ) {
        let config = LaunchConfig {
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            dynamic_shared_bytes: shared_bytes,
        };
        launch(function, config, stream, KernelArguments { pointers, extra })
    }

    fn cuLaunchKernelEx(
        description: Out<LaunchDescription>,
        function: Handle,
        pointers: PointerArray,
        extra: PointerArray,
    ) {
        let description = description.get()?;
        for id in description.attribute_ids() {
            if id == COOPERATIVE || id == CLUSTER_DIMENSION {
                return Err(Code::NotSupported
                    .because(format!("launch attribute {id}: clusters and cooperative launches are not supported")));
            }
        }
        let config = LaunchConfig {
            grid: description.grid,
            block: description.block,
            dynamic_shared_bytes: description.shared_bytes,
        };
        launch(function, config, description.stream, KernelArguments { pointers, extra })
    }
}
