//! Kernel launches.

use std::sync::Arc;

use crate::LaunchConfig;
use crate::driver::code::{Code, Outcome};
use crate::driver::context::Context;
use crate::driver::ffi::{KernelArguments, LaunchDescription, Out, PointerArray};
use crate::driver::handle::Handle;
use crate::driver::launch::{Launch, check};
use crate::driver::library::function_of;
use crate::driver::operation::Operation;
use crate::driver::settings::settings;

fn launch(
    function: Handle,
    config: LaunchConfig,
    stream: Handle,
    arguments: KernelArguments,
) -> Outcome<()> {
    let context = Context::usable()?;
    let function = function_of(&context, function)?;
    if function.context != context.id {
        return Err(Code::InvalidHandle.because("the function belongs to another context"));
    }
    context.stream(stream)?;
    check(&function, &config)?;
    let asked = config.grid[0];
    let mut config = config;
    if let Some(cap) = &settings()?.grid_cap {
        config.grid[0] = cap.cap(function.name(), config.grid[0]);
    }
    let params = arguments.pack(&function.entry().params)?;
    let is_capped = config.grid[0] < asked;
    let launch = Launch::new(&function, config, is_capped, params);
    context.submit(stream, Operation::Kernel(Arc::new(launch)))
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
