//! Special registers, such as `%tid.x`: their values when a kernel starts. Must not know instructions.

use super::block::Launch;
use crate::options::LaunchConfig;

pub(super) fn special(name: &str, launch: &Launch, index: [u32; 3], thread: u32, warp: u32) -> u64 {
    let LaunchConfig { grid, block: [x, y, z], dynamic_shared_bytes } = launch.config;
    let lane = thread % 32;
    let value = match name {
        "tid.x" => thread % x,
        "tid.y" => thread / x % y,
        "tid.z" => thread / x / y,
        "ntid.x" => x,
        "ntid.y" => y,
        "ntid.z" => z,
        "ctaid.x" => index[0],
        "ctaid.y" => index[1],
        "ctaid.z" => index[2],
        "nctaid.x" => grid[0],
        "nctaid.y" => grid[1],
        "nctaid.z" => grid[2],
        "laneid" => lane,
        "warpid" => warp,
        "nwarpid" => (x * y * z).div_ceil(32),
        "dynamic_smem_size" => dynamic_shared_bytes,
        "total_smem_size" => launch.static_bytes + dynamic_shared_bytes,
        // Blocks are assigned to multiprocessors round-robin.
        "smid" => (u64::from(index[0])
            + u64::from(grid[0]) * (u64::from(index[1]) + u64::from(grid[1]) * u64::from(index[2])))
        .rem_euclid(u64::from(launch.options.device.multiprocessors.max(1)))
            as u32,
        "nsmid" => launch.options.device.multiprocessors,
        "gridid" => return launch.number,
        "lanemask_eq" => 1 << lane,
        "lanemask_lt" => (1 << lane) - 1,
        "lanemask_le" => u32::MAX >> (31 - lane),
        "lanemask_gt" => !(u32::MAX >> (31 - lane)),
        "lanemask_ge" => !((1 << lane) - 1),
        _ => 0,
    };
    u64::from(value)
}
