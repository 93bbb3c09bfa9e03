//! Interventions on the latents: texts reconstructed from the first layers alone, and latents between two texts.
//! Trains nothing.

use ltm_model::{Decoder, DeviceWeights};
use ltm_train::Config;
use ltm_train::data::{Batch as Rows, Batches, Tokenizer};
use ltm_train::eval::KEY_STEP;
use ltm_vi::probe::{
    LayerReconstruction, Thought, between, decode_greedily, progressive, swap_layer,
};
use ltm_vi::{Batch, InferKey, Inference, Problem, Program, Sequences, SlowGradient};
use serde::Serialize;

use crate::text::{check_length, decode, encode};
use crate::think::no_latents;
use crate::{Error, Result};

#[cfg(feature = "charts")]
pub use self::drawn::draw;

/// Reconstructs [`sequences` rows](Batches::sample) of a corpus (0 for all) from the latents of the first 0, 1, … `L` layers:
/// one entry for each number of layers.
///
/// Latents are the means of the fitted posterior; those of later layers are the prior's mean. Each token is predicted
/// from the true tokens before it. `progress(done, all)` counts batches.
///
/// # Errors
/// [`Error::Field`] for a model without latents, [`Error::Infer`] and those of the corpus.
pub fn reconstruct(
    config: &Config,
    weights: &DeviceWeights,
    batches: &Batches,
    sequences: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<LayerReconstruction>> {
    let model = &config.model;
    let mut decoder = Decoder::with_weights(*model, weights.clone(), batches.options().batch)?;
    let mut scores = vec![LayerReconstruction::default(); model.n_layers + 1];
    each_fit(config, weights, batches, sequences, progress, &mut |_, problem, mu| {
        let found = progressive(problem, model, &mut decoder, mu)?;
        scores.iter_mut().zip(found).for_each(|(scores, found)| scores.extend(found));
        Ok(())
    })?;
    Ok(scores)
}

/// What is done with a batch: its rows, the problem of it, and the centres of its latents, `(B,L·Z,C)`.
pub(crate) type OnFit<'f> = dyn FnMut(&Rows, &mut Problem<'_>, &[f32]) -> Result<()> + 'f;

/// Fits latents to [`sequences` rows](Batches::sample) of a corpus (0 for all), batch by batch.
pub(crate) fn each_fit(
    config: &Config,
    weights: &DeviceWeights,
    batches: &Batches,
    sequences: u64,
    progress: &mut dyn FnMut(u64, u64),
    on_fit: &mut OnFit<'_>,
) -> Result<()> {
    let model = &config.model;
    if model.n_latents == 0 {
        return Err(no_latents());
    }
    let (device, precision) = config.run.compute_evaluation()?;
    let (b, t) = (batches.options().batch, batches.options().seq_len);
    let inference = Inference::finished(&config.infer)?;
    let mut program = Program::new(model, b, t, &device, precision, SlowGradient::None)?;
    let batches = batches.sample(sequences)?;
    let all = batches.per_epoch();
    progress(0, all);
    for index in 0..all {
        let rows = batches.batch(index)?;
        let sequences = Sequences::These(&rows.numbers);
        let key = InferKey { seed: config.run.seed, step: KEY_STEP, sequences };
        let batch = Batch::new(model, b, &rows.tokens, &rows.targets)?;
        let mut problem = program.problem(weights, &batch)?;
        let mu = inference.infer(&mut problem, key, &mut |_| Ok(()))?.center()?;
        on_fit(&rows, &mut problem, &mu)?;
        progress(index + 1, all);
    }
    Ok(())
}

/// Two texts with their fitted latents.
pub struct Pair<'a> {
    tokenizer: &'a dyn Tokenizer,
    config: &'a Config,
    from: Thought,
    to: Thought,
    decoder: Decoder,
}

/// Latents made of those of two texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// How they were made, in words.
    pub name: String,
    /// The latents, `(L·Z,C)`.
    pub z: Vec<f32>,
}

/// What the model makes of a [`Place`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    /// The place's name.
    pub at: String,
    /// Nats per token of the first text.
    pub nll_from: f64,
    /// Nats per token of the second text.
    pub nll_to: f64,
    /// The text that is generated greedily.
    pub text: String,
}

impl<'a> Pair<'a> {
    /// Fits latents to both texts.
    ///
    /// # Errors
    /// [`Error::Field`] for a model without latents, and for a text, `from` or `to`, of no token or more than the context
    /// holds; those of the tokenizer and of the fit.
    pub fn fit(
        config: &'a Config,
        weights: &DeviceWeights,
        tokenizer: &'a dyn Tokenizer,
        [from, to]: [&str; 2],
        seed: u64,
    ) -> Result<Self> {
        let model = &config.model;
        if model.n_latents == 0 {
            return Err(no_latents());
        }
        let (_, precision) = config.run.compute_evaluation()?;
        let inference = Inference::finished(&config.infer)?;
        let fit = |name: &str, text: &str| -> Result<Thought> {
            let tokens = encode(tokenizer, text)?;
            check_length(name, &tokens, model.max_seq_len)?;
            Ok(Thought::fit(weights, model, &inference, &tokens, seed, precision)?)
        };
        let (from, to) = (fit("from", from)?, fit("to", to)?);
        let decoder = Decoder::with_weights(*model, weights.clone(), 1)?;
        Ok(Self { tokenizer, config, from, to, decoder })
    }

    /// As many places as `steps`, at equal distances on the line between both latents, which are the first and the last.
    ///
    /// # Errors
    /// [`Error::Field`] for fewer than two.
    pub fn between(&self, steps: usize) -> Result<Vec<Place>> {
        if steps < 2 {
            return Err(Error::field("steps", "at least 2", steps));
        }
        let place = |step: usize| {
            let share = step as f32 / (steps - 1) as f32;
            let z = between(&self.from.z, &self.to.z, share)?;
            Ok(Place { name: format!("{:.0} %", 100.0 * share), z })
        };
        (0..steps).map(place).collect()
    }

    /// Both latents, and both again with the latents of one layer, counted from 1, exchanged; without a layer, for each
    /// layer in turn.
    ///
    /// # Errors
    /// [`Error::Field`] for a layer that the model does not have.
    pub fn swapped(&self, layer: Option<usize>) -> Result<Vec<Place>> {
        let n_layers = self.config.model.n_layers;
        let layers = match layer {
            Some(layer) if (1..=n_layers).contains(&layer) => layer..=layer,
            Some(layer) => return Err(Error::field("layer", format!("1 to {n_layers}"), layer)),
            None => 1..=n_layers,
        };
        let (from, to) = (&self.from.z, &self.to.z);
        let mut places: Vec<Place> = [("from", from), ("to", to)]
            .map(|(name, z)| Place { name: name.into(), z: z.clone() })
            .into();
        for layer in layers {
            for (name, own, other) in [("from", from, to), ("to", to, from)] {
                let z = swap_layer(&self.config.model, own, other, layer - 1)?;
                places.push(Place { name: format!("{name}, layer {layer} of the other"), z });
            }
        }
        Ok(places)
    }

    /// The NLL of both texts at a place, and at most `max_tokens` tokens that are generated there.
    ///
    /// # Errors
    /// [`Error::Infer`] for latents of another length.
    pub fn at(&mut self, place: &Place, max_tokens: usize) -> Result<Found> {
        let separator = self.tokenizer.separator() as i32;
        let (context, z) = (self.config.model.max_seq_len, &place.z);
        let nll_from = self.from.nats_per_token_at(z)?;
        let nll_to = self.to.nats_per_token_at(z)?;
        let tokens =
            decode_greedily(&mut self.decoder, context, z, &[separator], max_tokens, separator)?;
        let text = decode(self.tokenizer, &tokens);
        Ok(Found { at: place.name.clone(), nll_from, nll_to, text })
    }
}

#[cfg(feature = "charts")]
mod drawn {
    //! The charts of a reconstruction.

    use std::path::{Path, PathBuf};

    use ltm_vi::probe::LayerReconstruction;

    use crate::Result;
    use crate::charts::{Axis, Chart, Mark, PLOTS, Series};

    /// Two charts over the number of layers, accuracy and NLL, in a run's folder; returns their files.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) and [`Error::Plot`](crate::Error::Plot).
    pub fn draw(run_dir: &Path, scores: &[LayerReconstruction]) -> Result<Vec<PathBuf>> {
        let dir = run_dir.join(PLOTS);
        ltm_files::create_dir(&dir)?;
        let accuracy = LayerReconstruction::accuracy as fn(&_) -> _;
        let nats = LayerReconstruction::nats_per_token as fn(&_) -> _;
        let mut paths = Vec::new();
        for (file, y_label, scale, of) in [
            ("layers-accuracy.svg", "accuracy, %", 100.0, accuracy),
            ("layers-nll.svg", "NLL, nats per token", 1.0, nats),
        ] {
            let mark = |(layers, scores): (usize, &LayerReconstruction)| -> ltm_vi::Result<Mark> {
                let (y, error) = of(scores)?;
                Ok(Mark { x: layers as f64, y: scale * y, error: scale * error })
            };
            let marks = scores.iter().enumerate().map(mark).collect::<ltm_vi::Result<_>>()?;
            let chart = Chart {
                title: "Progressive reconstruction".into(),
                x_label: "layers whose latents are used".into(),
                y_label: y_label.into(),
                axis: Axis::Values((0..scores.len()).map(|layers| layers as f64).collect()),
                series: vec![Series { name: "validation".into(), marks, dots: true }],
                levels: Vec::new(),
                size: (540, 360),
            };
            let path = dir.join(file);
            chart.write(&path)?;
            paths.push(path);
        }
        Ok(paths)
    }
}

#[cfg(test)]
mod tests {
    use ltm_testkit::{Tol, assert_close};
    use ltm_train::data::{Bytes, Corpus, Order};
    use ltm_train::run_data::open_corpus;

    use super::*;
    use crate::tiny::{config, weights};

    fn pair<'a>(config: &'a Config, texts: [&str; 2]) -> Result<Pair<'a>> {
        Pair::fit(config, &weights(config), &Bytes, texts, 3)
    }

    #[test]
    fn places_begin_and_end_at_the_texts_own_latents() {
        let config = config(4);
        let mut pair = pair(&config, ["a dog", "the cat"]).expect("fitted");
        let line = pair.between(3).expect("three places");
        let names: Vec<&str> = line.iter().map(|place| place.name.as_str()).collect();
        assert_eq!(names, ["0 %", "50 %", "100 %"]);
        let swapped = pair.swapped(Some(2)).expect("both, and layer 2 exchanged");
        assert_eq!((&swapped[0].z, &swapped[1].z), (&line[0].z, &line[2].z));
        // The last of the two layers has the second half of the numbers.
        let [own, other, mixed] = [0, 1, 2].map(|i| &swapped[i].z);
        assert_eq!((&mixed[..32], &mixed[32..]), (&own[..32], &other[32..]));
        assert_eq!(pair.swapped(None).expect("each layer").len(), 6);
        let found = pair.at(&line[0], 4).expect("scored");
        let nll = pair.from.nats_per_token_at(&line[0].z).expect("scored");
        assert_eq!((found.at.as_str(), found.nll_from), ("0 %", nll));
    }

    #[test]
    fn what_cannot_be_probed_is_refused_by_its_name() {
        let (with, without) = (config(4), config(0));
        let field = |error: Error| match error {
            Error::Field { field, .. } => field,
            other => panic!("{other}"),
        };
        let fitted = pair(&with, ["a", "b"]).expect("fitted");
        let long = "x".repeat(25);
        for (refused, expected) in [
            (pair(&with, ["", "b"]).err(), "from"),
            (pair(&with, ["a", &long]).err(), "to"),
            (pair(&without, ["a", "b"]).err(), "model.n_latents"),
            (fitted.between(1).err(), "steps"),
            (fitted.swapped(Some(0)).err(), "layer"),
            (fitted.swapped(Some(3)).err(), "layer"),
        ] {
            assert_eq!(refused.map(field).as_deref(), Some(expected));
        }
    }

    #[test]
    fn only_the_requested_rows_are_reconstructed() {
        let config = config(4);
        let texts = ["a dog", "the cat", "one more"];
        let corpus = Corpus::from_documents(std::sync::Arc::new(Bytes), texts).expect("texts");
        let batches = open_corpus(&config, corpus, Order::Sequential).expect("batches");
        let weights = weights(&config);
        let of = |rows| reconstruct(&config, &weights, &batches, rows, &mut |_, _| ());
        let all = of(0).expect("scored");
        assert_eq!(all.len(), 3, "without latents, with those of one layer and of both");
        // Each document's tokens and the separator after them.
        assert_eq!(all[2].tokens, [6, 8, 9]);
        // One row is drawn by the permutation.
        let one = of(1).expect("scored");
        let drawn = all[2].tokens.iter().position(|tokens| *tokens == one[2].tokens[0]);
        let drawn = all[2].nll[drawn.expect("one of them")];
        assert_close(&one[2].nll, &[drawn], Tol { abs: 0.0, rel: 0.0 });
    }
}
