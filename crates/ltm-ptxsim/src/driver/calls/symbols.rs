//! `cuGetProcAddress`: looks up the functions of this library by name.
//!
//! Must not know what they do.

use crate::driver::code::{Code, Outcome};
use crate::driver::ffi::{Name, Out};

/// Functions with a version-dependent form: name, CUDA version that introduced the newest form,
/// form before it.
const FORMS: [(&str, i32, &str); 3] = [
    ("cuCtxCreate", 12050, "cuCtxCreate_v3"),
    ("cuCtxCreate_v3", 11040, "cuCtxCreate_v2"),
    ("cuStreamGetCaptureInfo", 12030, "cuStreamGetCaptureInfo_v2"),
];

/// The address of a function. A name without a suffix means the newest form in CUDA version
/// `version`.
fn resolve(name: &str, version: i32) -> Option<usize> {
    let older = FORMS.iter().find(|(of, since, _)| *of == name && version < *since);
    if let Some((_, _, older)) = older {
        return resolve(older, version);
    }
    let chapters = [
        find,
        super::capture::find,
        super::context::find,
        super::device::find,
        super::error::find,
        super::event::find,
        super::graph::find,
        super::launch::find,
        super::library::find,
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
        // The per-thread and legacy default streams use the same functions here.
        let _ = flags;
        look_up(&name, &address, version, &status)
    }

    fn cuGetProcAddress(name: Name, address: Out<usize>, version: i32, flags: u64) {
        let _ = flags;
        look_up(&name, &address, version, &Out::none())
    }
}

fn look_up(name: &Name, address: &Out<usize>, version: i32, status: &Out<u32>) -> Outcome<()> {
    let name = name.text()?;
    let found = resolve(name, version);
    status.set_if_wanted(if found.is_some() { 0 } else { 1 });
    address.set(found.unwrap_or(0))?;
    found.map(|_| ()).ok_or(Code::NotFound.answers(format!("this library has no {name}")))
}

#[cfg(test)]
mod tests {
    use super::resolve;

    #[test]
    fn names_resolve_to_their_newest_version() {
        let find = |name| resolve(name, 13000);
        assert!(find("cuMemAlloc").is_some());
        assert_eq!(find("cuMemAlloc"), find("cuMemAlloc_v2"));
        assert_ne!(find("cuMemAlloc"), find("cuMemFree"));
        assert_eq!(find("cuTexRefCreate"), None);
    }

    #[test]
    fn a_program_gets_the_form_that_its_version_of_cuda_knows() {
        assert_eq!(resolve("cuCtxCreate", 13000), resolve("cuCtxCreate_v4", 13000));
        assert_eq!(resolve("cuCtxCreate", 12000), resolve("cuCtxCreate_v3", 13000));
        assert_eq!(resolve("cuCtxCreate", 11000), resolve("cuCtxCreate_v2", 13000));
        assert_eq!(
            resolve("cuStreamGetCaptureInfo", 12000),
            resolve("cuStreamGetCaptureInfo_v2", 13000)
        );
    }
}
