//! Which facts of generated stories single latents carry: a classifier by nearest centroid on the posteriors' means,
//! trained on one half of the stories and tested on the other.

use std::collections::BTreeMap;

use ltm_train::data::storyworld;
use serde::Serialize;

use super::Posteriors;

/// How well a fact of a story is read from its latents.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Carried {
    /// The fact, such as `cast.hero`.
    pub fact: String,
    /// The words that it can be, in the stories trained on.
    pub words: usize,
    /// Stories tested.
    pub stories: usize,
    /// The share that is right without looking: of the word that is most frequent in the stories trained on.
    pub chance: f64,
    /// The share that is right by each latent alone, layer after layer.
    pub accuracy: Vec<f64>,
    /// The share that is right by all latents.
    pub all: f64,
}

/// What a story says of a fact, and its latents.
type Row<'a> = (u32, &'a [f32]);

impl Carried {
    /// Every fact of fitted stories, whose latents have the width `dim`; none for fewer than two stories.
    pub fn of(posteriors: &Posteriors, dim: usize) -> Vec<Self> {
        let stated: Vec<BTreeMap<String, u32>> = posteriors
            .tokens
            .iter()
            .map(|tokens| {
                let stated = storyworld::check(tokens).stated;
                stated.into_iter().map(|stated| (stated.fact, stated.word)).collect()
            })
            .collect();
        let mut facts: Vec<&String> = stated.iter().flat_map(BTreeMap::keys).collect();
        facts.sort();
        facts.dedup();
        let of_fact = |fact: &String| {
            let rows: Vec<Row<'_>> = stated
                .iter()
                .zip(&posteriors.means)
                .filter_map(|(stated, mean)| Some((*stated.get(fact)?, &mean[..])))
                .collect();
            Self::of_fact(fact, &rows, dim)
        };
        facts.into_iter().filter_map(of_fact).collect()
    }

    /// Of rows with their word; every second is tested.
    fn of_fact(fact: &str, rows: &[Row<'_>], dim: usize) -> Option<Self> {
        let half = |odd: usize| rows.iter().copied().skip(odd).step_by(2);
        let (train, test): (Vec<_>, Vec<_>) = (half(0).collect(), half(1).collect());
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        train.iter().for_each(|(word, _)| *counts.entry(*word).or_default() += 1);
        let (usual, _) = counts.iter().max_by_key(|(word, count)| (**count, u32::MAX - **word))?;
        let share = |is_right: &dyn Fn(&Row<'_>) -> bool| {
            test.iter().filter(|row| is_right(row)).count() as f64 / test.len() as f64
        };
        let accuracy = |from: usize, to: usize| {
            let part = |rows: &[Row<'_>]| -> Vec<(u32, Vec<f32>)> {
                rows.iter().map(|(word, row)| (*word, row[from..to].to_vec())).collect()
            };
            let centroids = Centroids::of(&part(&train));
            share(&|(word, row)| centroids.nearest(&row[from..to]) == Some(*word))
        };
        let len = train.first().filter(|_| !test.is_empty())?.1.len();
        Some(Self {
            fact: fact.into(),
            words: counts.len(),
            stories: test.len(),
            chance: share(&|(word, _)| word == usual),
            accuracy: (0..len / dim).map(|j| accuracy(j * dim, (j + 1) * dim)).collect(),
            all: accuracy(0, len),
        })
    }
}

/// The mean of each class, and the variance within classes along each dimension.
struct Centroids {
    means: BTreeMap<u32, Vec<f64>>,
    variance: Vec<f64>,
}

impl Centroids {
    fn of(rows: &[(u32, Vec<f32>)]) -> Self {
        let len = rows.first().map_or(0, |(_, row)| row.len());
        let mut sums: BTreeMap<u32, (f64, Vec<f64>)> = BTreeMap::new();
        for (word, row) in rows {
            let (count, sum) = sums.entry(*word).or_insert_with(|| (0.0, vec![0.0; len]));
            *count += 1.0;
            sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        let mean = |(word, (count, sum)): (u32, (f64, Vec<f64>))| {
            (word, sum.into_iter().map(|sum| sum / count).collect())
        };
        let means: BTreeMap<u32, Vec<f64>> = sums.into_iter().map(mean).collect();
        let mut variance = vec![0.0; len];
        for (word, row) in rows {
            let both = row.iter().zip(&means[word]);
            let squares = both.map(|(x, mean)| (f64::from(*x) - mean).powi(2));
            variance.iter_mut().zip(squares).for_each(|(sum, square)| *sum += square);
        }
        Self { means, variance }
    }

    /// The class whose mean is nearest, in units of the deviation within classes; of equal ones the first.
    fn nearest(&self, row: &[f32]) -> Option<u32> {
        // Where a class has one row alone, no dimension has a deviation of its own.
        let least = self.variance.iter().copied().fold(0.0, f64::max).max(1.0) * 1e-6;
        let distance = |mean: &Vec<f64>| -> f64 {
            let both = row.iter().zip(mean).zip(&self.variance);
            both.map(|((x, mean), v)| (f64::from(*x) - mean).powi(2) / (v + least)).sum()
        };
        let distances = self.means.iter().map(|(word, mean)| (distance(mean), *word));
        distances.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, word)| word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stories whose first latent is told by the weather, and whose second by `of`.
    fn posteriors(stories: u64, of: impl Fn(u64) -> f32) -> Posteriors {
        let mut found = Posteriors::default();
        for index in 0..stories {
            let tokens = storyworld::sample(5, index).tokens;
            let stated = storyworld::check(&tokens).stated;
            let weather = stated.iter().find(|s| s.fact == "weather.kind").expect("it has weather");
            let noise = (index * 37 % 11) as f32 * 0.01;
            let word = weather.word as f32;
            found.means.push(vec![word.sin() + noise, word.cos() - noise, of(index), noise]);
            found.tokens.push(tokens);
        }
        found
    }

    #[test]
    fn a_fact_is_read_from_the_latent_that_carries_it() {
        let found = Carried::of(&posteriors(240, |index| (index * 7919 % 101) as f32), 2);
        let weather = found.iter().find(|c| c.fact == "weather.kind").expect("a fact");
        assert_eq!((weather.words, weather.stories), (6, 120));
        assert_eq!(weather.accuracy[0], 1.0);
        // Six kinds: a sixth, within four standard errors.
        let error = (1.0_f64 / 6.0 * 5.0 / 6.0 / 120.0).sqrt();
        for chance in [weather.chance, weather.accuracy[1]] {
            assert!((chance - 1.0 / 6.0).abs() <= 4.0 * error, "{weather:?}");
        }
        assert!(weather.all > 0.9, "{weather:?}");
        // Nothing tells the animal.
        let animal = found.iter().find(|c| c.fact == "animal.kind").expect("a fact");
        assert!(animal.accuracy.iter().all(|share| *share < 0.3), "{animal:?}");
        assert_eq!(found.len(), 13, "{found:?}");
    }

    #[test]
    fn the_stories_that_are_tested_were_not_trained_on() {
        // A latent that names its story: known by heart, and worth nothing.
        let found = Carried::of(&posteriors(240, |index| (index * 7919 % 240) as f32 * 100.0), 2);
        let hero = found.iter().find(|c| c.fact == "cast.hero").expect("a fact");
        assert!(hero.accuracy[1] < 0.2, "{hero:?}");
        assert!(Carried::of(&posteriors(1, |_| 0.0), 2).is_empty());
        assert!(Carried::of(&Posteriors::default(), 2).is_empty());
    }
}
