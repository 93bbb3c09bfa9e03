//! The kernel files of the working tree with their contracts, and their headers. Compiles nothing.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, anyhow, ensure};

use crate::contract::{Contract, Mistake};
use crate::folder;
use crate::nvrtc::Source;

/// A file of `kernels/`.
pub struct KernelFile {
    /// Its path from the top of the workspace.
    pub path: String,
    pub text: String,
    pub contract: Contract,
}

/// Every kernel file, in order of name.
pub fn files(root: &Path) -> Result<Vec<KernelFile>> {
    let file = |(name, text): (String, String)| {
        let path = format!("kernels/{name}");
        let contract = Contract::read(&name, &text).map_err(|mistakes| {
            let line = |Mistake { line, what }: &Mistake| format!("{path}:{line}: {what}");
            anyhow!("{}", mistakes.iter().map(line).collect::<Vec<_>>().join("\n"))
        })?;
        Ok(KernelFile { path, text, contract })
    };
    folder::texts(&root.join("kernels"), "cu")?.into_iter().map(file).collect()
}

/// The files of one op.
pub fn files_of(root: &Path, op: &str) -> Result<Vec<KernelFile>> {
    let mut files = files(root)?;
    let ops: BTreeSet<_> = files.iter().map(|file| file.contract.op.clone()).collect();
    files.retain(|file| file.contract.op == op);
    let known = || ops.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
    ensure!(!files.is_empty(), "no op has the name `{op}`; there are {}", known());
    Ok(files)
}

/// Every header, under the name by which kernels include it, such as `common/reduce.cuh`.
pub fn headers(root: &Path) -> Result<Vec<Source>> {
    let found = folder::texts(&root.join("kernels"), "cuh")?;
    Ok(found.into_iter().map(|(name, text)| Source { name, text }).collect())
}

/// The headers that a text includes, and those that they include, in order of name.
pub fn included<'a>(text: &str, headers: &'a [Source]) -> Vec<&'a Source> {
    let names =
        |text: &str, header: &Source| text.contains(&format!("#include \"{}\"", header.name));
    let mut is_included: Vec<_> = headers.iter().map(|header| names(text, header)).collect();
    // Headers include each other at most as deep as there are headers.
    for _ in headers {
        for i in 0..headers.len() {
            is_included[i] |=
                (0..headers.len()).any(|j| is_included[j] && names(&headers[j].text, &headers[i]));
        }
    }
    headers.iter().zip(is_included).filter(|(_, included)| *included).map(|(h, _)| h).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_are_included_at_any_depth() {
        let header = |name: &str, text: &str| Source { name: name.into(), text: text.into() };
        let headers = [
            header("a.cuh", "#include \"b.cuh\"\n"),
            header("b.cuh", "#include \"c.cuh\"\n"),
            header("c.cuh", "\n"),
            header("d.cuh", "#include \"a.cuh\"\n"),
        ];
        let of = |text: &str| {
            let found = included(text, &headers);
            found.iter().map(|header| header.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(of("#include \"a.cuh\"\n"), ["a.cuh", "b.cuh", "c.cuh"]);
        assert_eq!(of("#include \"d.cuh\"\n").len(), 4);
        assert!(of("// none\n").is_empty());
    }
}
