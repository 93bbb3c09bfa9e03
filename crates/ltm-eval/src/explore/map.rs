//! Where the posteriors of a corpus lie: fitted means, their two principal axes, neighbours, and texts decoded between.

use ltm_train::data::Batches;
use serde::Serialize;

use super::Explorer;
use crate::Result;
use crate::probe::each_fit;
use crate::text::decode;

/// Neighbours of a place that are named.
const NEIGHBOURS: usize = 5;

/// Iterations of an axis, at most: enough for two variances that differ by a hundredth.
const MOST_ITERATIONS: usize = 1000;

/// The fitted posteriors of the rows of a corpus.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Posteriors {
    /// The tokens of each row, up to the first separator.
    pub tokens: Vec<Vec<u32>>,
    /// The mean of each posterior, `(L·Z·C)`.
    pub means: Vec<Vec<f32>>,
}

/// A corpus on two axes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Map {
    /// The mean of all means, `(L·Z·C)`: the point 0, 0.
    pub mean: Vec<f32>,
    /// Two directions of length 1, `(L·Z·C)` each.
    pub axes: [Vec<f32>; 2],
    /// The share of the means' variance along each.
    pub shares: [f64; 2],
    /// The texts of the corpus.
    pub places: Vec<Place>,
    /// What is decoded between them.
    pub grid: Grid,
}

/// A text on the map.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Place {
    /// The text.
    pub text: String,
    /// Along both axes.
    pub at: [f64; 2],
    /// The places whose means are nearest in all dimensions, the nearest first.
    pub neighbours: Vec<usize>,
}

/// Texts decoded at points of the map's plane.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Grid {
    /// Points on the first axis.
    pub x: Vec<f64>,
    /// Points on the second.
    pub y: Vec<f64>,
    /// The text at each, one `y` after another.
    pub decoded: Vec<String>,
}

impl Posteriors {
    /// Fits [`sequences` rows](Batches::sample) of a corpus, 0 for all. `progress(done, all)` counts batches.
    ///
    /// # Errors
    /// [`Error::Infer`](crate::Error::Infer) and those of the corpus.
    pub fn fit(
        explorer: &Explorer,
        batches: &Batches,
        sequences: u64,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let (config, separator) = (explorer.config(), explorer.tokenizer().separator());
        let t = batches.options().seq_len;
        let mut found = Self::default();
        each_fit(config, explorer.weights(), batches, sequences, progress, &mut |rows, _, mu| {
            let len = mu.len() * t / rows.targets.len();
            for (row, mu) in rows.targets.chunks(t).zip(mu.chunks(len)).take(rows.rows) {
                let ids = row.iter().map(|id| *id as u32);
                found
                    .tokens
                    .push(ids.take_while(|id| (*id as i32) >= 0 && *id != separator).collect());
                found.means.push(mu.to_vec());
            }
            Ok(())
        })?;
        Ok(found)
    }
}

impl Map {
    /// A map of fitted posteriors, with texts decoded at `side` points along each axis. `progress(done, all)` counts them.
    ///
    /// # Errors
    /// [`Error::Infer`](crate::Error::Infer) for means of another length than the explorer's latents.
    pub fn of(
        explorer: &mut Explorer,
        posteriors: &Posteriors,
        side: usize,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let Posteriors { tokens, means } = posteriors;
        let (mean, axes, shares) = principal_axes(means);
        let along = |row: &[f32], axis: &[f64]| -> f64 {
            let centred = row.iter().zip(&mean).map(|(x, mean)| f64::from(*x) - mean);
            centred.zip(axis).map(|(x, axis)| x * axis).sum()
        };
        let tokenizer = explorer.tokenizer().clone();
        let place = |(row, ids): (usize, &Vec<u32>)| {
            let ids: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
            Place {
                text: decode(&*tokenizer, &ids),
                at: [0, 1].map(|axis| along(&means[row], &axes[axis])),
                neighbours: neighbours(means, row),
            }
        };
        let places: Vec<Place> = tokens.iter().enumerate().map(place).collect();
        let [x, y] = [0, 1].map(|axis| points(places.iter().map(|place| place.at[axis]), side));
        let mut decoded = Vec::with_capacity(x.len() * y.len());
        for (y, x) in y.iter().flat_map(|y| x.iter().map(move |x| (y, x))) {
            let along = axes[0].iter().zip(&axes[1]).map(|(first, second)| x * first + y * second);
            let z: Vec<f32> = mean.iter().zip(along).map(|(mean, d)| (mean + d) as f32).collect();
            decoded.push(explorer.decode(&z)?);
            progress(decoded.len() as u64, (side * side) as u64);
        }
        let single = |numbers: &[f64]| numbers.iter().map(|x| *x as f32).collect();
        let grid = Grid { x, y, decoded };
        let axes = [single(&axes[0]), single(&axes[1])];
        Ok(Self { mean: single(&mean), axes, shares, places, grid })
    }
}

/// As many points as `side` at equal distances from the least to the greatest number.
fn points(numbers: impl Iterator<Item = f64>, side: usize) -> Vec<f64> {
    let (min, max) =
        numbers.fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), x| (min.min(x), max.max(x)));
    if !min.is_finite() || side == 0 {
        return Vec::new();
    }
    let share = |at: usize| at as f64 / (side - 1).max(1) as f64;
    (0..side).map(|at| min + (max - min) * share(at)).collect()
}

/// The rows nearest to one, without it.
fn neighbours(rows: &[Vec<f32>], own: usize) -> Vec<usize> {
    let square = |row: &[f32]| -> f64 {
        row.iter().zip(&rows[own]).map(|(x, y)| f64::from(x - y).powi(2)).sum()
    };
    let mut others: Vec<(f64, usize)> = rows
        .iter()
        .enumerate()
        .filter(|(at, _)| *at != own)
        .map(|(at, row)| (square(row), at))
        .collect();
    others.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    others.into_iter().take(NEIGHBOURS).map(|(_, at)| at).collect()
}

/// The mean of rows of equal length, the two directions of their largest variance, and the share of the variance along
/// each. By power iteration from the row furthest from the mean, so that the same rows give the same axes; the largest
/// number of an axis is positive. Where nothing varies, an axis and its share are 0.
pub fn principal_axes(rows: &[Vec<f32>]) -> (Vec<f64>, [Vec<f64>; 2], [f64; 2]) {
    let len = rows.first().map_or(0, Vec::len);
    let count = rows.len().max(1) as f64;
    let mut mean = vec![0.0; len];
    for row in rows {
        mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x) / count);
    }
    let mut centred: Vec<Vec<f64>> = rows
        .iter()
        .map(|row| row.iter().zip(&mean).map(|(x, mean)| f64::from(*x) - mean).collect())
        .collect();
    let total: f64 = centred.iter().map(|row| dot(row, row)).sum();
    let mut share = 0.0;
    let axes = [(); 2].map(|()| {
        let axis = largest(&centred, total);
        let along: Vec<f64> = centred.iter().map(|row| dot(row, &axis)).collect();
        let of_axis = along.iter().map(|x| x * x).sum::<f64>();
        // What is left for the next axis.
        for (row, along) in centred.iter_mut().zip(along) {
            row.iter_mut().zip(&axis).for_each(|(x, axis)| *x -= along * axis);
        }
        share = if total > 0.0 { of_axis / total } else { 0.0 };
        (axis, share)
    });
    let [(first, a), (second, b)] = axes;
    (mean, [first, second], [a, b])
}

/// The direction of the largest variance of centred rows whose squares sum to at most `total`.
fn largest(rows: &[Vec<f64>], total: f64) -> Vec<f64> {
    let furthest = rows.iter().max_by(|a, b| dot(a, a).total_cmp(&dot(b, b)));
    let mut axis = furthest.cloned().unwrap_or_default();
    for _ in 0..MOST_ITERATIONS {
        let length = dot(&axis, &axis).sqrt();
        // What rounding leaves of rows that an earlier axis explains is no direction.
        if length <= 1e-10 * total.sqrt() {
            return vec![0.0; axis.len()];
        }
        axis.iter_mut().for_each(|x| *x /= length);
        let mut next = vec![0.0; axis.len()];
        for row in rows {
            let along = dot(row, &axis);
            next.iter_mut().zip(row).for_each(|(next, x)| *next += along * x);
        }
        let variance = dot(&next, &axis);
        let off = next.iter().zip(&axis).map(|(next, x)| (next - variance * x).abs());
        if off.fold(0.0, f64::max) <= 1e-9 * variance {
            break;
        }
        axis = next;
    }
    let length = dot(&axis, &axis).sqrt();
    let top = axis.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or(0.0);
    axis.iter().map(|x| x / length * top.signum()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ltm_testkit::{Tol, assert_close};
    use ltm_train::data::{Bytes, Corpus, Order};
    use ltm_train::run_data::open_corpus;

    use super::*;
    use crate::tiny::{config, weights};

    #[test]
    fn axes_are_those_of_the_largest_variance() {
        // Along (3, 4)/5 by 5, across by 1, in two of three dimensions, about (1, 2, 3).
        let rows: Vec<Vec<f32>> = [(5.0, 1.0), (5.0, -1.0), (-5.0, 1.0), (-5.0, -1.0)]
            .map(|(a, b)| vec![1.0 + 0.6 * a - 0.8 * b, 2.0 + 0.8 * a + 0.6 * b, 3.0])
            .into();
        let (mean, axes, shares) = principal_axes(&rows);
        let tol = Tol { abs: 1e-6, rel: 0.0 };
        assert_close(&mean, &[1.0, 2.0, 3.0], tol);
        assert_close(&axes[0], &[0.6, 0.8, 0.0], tol);
        // The largest number is positive.
        assert_close(&axes[1], &[0.8, -0.6, 0.0], tol);
        assert_close(&shares, &[25.0 / 26.0, 1.0 / 26.0], tol);
        assert_eq!(principal_axes(&rows), (mean, axes, shares));
        // What does not vary has no axis, and a line has one.
        let (_, axes, shares) = principal_axes(&[vec![1.0, 1.0], vec![1.0, 1.0]]);
        assert_eq!((axes, shares), ([vec![0.0; 2], vec![0.0; 2]], [0.0; 2]));
        let line = [vec![0.1, 0.3], vec![0.2, 0.6], vec![0.7, 2.1]];
        let (_, axes, shares) = principal_axes(&line);
        assert_close(&shares, &[1.0, 0.0], tol);
        assert_eq!(axes[1], [0.0; 2]);
        assert!(principal_axes(&[]).0.is_empty());
    }

    #[test]
    fn neighbours_are_the_nearest_rows() {
        let rows = [0.0, 1.0, 10.0, 1.5, -3.0].map(|x| vec![x]);
        assert_eq!(neighbours(&rows, 0), [1, 3, 4, 2]);
        assert_eq!(neighbours(&rows, 2), [3, 1, 0, 4]);
    }

    #[test]
    fn a_map_is_of_the_corpus_and_is_decoded() {
        let config = config(4);
        let texts = ["a dog", "the cat", "one more"];
        let corpus = Corpus::from_documents(Arc::new(Bytes), texts).expect("texts");
        let batches = open_corpus(&config, corpus, Order::Sequential).expect("batches");
        let mut explorer =
            Explorer::new(config.clone(), weights(&config), Arc::new(Bytes)).expect("a model");
        let found = Posteriors::fit(&explorer, &batches, 0, &mut |_, _| ()).expect("fitted");
        assert_eq!(found.means.iter().map(Vec::len).collect::<Vec<_>>(), [64; 3]);
        let map = Map::of(&mut explorer, &found, 3, &mut |_, _| ()).expect("decoded");
        assert_eq!(map.places.iter().map(|place| &*place.text).collect::<Vec<_>>(), texts);
        // Two axes hold three points, and their distances.
        assert!((map.shares[0] + map.shares[1] - 1.0).abs() < 1e-6, "{:?}", map.shares);
        let [a, b] = [0, 1].map(|at| map.places[at].at);
        let flat = (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2);
        let full = found.means[0].iter().zip(&found.means[1]);
        let full: f64 = full.map(|(a, b)| f64::from(a - b).powi(2)).sum();
        assert!((flat - full).abs() <= 1e-4 * full, "{flat} {full}");
        // The corner of the grid is what is decoded there.
        let Grid { x, y, decoded } = &map.grid;
        assert_eq!((x.len(), y.len(), decoded.len()), (3, 3, 9));
        let along = map.axes[0].iter().zip(&map.axes[1]);
        let along = along.map(|(a, b)| x[2] * f64::from(*a) + y[0] * f64::from(*b));
        let z = map.mean.iter().zip(along).map(|(m, d)| (f64::from(*m) + d) as f32);
        let z: Vec<f32> = z.collect();
        assert_eq!(decoded[2], explorer.decode(&z).expect("decoded"));
    }
}
