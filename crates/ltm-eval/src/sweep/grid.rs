//! The cartesian product of a grid's axes, and the names of its points. Knows no run.

use std::path::{Path, PathBuf};

use ltm_train::config::read_text;

use crate::{Error, Result};

/// Points of one grid; each is a training run.
const MOST_POINTS: usize = 100_000;

/// One `[[grid]]` of a sweep's file.
pub(super) struct Grid {
    /// The base configuration's text.
    pub(super) text: String,
    /// The file that errors name.
    pub(super) path: PathBuf,
    prefix: Option<String>,
    /// The values of each key: a list for an axis, one value for a setting.
    axes: Vec<(String, Vec<toml::Value>)>,
    /// The keys that appear in names: those of axes, and those of settings where the grid has no name.
    named: Vec<String>,
}

impl Grid {
    /// Reads a grid: `base` and `name`, and everything else is an axis (a list of values) or a setting.
    pub(super) fn new(
        table: &toml::Table,
        base: Option<&toml::Value>,
        path: &Path,
    ) -> Result<Self> {
        let fail = |reason: String| Error::Config { path: path.into(), reason };
        let mut table = table.clone();
        let own = table.remove("base");
        let name = table.remove("name");
        let name = match name {
            None => None,
            Some(toml::Value::String(name)) => Some(in_a_path(&name)),
            Some(other) => {
                return Err(fail(format!("grid.name: expected a string, found {other}")));
            }
        };
        let prefix = name.or_else(|| match &own {
            Some(toml::Value::String(base)) => {
                Path::new(base).file_stem().map(|stem| in_a_path(&stem.to_string_lossy()))
            }
            _ => None,
        });
        let (text, base_path) = match own.as_ref().or(base) {
            Some(toml::Value::String(base)) => {
                let base = path.parent().unwrap_or(Path::new("")).join(base);
                (read_text(&base)?, base)
            }
            Some(toml::Value::Table(base)) => (base.to_string(), path.into()),
            Some(other) => {
                let expected = "expected a configuration file or its tables";
                return Err(fail(format!("base: {expected}, found {other}")));
            }
            None => {
                let expected = "base = \"FILE\" at the top or in every [[grid]]";
                return Err(fail(format!("base: expected {expected}, found none")));
            }
        };
        let (mut axes, mut named) = (Vec::new(), Vec::new());
        for (key, value) in flatten(&table).map_err(fail)? {
            match value {
                toml::Value::Array(values) if values.is_empty() => {
                    return Err(fail(format!("grid: `{key}` has no values")));
                }
                toml::Value::Array(values) => {
                    named.push(key.clone());
                    axes.push((key, values));
                }
                value => {
                    if prefix.is_none() {
                        named.push(key.clone());
                    }
                    axes.push((key, vec![value]));
                }
            }
        }
        let points = axes.iter().fold(1_usize, |n, (_, values)| n.saturating_mul(values.len()));
        if points > MOST_POINTS {
            let expected = format!("expected at most {MOST_POINTS} points, found {points}");
            return Err(fail(format!("grid: {expected}; shorten its lists or split the sweep")));
        }
        Ok(Self { text, path: base_path, prefix, axes, named })
    }

    /// Name and settings of every point; the last axis varies fastest.
    pub(super) fn points(&self) -> Vec<(String, toml::Table)> {
        let mut points = vec![toml::Table::new()];
        for (key, values) in &self.axes {
            let with = |point: &toml::Table, value: &toml::Value| {
                let mut point = point.clone();
                point.insert(key.clone(), value.clone());
                point
            };
            points = points.iter().flat_map(|p| values.iter().map(|v| with(p, v))).collect();
        }
        points.into_iter().map(|settings| (self.name(&settings), settings)).collect()
    }

    /// The prefix and the values, such as `n_latents=6,infer.steps=16`. The section is part of the name where several
    /// sections have the key.
    fn name(&self, settings: &toml::Table) -> String {
        let mut parts: Vec<String> = self.prefix.iter().cloned().collect();
        for (key, value) in settings.iter().filter(|(key, _)| self.named.contains(key)) {
            let short = key.split_once('.').map_or(key.as_str(), |(_, short)| short);
            let shared = ["steps", "lr", "weight_decay"].contains(&short);
            let value = match value {
                toml::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let key = if shared { key } else { short };
            parts.push(in_a_path(&format!("{key}={value}")));
        }
        if parts.is_empty() { "base".into() } else { parts.join(",") }
    }
}

/// `"section.key" = value` and `section.key = value` alike, as the former.
pub(super) fn flatten(table: &toml::Table) -> std::result::Result<toml::Table, String> {
    let mut flat = toml::Table::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(section) => {
                for (name, value) in section {
                    flat.insert(format!("{key}.{name}"), value.clone());
                }
            }
            value if key.contains('.') => {
                flat.insert(key.clone(), value.clone());
            }
            _ => return Err(format!("expected `section.key` to set, found `{key}`")),
        }
    }
    Ok(flat)
}

/// Text as part of a folder's name.
fn in_a_path(text: &str) -> String {
    let kept = |c: char| c.is_alphanumeric() || "=.-_+".contains(c);
    text.chars().map(|c| if kept(c) { c } else { '-' }).collect()
}
