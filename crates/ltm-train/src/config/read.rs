//! From a file's text to a table of known keys with values of the right kinds. Knows no combination of values;
//! `Config::validate` does.

use std::path::Path;

use serde::Deserialize;
use toml::{Table, Value};

use super::keys::{Key, KeyDefault, Kind, keys, of_section, sections};
use crate::{Error, Result};

/// What is wrong, by section and key.
type Checked<T> = std::result::Result<T, String>;

/// The file's text as a table of known sections and keys, with the overrides and the defaults that follow from
/// other keys applied.
pub(super) fn table(text: &str, path: &Path, overrides: &[String]) -> Result<Table> {
    parse(text, path, overrides).map_err(|reason| Error::Config { path: path.into(), reason })
}

fn parse(text: &str, path: &Path, overrides: &[String]) -> Checked<Table> {
    // Editors on Windows begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut table: Table = text.parse().map_err(|error| syntax(text, &error))?;
    for text in overrides {
        apply_override(&mut table, text)?;
    }
    check_names(&table)?;
    for key in keys() {
        if let Some(value) = get(&table, key) {
            check_kind(key, value)?;
        }
    }
    fill_derived(&mut table, path)?;
    Ok(table)
}

/// Refuses a table that does not set every key without a default. The vocabulary must be filled in by now.
pub(super) fn check_required(table: &Table) -> Checked<()> {
    for key in keys() {
        let required = key.default == KeyDefault::Required || key.full_name() == "model.vocab_size";
        if required && get(table, key).is_none() {
            let (name, kind) = (key.full_name(), &key.kind);
            let meaning = key.meaning.split(['.', ':', ';']).next().unwrap_or_default();
            return Err(format!("`{name}` is missing: expected {kind} ({meaning})"));
        }
    }
    Ok(())
}

/// One section of a table that has passed the checks above.
pub(super) fn section<T: for<'a> Deserialize<'a>>(table: &Table, name: &str) -> Checked<T> {
    let value = table.get(name).cloned().unwrap_or_else(|| Table::new().into());
    value.try_into().map_err(|error: toml::de::Error| {
        format!(
            "section [{name}]: {}",
            error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
        )
    })
}

/// A mistake in TOML's grammar by line and column.
fn syntax(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
        return message;
    };
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("line {line}, column {column}: {message}")
}

fn get<'a>(table: &'a Table, key: &Key) -> Option<&'a Value> {
    table.get(key.section)?.as_table()?.get(key.name)
}

/// Puts `section.key=value` into the table. A value that is not TOML is a string, and so is every value of a key
/// that takes strings.
fn apply_override(table: &mut Table, text: &str) -> Checked<()> {
    let form = || format!("override {text:?}: expected section.key=value, such as train.steps=100");
    let (key, value) = text.split_once('=').ok_or_else(form)?;
    let (section, key) = key.trim().split_once('.').ok_or_else(form)?;
    if section.is_empty() || key.is_empty() || key.contains('.') {
        return Err(form());
    }
    let value = value.trim();
    let string = || Value::String(value.into());
    let parsed = format!("value = {value}").parse::<Table>().ok();
    let parsed =
        parsed.filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
    let known = of_section(section).find(|known| known.name == key);
    let value = match (known.map(|known| &known.kind), parsed) {
        (Some(Kind::Integer), None)
            if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) =>
        {
            return Err(format!("`{section}.{key}`: expected at most {}, found {value}", i64::MAX));
        }
        (Some(Kind::Text | Kind::Choice(_)), Some(Value::String(value))) => Value::String(value),
        (Some(Kind::Text | Kind::Choice(_)), _) => string(),
        (_, parsed) => parsed.unwrap_or_else(string),
    };
    let entry = table.entry(section).or_insert_with(|| Table::new().into());
    let entry = entry
        .as_table_mut()
        .ok_or_else(|| format!("`{}` is not a section", section.escape_debug()))?;
    entry.insert(key.into(), value);
    Ok(())
}

fn check_names(table: &Table) -> Checked<()> {
    let names = sections();
    for (name, value) in table {
        if !names.contains(&name.as_str()) {
            return Err(format!(
                "unknown section `{}`{}",
                name.escape_debug(),
                nearest(name, &names)
            ));
        }
        let Some(section) = value.as_table() else {
            return Err(format!("`{name}`: expected a section, [{name}], found {}", shown(value)));
        };
        let known: Vec<&str> = of_section(name).map(|key| key.name).collect();
        if let Some(key) = section.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(format!(
                "unknown key `{name}.{}`{}",
                key.escape_debug(),
                nearest(key, &known)
            ));
        }
    }
    Ok(())
}

/// Refuses a value of another kind than its key's.
fn check_kind(key: &Key, value: &Value) -> Checked<()> {
    let number = |value: &Value| value.is_float() || value.is_integer();
    let fits = match &key.kind {
        Kind::Integer => value.as_integer().is_some_and(|n| n >= 0),
        Kind::Number => number(value),
        Kind::Pair => {
            value.as_array().is_some_and(|pair| pair.len() == 2 && pair.iter().all(number))
        }
        Kind::Text => value.is_str(),
        Kind::Choice(names) => {
            value.as_str().is_some_and(|v| names.iter().any(|(name, _)| name == v))
        }
    };
    if fits {
        return Ok(());
    }
    Err(format!("`{}`: expected {}, found {}", key.full_name(), key.kind, shown(value)))
}

/// A value in an error, cut where it is long.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => format!("{text:?}"),
        value => value.to_string().replace('\n', " "),
    };
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Fills in the defaults that follow from other keys.
fn fill_derived(table: &mut Table, path: &Path) -> Checked<()> {
    fn section<'a>(table: &'a mut Table, name: &str) -> &'a mut Table {
        let entry = table.entry(name).or_insert_with(|| Table::new().into());
        entry.as_table_mut().expect("`check_names` has seen that sections are tables")
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let dir = format!("runs/{}", if name.is_empty() { "run" } else { &name });
    section(table, "run").entry("dir").or_insert_with(|| dir.into());

    let model = section(table, "model");
    if let Some(heads) = model.get("n_heads").cloned() {
        model.entry("n_kv_heads").or_insert(heads);
    }
    let context = model.get("max_seq_len").cloned();
    let train = section(table, "train");
    if let Some(context) = context {
        train.entry("seq_len").or_insert(context);
    }
    if let Some(steps) = train.get("steps").and_then(Value::as_integer) {
        train.entry("warmup").or_insert_with(|| (steps / 50).into());
    }
    if !train.contains_key("lr_min") {
        let default = of_section("train").find(|key| key.name == "lr").map(|key| &key.default);
        let default = match default {
            Some(KeyDefault::Value(value)) => value.as_f64(),
            _ => None,
        };
        let number = |value: &Value| value.as_float().or(value.as_integer().map(|n| n as f64));
        if let Some(lr) = train.get("lr").and_then(number).or(default) {
            train.insert("lr_min".into(), (lr / 10.0).into());
        }
    }

    let infer = section(table, "infer");
    let langevin = infer.get("method").and_then(Value::as_str) == Some("langevin");
    if langevin && !infer.contains_key("lr") {
        let expected = "expected a step size for `infer.method = \"langevin\"`, such as 0.05";
        return Err(format!("`infer.lr` is missing: {expected}; the default is one for AdamW"));
    }
    Ok(())
}

/// A hint at the name most like a typo, or at all of them when none is like it.
fn nearest(typo: &str, known: &[&str]) -> String {
    let like = |name: &&str| strsim::jaro_winkler(typo, name);
    match known.iter().copied().max_by(|a, b| like(a).total_cmp(&like(b))) {
        Some(name) if like(&name) >= 0.7 => format!("; did you mean `{name}`?"),
        _ => format!("; expected one of {}", known.join(", ")),
    }
}
