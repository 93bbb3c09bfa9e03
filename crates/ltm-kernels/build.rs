//! Writes the kernel table of `src/registry`: every file of `kernels/` with what its contract states. A contract with a
//! mistake is an error that names file and line.

#[path = "src/registry/contract.rs"]
mod contract;
#[path = "src/registry/folder.rs"]
mod folder;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use contract::Contract;

/// Where the kernels are, in the workspace as a link to its folder.
const KERNELS: &str = "kernels";

fn main() {
    for file in ["build.rs", "src/registry/contract.rs", "src/registry/folder.rs", KERNELS] {
        println!("cargo::rerun-if-changed={file}");
    }
    let package = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let table = table(&package.join(KERNELS)).unwrap_or_else(|mistakes| {
        for mistake in mistakes {
            println!("cargo::error={KERNELS}/{mistake}");
        }
        // What includes the table is not compiled after an error.
        String::new()
    });
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    std::fs::write(out.join("kernels.rs"), table).expect("cargo's folder can be written");
}

/// The table as Rust, or `<file>:<line>: <mistake>` for every mistake.
fn table(kernels: &Path) -> Result<String, Vec<String>> {
    let texts =
        |extension| folder::texts(kernels, extension).map_err(|error| vec![error.to_string()]);
    let (mut table, mut mistakes) = (String::from("&[\n"), Vec::new());
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for (name, text) in texts("cu")? {
        match Contract::read(&name, &text) {
            Err(found) => mistakes.extend(
                found.into_iter().map(|found| format!("{name}:{}: {}", found.line, found.what)),
            ),
            Ok(contract) => {
                for symbol in &contract.entries {
                    if let Some(first) = files.insert(symbol.clone(), name.clone()) {
                        mistakes.push(format!("{name}:1: `{symbol}` is in {first} already"));
                    }
                }
                let Contract { op, rung, needs, entries, .. } = contract;
                let text = embedded(&name);
                writeln!(
                    table,
                    "File {{ name: {name:?}, text: {text}, op: {op:?}, rung: {rung}, needs: &{needs:?}, symbols: &{entries:?} }},"
                )
                .expect("a string takes everything");
            }
        }
    }
    let headers: String = texts("cuh")?
        .iter()
        .map(|(name, _)| format!("({name:?}, {}),\n", embedded(name)))
        .collect();
    let table = format!(
        "/// Every kernel file, in order of name.\npub static FILES: &[File] = {table}];\n\
         /// The headers that kernels include, with their text.\n\
         pub static HEADERS: &[(&str, &str)] = &[\n{headers}];\n"
    );
    if mistakes.is_empty() { Ok(table) } else { Err(mistakes) }
}

/// The expression that embeds a file's text.
fn embedded(name: &str) -> String {
    format!("include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/{KERNELS}/{name}\"))")
}
