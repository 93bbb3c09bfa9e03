//! The rule that modules form no circle: what two modules need of each other belongs in a third, or in one of them.
//!
//! Reads the paths of a crate's files, in `use` and elsewhere, and follows re-exports to where a name is defined.
//! A use counts between the two siblings that contain its ends, so whole folders form no circle either; a module and
//! its own children may use each other. Methods have no path, and tests do not count.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Tree;
use super::tokens::{Token, tokens};

/// Operations, each of which gives its gradient in terms of others: that circle is in the mathematics.
const OPERATIONS: &str = "crates/ltm-autodiff/src/ops";

/// A module's path below the crate's root; the root's is empty.
type Module = Vec<String>;

/// Which names a module imports or re-exports, and the path of each.
type Names = BTreeMap<(Module, String), Vec<String>>;

/// A path in the text of a module.
struct Mention {
    line: usize,
    path: Vec<String>,
    /// The name that a `use` gives it.
    name: Option<String>,
}

/// Reports the shortest circle of every group of modules that use each other.
pub fn circles(tree: &Tree, found: &mut Vec<String>) {
    for (root, files) in crates(tree) {
        let known: BTreeSet<Module> = files.keys().cloned().collect();
        let mentions: BTreeMap<_, _> =
            files.iter().map(|(module, path)| (module, mentions(&tree.texts[*path]))).collect();
        let mut names = Names::new();
        for (module, mentions) in &mentions {
            for mention in mentions {
                if let (Some(name), Some(path)) =
                    (&mention.name, absolute(&known, module, &mention.path))
                {
                    names.insert(((*module).clone(), name.clone()), path);
                }
            }
        }
        // Per parent: from one child to another, and the first place where it is used.
        let mut uses: BTreeMap<Module, BTreeMap<(String, String), String>> = BTreeMap::new();
        for (module, mentions) in &mentions {
            for mention in mentions {
                let Some(path) = absolute(&known, module, &mention.path) else { continue };
                let used = resolve(&known, &names, path, 0);
                let shared = module.iter().zip(&used).take_while(|(a, b)| a == b).count();
                if let (Some(from), Some(to)) = (module.get(shared), used.get(shared)) {
                    let parent = module[..shared].to_vec();
                    let place = format!("{}:{}", files[*module], mention.line);
                    let edges = uses.entry(parent).or_default();
                    edges.entry((from.clone(), to.clone())).or_insert(place);
                }
            }
        }
        for (parent, edges) in uses {
            let folder = [std::slice::from_ref(&root), &parent].concat().join("/");
            if folder == OPERATIONS {
                continue;
            }
            for circle in shortest_circles(&edges) {
                let mut told = Vec::new();
                for pair in circle.windows(2) {
                    let place = &edges[&(pair[0].clone(), pair[1].clone())];
                    told.push(format!("`{}` uses `{}` in {place}", pair[0], pair[1]));
                }
                let parent = if parent.is_empty() { "the crate".into() } else { parent.join("::") };
                found.push(format!(
                    "{root}:1: a circle of modules in {parent}: {}",
                    told.join(", ")
                ));
            }
        }
    }
}

/// The files of each crate by module: of every folder with a `lib.rs` or a `main.rs`, also a program's or a test's.
fn crates(tree: &Tree) -> BTreeMap<String, BTreeMap<Module, &String>> {
    let is_root = |folder: &str| {
        ["lib.rs", "main.rs"]
            .iter()
            .any(|file| tree.texts.contains_key(&format!("{folder}/{file}")))
    };
    let mut crates: BTreeMap<String, BTreeMap<Module, &String>> = BTreeMap::new();
    for path in tree.texts.keys().filter(|path| path.ends_with(".rs")) {
        let folders = path.match_indices('/').map(|(at, _)| &path[..at]);
        let Some(root) = folders.rev().find(|folder| is_root(folder)) else { continue };
        let inner = path[root.len() + 1..].trim_end_matches(".rs");
        let mut module: Module = inner.split('/').map(String::from).collect();
        if matches!(module.last().map(String::as_str), Some("lib" | "main" | "mod")) {
            module.pop();
        }
        crates.entry(root.into()).or_default().insert(module, path);
    }
    crates
}

/// All paths in a file that may lead to another module, without those of its tests.
fn mentions(text: &str) -> Vec<Mention> {
    let tokens = without_tests(tokens(text));
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let follows = |offset: usize| tokens.get(at + offset).map_or("", |token| token.text);
        let before = if at == 0 { "" } else { tokens[at - 1].text };
        if follows(0) == "use" && before != "::" {
            at = use_tree(&tokens, at + 1, &mut Vec::new(), &mut found);
        } else if ["crate", "self", "super"].contains(&follows(0)) && follows(1) == "::" {
            let line = tokens[at].line;
            let mut path = vec![follows(0).to_owned()];
            let mut next = at + 1;
            while tokens.get(next).is_some_and(|token| token.text == "::")
                && tokens.get(next + 1).is_some_and(|token| is_name(token.text))
            {
                path.push(tokens[next + 1].text.into());
                next += 2;
            }
            found.push(Mention { line, path, name: None });
            at = next;
        } else {
            at += 1;
        }
    }
    found
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c == '_' || c.is_alphabetic())
}

/// Reads one tree of a `use`, from the token at `at` to the one after it.
fn use_tree<'t>(
    tokens: &[Token<'t>],
    mut at: usize,
    path: &mut Vec<String>,
    found: &mut Vec<Mention>,
) -> usize {
    let depth = path.len();
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token.text {
            "::" => {}
            "{" => {
                while tokens.get(at).is_some_and(|token| token.text != "}") {
                    at = use_tree(tokens, at, path, found);
                    at += usize::from(tokens.get(at).is_some_and(|token| token.text == ","));
                }
                at += 1;
                path.truncate(depth);
                return at;
            }
            "*" => {
                found.push(Mention { line: token.line, path: path.clone(), name: None });
                path.truncate(depth);
                return at;
            }
            text => {
                // `a::{self}` is `a`.
                if text != "self" || path.is_empty() {
                    path.push(text.into());
                }
                if tokens.get(at).is_some_and(|next| next.text == "::") {
                    continue;
                }
                let mut name = path.last().cloned();
                if tokens.get(at).is_some_and(|next| next.text == "as") {
                    name = tokens.get(at + 1).map(|token| token.text.into());
                    at += 2;
                }
                found.push(Mention { line: token.line, path: path.clone(), name });
                path.truncate(depth);
                return at;
            }
        }
    }
    at
}

/// Drops each item after `#[cfg(test)]`.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    const ATTRIBUTE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let ahead = tokens[at..].iter().map(|token| token.text);
        if !ahead.take(ATTRIBUTE.len()).eq(ATTRIBUTE) {
            kept.push(tokens[at]);
            at += 1;
            continue;
        }
        at += ATTRIBUTE.len();
        let mut depth = 0;
        while let Some(token) = tokens.get(at) {
            at += 1;
            match token.text {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 && ["}", ";"].contains(&token.text) {
                break;
            }
        }
    }
    kept
}

/// A path from the crate's root; `None` if it leads out of the crate.
fn absolute(known: &BTreeSet<Module>, module: &Module, path: &[String]) -> Option<Vec<String>> {
    let mut at = module.clone();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => at.clear(),
        "self" => {}
        "super" => drop(at.pop()),
        child => {
            at.push(child.into());
            return known.contains(&at).then(|| [module, path].concat());
        }
    }
    rest = &rest[1..];
    while rest.first().is_some_and(|first| first == "super") {
        at.pop();
        rest = &rest[1..];
    }
    Some([&at, rest].concat())
}

/// The module in which a path's last name is defined, as far as it can be followed.
fn resolve(known: &BTreeSet<Module>, names: &Names, path: Vec<String>, depth: usize) -> Module {
    let inside = (0..=path.len()).rev().find(|n| known.contains(&path[..*n])).unwrap_or(0);
    let (module, rest) = path.split_at(inside);
    if let Some((name, rest)) = rest.split_first()
        && depth < 8
        && let Some(target) = names.get(&(module.to_vec(), name.clone()))
    {
        return resolve(known, names, [target, rest].concat(), depth + 1);
    }
    module.to_vec()
}

/// One shortest circle of every strongly connected component; a circle ends with its first module.
fn shortest_circles(edges: &BTreeMap<(String, String), String>) -> Vec<Vec<String>> {
    let mut next: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (from, to) in edges.keys() {
        next.entry(from).or_default().push(to);
    }
    let leads = |from: &str, to: &str| way(&next, from, to).is_some();
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let mut circles = Vec::new();
    for start in next.keys() {
        if done.contains(start) {
            continue;
        }
        let is_within = |other: &&&str| leads(start, other) && leads(other, start);
        let component: Vec<_> = next.keys().filter(is_within).collect();
        done.extend(component.iter().copied());
        let around = component.iter().filter_map(|module| way(&next, module, module));
        circles.extend(around.min_by_key(Vec::len));
    }
    circles
}

/// A shortest way of at least one step.
fn way(next: &BTreeMap<&str, Vec<&str>>, from: &str, to: &str) -> Option<Vec<String>> {
    let mut ways = VecDeque::from([vec![from.to_owned()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for step in next.get(way.last()?.as_str()).into_iter().flatten() {
            let longer = [way.as_slice(), &[(*step).to_owned()]].concat();
            if *step == to {
                return Some(longer);
            }
            if seen.insert(*step) {
                ways.push_back(longer);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;

    /// The circles in a crate of these files, each of which begins with a line of documentation.
    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| (format!("crates/a/src/{path}"), format!("//! A.\n{text}\n")))
            .collect();
        check(&files.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect::<Vec<_>>())
    }

    const ROOT: (&str, &str) = ("lib.rs", "mod a;\nmod b;\npub use b::B;\n");

    #[test]
    fn two_modules_that_use_each_other() {
        let a = ("a.rs", "use crate::b::{Other, self};\n");
        let found = circles(&[ROOT, a, ("b.rs", "pub struct B;\nfn f() { super::a::g(); }\n")]);
        assert_eq!(
            found,
            [
                "crates/a/src:1: a circle of modules in the crate: `a` uses `b` in crates/a/src/a.rs:2, \
              `b` uses `a` in crates/a/src/b.rs:3"
            ]
        );
        assert_eq!(circles(&[ROOT, a, ("b.rs", "pub struct B;\n")]), [""; 0]);
    }

    #[test]
    fn the_shortest_circle_of_three() {
        let files = [
            ROOT,
            ("a.rs", "use crate::b::B;\n"),
            ("b.rs", "use crate::c::C;\n"),
            ("c.rs", "use crate::{a::A, b::B};\n"),
        ];
        let found = circles(&files);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("`b` uses `c`") && !found[0].contains("`a`"), "{found:?}");
    }

    #[test]
    fn a_name_is_followed_to_where_it_is_defined() {
        for through in ["use crate::B;", "use super::B as C;", "fn f(b: crate::B) {}"] {
            let found = circles(&[ROOT, ("a.rs", through), ("b.rs", "use crate::a::A;")]);
            assert_eq!(found.len(), 1, "{through}: {found:?}");
        }
        let found = circles(&[ROOT, ("a.rs", "use crate::Own;"), ("b.rs", "use crate::a::A;")]);
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn folders_form_no_circle_either() {
        let files = [
            ("lib.rs", "mod a;\nmod b;"),
            ("a/mod.rs", "mod one;\nmod two;"),
            ("a/one.rs", "use crate::b::three::X;"),
            ("a/two.rs", ""),
            ("b/mod.rs", "mod three;\nmod four;"),
            ("b/three.rs", ""),
            ("b/four.rs", "use crate::a::two::Y;"),
        ];
        let found = circles(&files);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("in the crate: `a` uses `b`"), "{found:?}");
    }

    #[test]
    fn a_parent_and_its_children_and_tests_are_no_circle() {
        let files = [
            ("lib.rs", "mod a;\nmod c;"),
            ("a/mod.rs", "mod b;\nuse b::B;\nuse self::b::C;\npub struct A;"),
            ("a/b.rs", "use super::A;\nuse crate::c::D;\nuse std::fmt;"),
            ("c.rs", "#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n"),
        ];
        assert_eq!(circles(&files), [""; 0]);
        let circle = [files[0], files[1], files[2], ("c.rs", "// tests\nuse crate::a::A;")];
        assert_eq!(circles(&circle).len(), 1);
        let inside = [
            ("lib.rs", "mod a;"),
            ("a.rs", "mod b;\nmod c;"),
            ("a/b.rs", "use super::c::C;"),
            ("a/c.rs", "use super::b::B;"),
        ];
        assert!(circles(&inside)[0].contains("in a: `b` uses `c`"));
    }

    #[test]
    fn text_and_comments_are_no_uses() {
        let b = "// use crate::a::A;\n/* use crate::a::A; /* */ */\nconst X: &str = \"crate::a::A\";\n\
                 const Y: &str = r#\"use \" crate::a::A\"#;\nconst Z: char = '\"';\n";
        let files = [ROOT, ("a.rs", "use crate::b::X;"), ("b.rs", b)];
        assert_eq!(circles(&files), [""; 0]);
    }
}
