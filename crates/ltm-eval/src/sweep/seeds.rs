//! The seeds that every setting of a sweep is trained with. Knows no grid.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// The training seeds of every setting: `seeds = 3` or `seeds = [1, 2, 3]` in a sweep's file, `--seeds 3` or
/// `--seeds 1,2,3` of the command.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Seeds {
    /// This many: the configuration's own `run.seed` and those after it.
    Count(u64),
    /// These.
    List(Vec<u64>),
}

/// Seeds of one setting.
const MOST_SEEDS: u64 = 1000;

impl Seeds {
    /// The seeds of a setting whose configuration has the seed `own`; what is wrong with them otherwise.
    pub(super) fn of(&self, own: u64) -> std::result::Result<Vec<u64>, String> {
        let seeds: Vec<u64> = match self {
            Self::Count(count) if (1..=MOST_SEEDS).contains(count) => {
                (0..*count).map(|more| own.saturating_add(more)).collect()
            }
            Self::List(seeds) if (1..=MOST_SEEDS).contains(&(seeds.len() as u64)) => seeds.clone(),
            _ => return Err(format!("seeds: expected 1 to {MOST_SEEDS} of them, found {self}")),
        };
        let mut sorted = seeds.clone();
        sorted.sort_unstable();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("seeds: expected each once, found {} twice", pair[0])),
            None => Ok(seeds),
        }
    }
}

impl fmt::Display for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::List(seeds) => {
                let seeds: Vec<String> = seeds.iter().map(ToString::to_string).collect();
                write!(f, "{}", seeds.join(","))
            }
        }
    }
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number = |text: &str| {
            let expected = "expected a number of seeds, or seeds separated by commas";
            text.trim().parse::<u64>().map_err(|_| format!("{expected}, found `{text}`"))
        };
        match text.contains(',') {
            false => Ok(Self::Count(number(text)?)),
            true => {
                Ok(Self::List(text.split(',').map(number).collect::<std::result::Result<_, _>>()?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_counted_from_the_own_one_or_listed() {
        for (text, expected) in
            [("3", Ok(vec![7, 8, 9])), ("1", Ok(vec![7])), ("5, 2", Ok(vec![5, 2]))]
        {
            let seeds: Seeds = text.parse().expect(text);
            assert_eq!(seeds.of(7), expected);
            assert_eq!(seeds.to_string(), text.replace(' ', ""));
        }
        for (seeds, part) in [
            (Seeds::Count(0), "found 0"),
            (Seeds::Count(1001), "found 1001"),
            (Seeds::List(vec![]), "1 to 1000"),
            (Seeds::List(vec![1, 2, 1]), "found 1 twice"),
        ] {
            assert!(seeds.of(7).expect_err(part).contains(part), "{seeds:?}");
        }
        assert!("1,x".parse::<Seeds>().expect_err("no number").contains("found `x`"));
    }
}
