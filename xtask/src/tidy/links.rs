//! The rule that links of documents to files of this workspace lead somewhere.

use std::collections::BTreeSet;

/// Reports every relative link of a document whose file or folder does not exist.
pub fn links(
    path: &str,
    text: &str,
    paths: &BTreeSet<String>,
    report: &mut impl FnMut(usize, String),
) {
    let mut within_block = false;
    for (i, line) in text.lines().enumerate() {
        within_block ^= line.trim_start().starts_with("```");
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        for (target, _) in targets.filter(|_| !within_block) {
            let file = target.split('#').next().unwrap_or(target);
            let is_elsewhere = file.is_empty() || file.contains(':') || file.contains(' ');
            if !is_elsewhere && !paths.contains(&resolved(path, file)) {
                report(i + 1, format!("links to `{target}`, which does not exist"));
            }
        }
    }
}

/// A link's path from the top, given that of its document.
fn resolved(document: &str, link: &str) -> String {
    let mut parts: Vec<_> = document.split('/').collect();
    parts.pop();
    for part in link.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;

    #[test]
    fn links_that_lead_nowhere() {
        let there = ("docs/b.md", "# Title\n");
        for fine in [
            "[b](b.md), [b](./b.md#title), [title](#title) and [docs](../docs/)",
            "[site](https://example.org/a) and [type](crate::Type)",
            "```\n[none](none.md)\n```",
        ] {
            assert_eq!(check(&[there, ("docs/a.md", fine)]), [""; 0]);
        }
        let found = check(&[there, ("docs/a.md", "Good.\n[`b`](b.md) and [c](../c.md#d).\n")]);
        assert_eq!(found, ["docs/a.md:2: links to `../c.md#d`, which does not exist"]);
        assert_eq!(check(&[there, ("README.md", "[b](docs/b.md), [b](b.md)")]).len(), 1);
    }
}
