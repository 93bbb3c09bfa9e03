//! The rules for kernel files: each carries its contract, whose needs its
//! launch checks, is in the kernel table, and is described in its op's README.

use super::Tree;
use crate::kernels::{Budget, CONTRACT, contract, entries, needs};

/// The kernel table.
const REGISTRY: &str = "crates/ltm-kernels/src/registry.rs";

/// Checks every `kernels/<op>/*.cu`.
pub fn kernels(tree: &Tree, found: &mut Vec<String>) {
    let registry = tree.texts.get(REGISTRY).map_or("", String::as_str);
    for (path, text) in &tree.texts {
        let Some((op, name)) = kernel_file(path) else { continue };
        let mut report = |line: usize, what: String| found.push(format!("{path}:{line}: {what}"));
        header(text, &mut report);
        let readme = format!("kernels/{op}/README.md");
        match tree.texts.get(&readme) {
            None => report(1, format!("{readme} does not exist: what is this op's ladder?")),
            Some(text) if !text.contains(name) => report(1, format!("{readme} does not name it")),
            Some(_) => {}
        }
        refusals(tree, op, &needs(text), &mut report);
        let entries = entries(text);
        if entries.is_empty() {
            report(1, "has no `extern \"C\" __global__` function".into());
        }
        for (line, entry) in entries {
            if !registry.contains(&format!("\"{entry}\"")) {
                report(line, format!("`{entry}` has no row in {REGISTRY}"));
            }
            if !is_well_named(entry, op, name) {
                report(line, format!("`{entry}` is not `{op}_<pass>_<dtype>_v<rung of the file>`"));
            }
        }
    }
}

/// Op and file name of a path `kernels/<op>/<name>.cu`.
fn kernel_file(path: &str) -> Option<(&str, &str)> {
    let (op, name) = path.strip_prefix("kernels/")?.split_once('/')?;
    (!name.contains('/') && name.ends_with(".cu")).then_some((op, name))
}

fn header(text: &str, report: &mut impl FnMut(usize, String)) {
    for key in CONTRACT {
        if contract(text, key).is_none() {
            report(1, format!("its contract has no `// {key}`"));
        }
    }
    if contract(text, "budget").is_some()
        && let Err(mistake) = Budget::read(text)
    {
        report(1, mistake);
    }
}

/// Each need is checked by the op's launch in the contract's words, and the op has the test that shows
/// each to be refused.
fn refusals(tree: &Tree, op: &str, needs: &[&str], report: &mut impl FnMut(usize, String)) {
    let launch = format!("crates/ltm-kernels/src/ops/{op}/cuda.rs");
    let code = tree.texts.get(&launch).map_or("", String::as_str);
    for need in needs.iter().filter(|need| !code.contains(&format!("\"{need}\""))) {
        report(1, format!("`{need}` is not checked in these words in {launch}"));
    }
    if !needs.is_empty() && !code.contains("needs(OP)") {
        report(1, format!("{launch} has no test that `needs(OP)` are refused"));
    }
}

/// Whether a symbol begins with the op and ends in the rung that its file's name carries.
fn is_well_named(entry: &str, op: &str, file: &str) -> bool {
    let rung_of_file = file.split('_').find(|part| rung(part).is_some());
    let rung_of_entry = entry.rsplit('_').next().filter(|part| rung(part).is_some());
    entry.starts_with(&format!("{op}_")) && rung_of_entry.is_some() && rung_of_entry == rung_of_file
}

/// The number of a part such as `v2`.
fn rung(part: &str) -> Option<u32> {
    part.strip_prefix('v')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    const KERNEL: &str = "// norm / forward / v1: plain loops\n// math    a = b\n// in      a (N)\n\
        // out     b (N)\n// launch  grid 1\n// needs   nothing\n// numeric f32\n// cost    1 flop\n\
        // twin    reference.rs\n// budget  regs 8; threads 32; smem 0; sass -\n\n\
        extern \"C\" __global__ void norm_fwd_f32_v1(int n) {}\n";
    const TABLE: &str = "//! Table.\nladder(\"norm_fwd_f32_v1\", \"norm/fwd_v1_naive.cu\")\n";
    const README: &str = "`fwd_v1_naive.cu` is the start.\n";

    /// What the rules say about one op with these files.
    fn check_op(kernel: &str, table: &str, readme: &str) -> Vec<String> {
        check(&[
            ("kernels/norm/fwd_v1_naive.cu", kernel),
            (REGISTRY, table),
            ("kernels/norm/README.md", readme),
        ])
    }

    #[test]
    fn a_whole_kernel() {
        assert_eq!(check_op(KERNEL, TABLE, README), Vec::<String>::new());
        let shared = ("kernels/common/reduce.cuh", "// Sums.\n");
        assert_eq!(check(&[shared]), Vec::<String>::new());
    }

    #[test]
    fn a_contract_with_a_gap() {
        for key in CONTRACT {
            let gap: String = KERNEL
                .lines()
                .filter(|line| !line.starts_with(&format!("// {key} ")))
                .fold(String::new(), |text, line| text + line + "\n");
            let found = check_op(&gap, TABLE, README);
            assert_eq!(
                found,
                [format!("kernels/norm/fwd_v1_naive.cu:1: its contract has no `// {key}`")]
            );
        }
        let found = check_op(&KERNEL.replace("regs 8", "regs few"), TABLE, README);
        assert!(found.len() == 1 && found[0].contains("expected `regs <n>`"), "{found:?}");
    }

    #[test]
    fn a_kernel_that_nobody_knows() {
        let found = check_op(KERNEL, "//! Table.\n", README);
        let line = "kernels/norm/fwd_v1_naive.cu:12: `norm_fwd_f32_v1` has no row in ";
        assert_eq!(found, [format!("{line}{REGISTRY}")]);
        let found = check_op(KERNEL, TABLE, "Nothing.\n");
        assert!(found.len() == 1 && found[0].contains("does not name it"), "{found:?}");
        let found = check(&[("kernels/norm/fwd_v1_naive.cu", KERNEL), (REGISTRY, TABLE)]);
        assert!(found.len() == 1 && found[0].contains("does not exist"), "{found:?}");
    }

    #[test]
    fn a_need_that_nobody_refuses() {
        let kernel = KERNEL.replace(
            "// needs   nothing\n",
            "// needs   [P1] D <= 9: fits   [P2] D > 0   (by Buffer: aligned)\n//         [P3] even\n",
        );
        let launch = "crates/ltm-kernels/src/ops/norm/cuda.rs";
        let check_with = |code: &str| {
            check(&[
                ("kernels/norm/fwd_v1_naive.cu", kernel.as_str()),
                (REGISTRY, TABLE),
                ("kernels/norm/README.md", README),
                (launch, code),
            ])
        };
        let whole = "//! Launch.\nchoose(&[(\"[P1] D <= 9\", x), (\"[P2] D > 0\", y), (\"[P3] even\", z)])\n\
            assert_eq!(shown, needs(OP));\n";
        assert_eq!(check_with(whole), Vec::<String>::new());
        let found = check_with(&whole.replace("D <= 9", "D < 9"));
        let says =
            "kernels/norm/fwd_v1_naive.cu:1: `[P1] D <= 9` is not checked in these words in ";
        assert_eq!(found, [format!("{says}{launch}")]);
        let found = check_with(&whole.replace("needs(OP)", "some"));
        assert!(found.len() == 1 && found[0].contains("no test that `needs(OP)`"), "{found:?}");
    }

    #[test]
    fn a_symbol_of_another_op_or_rung() {
        for wrong in ["norm_fwd_f32_v2", "rope_fwd_f32_v1", "norm_fwd_f32"] {
            let kernel = KERNEL.replace("norm_fwd_f32_v1", wrong);
            let found = check_op(&kernel, &TABLE.replace("norm_fwd_f32_v1", wrong), README);
            assert!(found.len() == 1 && found[0].contains("is not `norm_"), "{found:?}");
        }
    }
}
