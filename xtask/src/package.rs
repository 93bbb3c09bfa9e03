//! `cargo xtask package`: checks that every published crate compiles from its tarball, as a user would get it.
//!
//! Cargo's own verification is not used: it takes dependencies within the workspace from a temporary registry whose
//! unpacked sources it keeps between runs, so with an unchanged version number it builds against yesterday's crates.
//! Here the tarballs are unpacked again each time, into a workspace of their own.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{cargo, exec, root, target_dir};

/// Files that every tarball carries.
const REQUIRED: &[&str] = &["README.md", "LICENSE-MIT", "LICENSE-APACHE"];

/// One crate of the workspace, by its manifest.
struct Member {
    name: String,
    version: String,
    is_published: bool,
}

/// Packages, unpacks and type-checks. Needs the network only for dependencies never downloaded before.
pub fn run() -> Result<()> {
    let target = target_dir();
    let unpacked = target.join("package/unpacked");
    let (published, private): (Vec<_>, Vec<_>) =
        members()?.into_iter().partition(|member| member.is_published);

    exec(&mut cargo(["fetch"]))?;
    let mut pack = cargo(["package", "--workspace", "--allow-dirty", "--no-verify", "--offline"]);
    pack.arg("--target-dir").arg(&target);
    for member in &private {
        pack.args(["--exclude", &member.name]);
    }
    exec(&mut pack)?;

    if unpacked.exists() {
        fs::remove_dir_all(&unpacked).with_context(|| unpacked.display().to_string())?;
    }
    fs::create_dir_all(&unpacked).with_context(|| unpacked.display().to_string())?;
    for member in &published {
        let stem = format!("{}-{}", member.name, member.version);
        let tarball = target.join("package").join(format!("{stem}.crate"));
        // `-m`: cargo gives all files one date, by which a build cannot tell that they changed.
        exec(Command::new("tar").arg("-xzmf").arg(&tarball).arg("-C").arg(&unpacked))?;
        for file in REQUIRED {
            ensure!(unpacked.join(&stem).join(file).exists(), "{} lacks {file}", tarball.display());
        }
    }
    let profiles = profiles(&read(&root().join("Cargo.toml"))?);
    fs::write(unpacked.join("Cargo.toml"), manifest(&published, &profiles))?;
    fs::copy(root().join("Cargo.lock"), unpacked.join("Cargo.lock"))?;

    // One by one, so that a feature which only a neighbour switches on does not count. `check` finds every file, feature
    // and dependency that a tarball lacks; machine code for the same sources is what the tests run.
    for member in &published {
        let mut check = cargo(["check", "--offline", "--package", &member.name]);
        exec(check.arg("--target-dir").arg(&target).current_dir(&unpacked))?;
    }
    Ok(())
}

/// The workspace's crates, read from their manifests.
fn members() -> Result<Vec<Member>> {
    let workspace = read(&root().join("Cargo.toml"))?;
    let version = value(&workspace, "version").context("Cargo.toml has no version")?;
    let mut manifests = vec![root().join("xtask/Cargo.toml"), root().join("benches/Cargo.toml")];
    for entry in fs::read_dir(root().join("crates"))? {
        manifests.push(entry?.path().join("Cargo.toml"));
    }
    manifests.sort();
    manifests
        .iter()
        .map(|path| {
            let manifest = read(path)?;
            let name = value(&manifest, "name").with_context(|| path.display().to_string())?;
            let is_published = value(&manifest, "publish") != Some("false");
            Ok(Member { name: name.into(), version: version.into(), is_published })
        })
        .collect()
}

/// A workspace of the unpacked crates, in which each replaces its published version.
fn manifest(published: &[Member], profiles: &str) -> String {
    let mut members = String::new();
    let mut patches = String::new();
    for Member { name, version, .. } in published {
        members += &format!("    \"{name}-{version}\",\n");
        patches += &format!("{name} = {{ path = \"{name}-{version}\" }}\n");
    }
    format!(
        "[workspace]\nresolver = \"3\"\nmembers = [\n{members}]\n\n\
         [patch.crates-io]\n{patches}\n{profiles}"
    )
}

/// The `[profile…]` tables of a manifest: under the same profiles, dependencies that are already compiled are reused.
fn profiles(manifest: &str) -> String {
    let mut within = false;
    let mut text = String::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            within = line.starts_with("[profile");
        }
        if within {
            text += line;
            text += "\n";
        }
    }
    text
}

/// The value of the first `key = value` line, without its quotes.
fn value<'a>(manifest: &'a str, key: &str) -> Option<&'a str> {
    manifest.lines().find_map(|line| {
        let (found, value) = line.split_once('=')?;
        (found.trim() == key).then(|| value.trim().trim_matches('"'))
    })
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_is_published() {
        let members = members().expect("the workspace's manifests can be read");
        let find = |name| members.iter().find(|member| member.name == name);
        assert!(find("ltm-kernels").is_some_and(|member| member.is_published));
        for name in ["ltm-testkit", "ltm-bench", "xtask"] {
            assert!(find(name).is_some_and(|member| !member.is_published), "{name}");
        }
    }

    #[test]
    fn keeps_profiles_alone() {
        let text = "[workspace]\nx = 1\n[profile.dev]\ny = 2\n\n[lints]\nz = 3\n[profile.a]\n";
        assert_eq!(profiles(text), "[profile.dev]\ny = 2\n\n[profile.a]\n");
    }
}
