//! `cuGetProcAddress`: the functions of this library by name.
//!
//! Must not know what they do.

use super::error::Code;
use super::ffi::{Name, Out};

/// The function's address. A name without a version means the newest, as CUDA 13 maps it.
fn resolve(name: &str) -> Option<usize> {
    let chapters = [
        find,
        super::capture::find,
        super::context::find,
        super::device::find,
        super::error::find,
        super::event::find,
        super::graph::find,
        super::launch::find,
        super::memory::find,
        super::module::find,
        super::occupancy::find,
        super::stream::find,
    ];
    let newest_first = ["_v4", "_v3", "_v2", ""];
    newest_first.iter().find_map(|version| {
        let versioned = format!("{name}{version}");
        chapters.iter().find_map(|find| find(&versioned))
    })
}

driver_functions! {
    fn cuGetProcAddress_v2(
        name: Name,
        address: Out<usize>,
        version: i32,
        flags: u64,
        status: Out<u32>,
    ) {
        // Per-thread and legacy default streams are the same functions here.
        let _ = (version, flags);
        let name = name.text()?;
        let found = resolve(name);
        status.set_if_wanted(if found.is_some() { 0 } else { 1 });
        address.set(found.unwrap_or(0))?;
        found.map(|_| ()).ok_or(Code::NotFound.because(format!("this library has no {name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::resolve;

    #[test]
    fn names_resolve_to_their_newest_version() {
        assert!(resolve("cuMemAlloc").is_some());
        assert_eq!(resolve("cuMemAlloc"), resolve("cuMemAlloc_v2"));
        assert_ne!(resolve("cuMemAlloc"), resolve("cuMemFree"));
        assert_eq!(resolve("cuTexRefCreate"), None);
    }
}
