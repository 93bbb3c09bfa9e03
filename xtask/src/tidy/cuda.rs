//! The rules for kernel files: each carries its contract, whose needs its launch checks, and is described in its op's
//! README.

use super::Tree;
use crate::contract::{Contract, Mistake};

/// Checks every `kernels/<op>/*.cu`.
pub fn kernels(tree: &Tree, found: &mut Vec<String>) {
    for (path, text) in &tree.texts {
        let Some((op, name)) = kernel_file(path) else { continue };
        let mut report = |line: usize, what: String| found.push(format!("{path}:{line}: {what}"));
        let readme = format!("kernels/{op}/README.md");
        match tree.texts.get(&readme) {
            None => report(1, format!("{readme} does not exist: what is this op's ladder?")),
            Some(text) if !text.contains(name) => report(1, format!("{readme} does not name it")),
            Some(_) => {}
        }
        match Contract::read(&format!("{op}/{name}"), text) {
            Ok(contract) => refusals(tree, &contract, &mut report),
            Err(mistakes) => {
                mistakes.into_iter().for_each(|Mistake { line, what }| report(line, what));
            }
        }
    }
}

/// Op and file name of a path `kernels/<op>/<name>.cu`.
fn kernel_file(path: &str) -> Option<(&str, &str)> {
    let (op, name) = path.strip_prefix("kernels/")?.split_once('/')?;
    (!name.contains('/') && name.ends_with(".cu")).then_some((op, name))
}

/// Each need is checked by the op's launch in the contract's words, and the op has the test that shows
/// each to be refused.
fn refusals(tree: &Tree, contract: &Contract, report: &mut impl FnMut(usize, String)) {
    let Contract { op, needs, .. } = contract;
    let launch = format!("crates/ltm-kernels/src/ops/{op}/cuda.rs");
    let code = tree.texts.get(&launch).map_or("", String::as_str);
    for need in needs.iter().filter(|need| !code.contains(&format!("\"{need}\""))) {
        report(1, format!("`{need}` is not checked in these words in {launch}"));
    }
    if !needs.is_empty() && !code.contains("needs(OP)") {
        report(1, format!("{launch} has no test that `needs(OP)` are refused"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;

    const KERNEL: &str = "// norm / forward / v1: plain loops\n// math    a = b\n// in      a (N)\n\
        // out     b (N)\n// launch  grid 1\n// needs   nothing\n// numeric f32\n// cost    1 flop\n\
        // twin    reference.rs\n// budget  regs 8; threads 32; smem 0; sass -\n\n\
        extern \"C\" __global__ void norm_fwd_f32_v1(int n) {}\n";
    const README: &str = "`fwd_v1_naive.cu` is the start.\n";

    /// What the rules say about one op with these files.
    fn check_op(kernel: &str, readme: &str) -> Vec<String> {
        check(&[("kernels/norm/fwd_v1_naive.cu", kernel), ("kernels/norm/README.md", readme)])
    }

    #[test]
    fn a_whole_kernel() {
        assert_eq!(check_op(KERNEL, README), Vec::<String>::new());
        let shared = ("kernels/common/reduce.cuh", "// Sums.\n");
        assert_eq!(check(&[shared]), Vec::<String>::new());
    }

    #[test]
    fn a_contract_with_mistakes() {
        let wrong = KERNEL.replace("// cost    1 flop\n", "").replace("regs 8", "regs few");
        let found = check_op(&wrong, README);
        let says =
            ["1: its contract has no `// cost`", "9: budget: expected `regs <n>`, got `regs few`"];
        assert_eq!(found, says.map(|what| format!("kernels/norm/fwd_v1_naive.cu:{what}")));
    }

    #[test]
    fn a_kernel_that_no_document_names() {
        let found = check_op(KERNEL, "Nothing.\n");
        assert!(found.len() == 1 && found[0].contains("does not name it"), "{found:?}");
        let found = check(&[("kernels/norm/fwd_v1_naive.cu", KERNEL)]);
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
}
