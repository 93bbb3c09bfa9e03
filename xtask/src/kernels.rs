//! The kernel files as text: which there are, their entry points, their contract header. Compiles nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::nvrtc::Source;

/// A file `kernels/<op>/<stem>.cu`.
pub struct KernelFile {
    pub op: String,
    pub stem: String,
    pub text: String,
    /// Its `extern "C" __global__` functions, in order.
    pub entries: Vec<String>,
}

impl KernelFile {
    /// Its path from the top of the workspace.
    pub fn path(&self) -> String {
        format!("kernels/{}/{}.cu", self.op, self.stem)
    }
}

/// Every kernel file, in order of name.
pub fn files(root: &Path) -> Result<Vec<KernelFile>> {
    let found = texts(root, "cu")?;
    let file = |(op, stem, text): (String, String, String)| {
        let entries = entries(&text).into_iter().map(|(_, name)| name.to_owned()).collect();
        KernelFile { op, stem, text, entries }
    };
    Ok(found.into_iter().map(file).collect())
}

/// The files of one op.
pub fn files_of(root: &Path, op: &str) -> Result<Vec<KernelFile>> {
    let mut files = files(root)?;
    let ops: BTreeSet<_> = files.iter().map(|file| file.op.clone()).collect();
    files.retain(|file| file.op == op);
    let known = || ops.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
    ensure!(!files.is_empty(), "no op has the name `{op}`; there are {}", known());
    Ok(files)
}

/// Every header, under the name by which kernels include it, such as `common/reduce.cuh`.
pub fn headers(root: &Path) -> Result<Vec<Source>> {
    let found = texts(root, "cuh")?;
    let header = |(folder, stem, text)| Source { name: format!("{folder}/{stem}.cuh"), text };
    Ok(found.into_iter().map(header).collect())
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

/// Folder, stem and text of the files of this extension in the folders of `kernels/`.
fn texts(root: &Path, extension: &str) -> Result<Vec<(String, String, String)>> {
    let mut found = Vec::new();
    let top = root.join("kernels");
    for folder in fs::read_dir(&top).with_context(|| top.display().to_string())? {
        let folder = folder?;
        if !folder.file_type()?.is_dir() {
            continue;
        }
        for file in fs::read_dir(folder.path())? {
            let path = file?.path();
            if path.extension().is_some_and(|found| found == extension) {
                let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                found.push((folder.file_name().to_string_lossy().into_owned(), stem, text));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The `extern "C" __global__` functions of a text: line number and name.
pub fn entries(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (start, marker) in text.match_indices("extern \"C\"") {
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        if text[line_start..start].contains("//") {
            continue;
        }
        let rest = &text[start + marker.len()..];
        // Up to the parameters: attributes with brackets of their own may stand before the name.
        let Some(end) = rest.find(['{', ';']) else { continue };
        let signature = &rest[..end];
        if !signature.contains("__global__") {
            continue;
        }
        if let Some(name) = function_name(signature) {
            found.push((text[..start].matches('\n').count() + 1, name));
        }
    }
    found
}

/// The name before the first bracket that belongs to no attribute.
fn function_name(signature: &str) -> Option<&str> {
    let is_word = |c: char| c == '_' || c.is_ascii_alphanumeric();
    signature.match_indices('(').find_map(|(at, _)| {
        let before = signature[..at].trim_end();
        let start = before.rfind(|c| !is_word(c)).map_or(0, |at| at + 1);
        let name = &before[start..];
        (!name.is_empty() && !name.starts_with("__")).then_some(name)
    })
}

/// The contract keys that every kernel file's header carries, each as `// key  text`.
pub const CONTRACT: &[&str] =
    &["math", "in", "out", "launch", "needs", "numeric", "cost", "twin", "budget"];

/// The text after a key of the contract, in the header's first line that begins with it.
pub fn contract<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().map_while(|line| line.strip_prefix("//")).find_map(|line| {
        let rest = line.trim_start().strip_prefix(key)?;
        (rest.starts_with(char::is_whitespace) && !rest.trim().is_empty()).then(|| rest.trim())
    })
}

/// The `[P…]` lines of a contract's `needs`: each ends at its explanation, or where the next begins.
pub fn needs(text: &str) -> Vec<&str> {
    let header = text.lines().map_while(|line| line.strip_prefix("//"));
    let parts = header.flat_map(|line| line.split("  ")).map(str::trim);
    let needs = parts.filter(|part| part.starts_with("[P"));
    needs.map(|part| part.split(": ").next().unwrap_or(part)).collect()
}

/// What a kernel file promises on sm_80, from `// budget  regs 64; threads 256; smem 0; sass HMMA LDSM`.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// Most registers of a thread.
    pub registers: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Most shared memory of a block in bytes, static and dynamic together.
    pub shared_bytes: u32,
    /// Mnemonics that the machine code must have.
    pub sass: Vec<String>,
}

impl Budget {
    /// From a kernel file's header; the error describes the line's mistake.
    pub fn read(text: &str) -> Result<Self, String> {
        let line = contract(text, "budget")
            .ok_or("no `// budget  regs <n>; threads <n>; smem <bytes>; sass <mnemonics or ->`")?;
        let parts: Vec<_> = line.split(';').map(str::trim).collect();
        let [registers, threads, shared_bytes, sass] = parts[..] else {
            return Err(format!("budget `{line}` has {} parts, expected 4", parts.len()));
        };
        let value = |part: &str, key: &str| {
            let value = part.strip_prefix(key).map(str::trim).and_then(|text| text.parse().ok());
            value.ok_or_else(|| format!("budget: expected `{key} <n>`, got `{part}`"))
        };
        let sass = sass
            .strip_prefix("sass ")
            .ok_or_else(|| format!("budget: expected `sass <mnemonics or ->`, got `{sass}`"))?;
        Ok(Self {
            registers: value(registers, "regs")?,
            threads: value(threads, "threads")?,
            shared_bytes: value(shared_bytes, "smem")?,
            sass: sass.split_whitespace().filter(|word| *word != "-").map(Into::into).collect(),
        })
    }

    /// The same, but for the registers that a block of this size can have at all.
    pub fn without_registers(&self) -> Self {
        Self { registers: 255, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_with_and_without_attributes() {
        let text = "template <class T> __global__ void body(T* x) {}\n\
            // extern \"C\" __global__ void spoken_of(int n) {}\n\
            extern \"C\" __global__ void a_fwd_f32_v1(float *x, int n) { body(x); }\n\
            extern \"C\" __global__ void __launch_bounds__(256, 2)\n    a_fwd_bf16_v1(int n) {}\n\
            extern \"C\" __global__ __launch_bounds__(N / (2)) void b(int n) {}\n\
            extern \"C\" __device__ int helper(int n) { return n; }\n";
        assert_eq!(entries(text), [(3, "a_fwd_f32_v1"), (4, "a_fwd_bf16_v1"), (6, "b")]);
    }

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

    #[test]
    fn contract_lines_end_with_the_header() {
        let text =
            "// op / forward / v1\n// math    a = b\n// in      a (N)\n// budget\n\n// out x\n";
        assert_eq!(contract(text, "math"), Some("a = b"));
        assert_eq!(contract(text, "in"), Some("a (N)"));
        assert_eq!(contract(text, "budget"), None, "a key without a text");
        assert_eq!(contract(text, "out"), None, "the header has ended");
    }

    #[test]
    fn budget_lines() {
        let read = |line: &str| Budget::read(&format!("// x / y / v1\n// budget  {line}\n"));
        let expected = Budget {
            registers: 128,
            threads: 256,
            shared_bytes: 49152,
            sass: vec!["HMMA".into(), "LDSM".into()],
        };
        assert_eq!(read("regs 128; threads 256; smem 49152; sass HMMA LDSM"), Ok(expected));
        assert_eq!(read("regs 8; threads 32; smem 0; sass -").map(|b| b.sass), Ok(vec![]));
        let wrong = |line: &str| read(line).expect_err("the line is wrong");
        assert_eq!(
            wrong("regs 8; threads 32"),
            "budget `regs 8; threads 32` has 2 parts, expected 4"
        );
        assert_eq!(
            wrong("regs few; threads 32; smem 0; sass -"),
            "budget: expected `regs <n>`, got `regs few`"
        );
        assert!(wrong("regs 8; threads 32; smem 0; HMMA").contains("expected `sass"));
        assert!(Budget::read("// x\n").is_err());
    }
}
