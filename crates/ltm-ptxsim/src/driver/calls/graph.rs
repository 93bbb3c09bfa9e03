//! Graphs and their execution.

use std::sync::Arc;

use crate::driver::code::Code;
use crate::driver::context::Context;
use crate::driver::device::require_init;
use crate::driver::ffi::{Name, Out};
use crate::driver::graph::{EXECUTABLES, Executable, GRAPHS, node_handle, picture};
use crate::driver::handle::{Handle, NODE_BITS};

/// The flags of `cuGraphInstantiate`.
const AUTO_FREE_ON_LAUNCH: u64 = 1;
const DEVICE_LAUNCH: u64 = 4;
const ALL_FLAGS: u64 = 15;

driver_functions! {
    fn cuGraphInstantiateWithFlags(executable_out: Out<Handle>, graph: Handle, flags: u64) {
        let context = Context::usable()?;
        let graph = GRAPHS.get(graph)?;
        if flags & !ALL_FLAGS != 0 || flags & 5 == AUTO_FREE_ON_LAUNCH | DEVICE_LAUNCH {
            return Err(Code::InvalidValue.because(format!("invalid instantiation flags {flags:#x}")));
        }
        if flags & DEVICE_LAUNCH != 0 {
            return Err(Code::NotSupported.because("graph launches from the device are not supported"));
        }
        if graph.context != context.id {
            return Err(Code::InvalidContext.because("the graph was captured in another context"));
        }
        let operations = graph.nodes.iter().map(|node| node.operation.clone()).collect();
        let executable = Executable { context: context.id, operations };
        executable_out.set(EXECUTABLES.insert(Arc::new(executable)))
    }

    fn cuGraphUpload(executable: Handle, stream: Handle) {
        let context = Context::usable()?;
        EXECUTABLES.get(executable)?;
        context.stream(stream).map(|_| ())
    }

    fn cuGraphLaunch(executable: Handle, stream: Handle) {
        let context = Context::usable()?;
        let executable = EXECUTABLES.get(executable)?;
        if executable.context != context.id {
            return Err(Code::InvalidHandle.because("the graph belongs to another context"));
        }
        for operation in &executable.operations {
            context.submit(stream, operation.clone())?;
        }
        Ok(())
    }

    fn cuGraphExecDestroy(executable: Handle) {
        let context = Context::current()?;
        EXECUTABLES.remove(executable)?;
        context.check_fault()
    }

    fn cuGraphDestroy(graph: Handle) {
        require_init()?;
        GRAPHS.remove(graph).map(|_| ())
    }

    fn cuGraphGetNodes(graph: Handle, nodes: Out<Handle>, count: Out<usize>) {
        require_init()?;
        let found = GRAPHS.get(graph)?;
        if !nodes.is_wanted() {
            return count.set(found.nodes.len());
        }
        let room = count.get()?;
        let handles: Vec<Handle> =
            (0..found.nodes.len()).map(|index| node_handle(graph, index)).collect();
        nodes.set_all(&handles, room)?;
        count.set(handles.len().min(room))
    }

    fn cuGraphNodeGetType(node: Handle, node_type: Out<u32>) {
        require_init()?;
        let number = node & ((1 << NODE_BITS) - 1);
        let graph = GRAPHS.get(node - number)?;
        let found = number.checked_sub(1).and_then(|index| graph.nodes.get(index));
        node_type.set(found.ok_or(Code::InvalidHandle)?.operation.node_type())
    }

    fn cuGraphDebugDotPrint(graph: Handle, path: Name, flags: u32) {
        // The flags select how much detail is printed; there is only one level.
        let _ = flags;
        require_init()?;
        let graph = GRAPHS.get(graph)?;
        let path = path.text()?;
        std::fs::write(path, picture(&graph))
            .map_err(|error| Code::OperatingSystem.because(format!("cannot write {path}: {error}")))
    }
}
