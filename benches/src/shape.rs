//! The extents that a user names for an op: `m=1024,n=768,k=768`. Knows no op.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};

/// Extents by name, each above 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape(BTreeMap<String, usize>);

impl Shape {
    /// The extents under these names, which must be all that there are.
    ///
    /// # Errors
    /// When one is missing or another one is given.
    pub fn extents<const N: usize>(&self, op: &str, names: [&str; N]) -> Result<[usize; N]> {
        let given: Vec<_> = self.0.keys().map(String::as_str).collect();
        let mut wanted = names.to_vec();
        wanted.sort_unstable();
        if given != wanted {
            let example: Vec<_> = names.iter().map(|name| format!("{name}=64")).collect();
            bail!(
                "{op} has the extents {}, found `{self}`; expected such as --shape {}",
                names.join(", "),
                example.join(",")
            );
        }
        Ok(names.map(|name| self.0[name]))
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut extents = BTreeMap::new();
        for part in text.split(',') {
            let (name, extent) = part.split_once('=').ok_or_else(|| {
                format!("`{part}` is no extent; expected such as m=1024,n=768,k=768")
            })?;
            let extent = extent.parse().ok().filter(|extent| *extent > 0);
            let extent =
                extent.ok_or_else(|| format!("`{part}`: expected {name}=<number above 0>"))?;
            if extents.insert(name.to_owned(), extent).is_some() {
                return Err(format!("`{name}` is given twice"));
            }
        }
        Ok(Self(extents))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> =
            self.0.iter().map(|(name, extent)| format!("{name}={extent}")).collect();
        f.write_str(&parts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_are_found_by_name() {
        let shape: Shape = "n=3,m=2".parse().expect("two extents");
        assert_eq!(shape.extents("op", ["m", "n"]).expect("both are given"), [2, 3]);
        assert_eq!(shape.to_string(), "m=2,n=3");
        for names in [&["m", "k"][..], &["m"], &["m", "n", "k"]] {
            let refused = match *names {
                [a] => shape.extents("op", [a]).map(drop),
                [a, b] => shape.extents("op", [a, b]).map(drop),
                _ => shape.extents("op", ["m", "n", "k"]).map(drop),
            };
            let error = refused.expect_err("other extents").to_string();
            let says = format!("op has the extents {}, found `m=2,n=3`", names.join(", "));
            assert!(error.starts_with(&says), "{error}");
        }
    }

    #[test]
    fn what_is_no_shape_is_refused() {
        let refused = |text: &str| text.parse::<Shape>().expect_err("no shape");
        assert!(refused("").starts_with("`` is no extent; expected"));
        assert!(refused("m=1,1024").starts_with("`1024` is no extent"));
        for wrong in ["m=0", "m=", "m=x", "m=-1"] {
            assert_eq!(refused(wrong), format!("`{wrong}`: expected m=<number above 0>"));
        }
        assert_eq!(refused("m=1,m=2"), "`m` is given twice");
    }
}
