//! Everything that is looked at, in one value.

use ltm_train::Config;
use ltm_train::data::{Batches, Corpus, Order, SharedTokenizer, storyworld};
use ltm_train::run_data::{open_corpus, open_val};
use ltm_vi::probe::between;
use serde::Serialize;

use super::{Carried, Changed, Exploration, Explorer, Map, Posteriors};
use crate::Result;
use crate::suites::stories::are_stories;
use crate::text::decode;

/// Points between two texts, both included.
const BETWEEN: usize = 9;

/// What is to be looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// What the model is called.
    pub name: String,
    /// Texts to fit.
    pub texts: Vec<String>,
    /// The seed of the fits.
    pub seed: u64,
    /// Texts on the map; 0 for none, and no facts.
    pub places: u64,
    /// Texts decoded along each axis of the map.
    pub grid: usize,
}

/// A model, looked into.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Document {
    /// The model.
    pub about: About,
    /// The texts, each with its fit.
    pub texts: Vec<Exploration>,
    /// For each text, what its latents say when they are changed.
    pub changes: Vec<Vec<Changed>>,
    /// Texts between any two.
    pub between: Vec<Between>,
    /// A map of held-out texts.
    pub map: Option<Map>,
    /// On generated stories, the facts that each latent carries.
    pub facts: Option<Vec<Carried>>,
}

/// A model in a few numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct About {
    /// What it is called.
    pub name: String,
    /// Trained numbers.
    pub parameters: usize,
    /// Layers, `L`.
    pub n_layers: usize,
    /// Latents of a layer, `Z`.
    pub latents_per_layer: usize,
    /// Numbers of a latent, `C`.
    pub dim: usize,
    /// The most tokens of a text.
    pub context: usize,
    /// Tokens that a layer reads; what is further back than all layers span, latents alone carry.
    pub window: usize,
    /// The prior's mean, `(L·Z,C)`.
    pub prior_mean: Vec<f32>,
    /// A sample of the prior, `(L·Z,C)`.
    pub prior_sample: Vec<f32>,
}

/// What is decoded between two texts, at equal distances on the line between their means.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Between {
    /// The first text's place.
    pub from: usize,
    /// The second's.
    pub to: usize,
    /// The texts, those at both means included.
    pub decoded: Vec<String>,
}

impl About {
    /// The model of an explorer, and a sample of its prior.
    ///
    /// # Errors
    /// Those of [`Explorer::prior_sample`].
    pub fn of(explorer: &Explorer, name: &str, seed: u64) -> Result<Self> {
        let model = &explorer.config().model;
        Ok(Self {
            name: name.into(),
            parameters: model.param_count(),
            n_layers: model.n_layers,
            latents_per_layer: model.latents_per_layer(),
            dim: model.dim,
            context: model.max_seq_len,
            window: model.window,
            prior_mean: explorer.prior_mean().to_vec(),
            prior_sample: explorer.prior_sample(seed)?,
        })
    }
}

impl Document {
    /// Looks at all that is wanted; the map is of rows of `held_out`. `progress(what, done, all)` counts each part.
    ///
    /// # Errors
    /// Those of [`Explorer::explore`] and of the corpus.
    pub fn of(
        explorer: &mut Explorer,
        wanted: &Wanted,
        held_out: Option<&Batches>,
        progress: &mut dyn FnMut(&str, u64, u64),
    ) -> Result<Self> {
        let Wanted { name, texts, seed, places, grid } = wanted;
        let all = texts.len() as u64;
        let mut explored = Vec::with_capacity(texts.len());
        for text in texts {
            explored.push(explorer.explore(text, *seed, &mut |_| Ok(()))?);
            progress("texts", explored.len() as u64, all);
        }
        let mut changes = Vec::with_capacity(texts.len());
        for own in 0..explored.len() {
            let of_text = explorer.changes(&explored, own, &mut |done, all| {
                progress("changes", done, all);
            })?;
            changes.push(of_text);
        }
        let between = Between::all(explorer, &explored)?;
        let (mut map, mut facts) = (None, None);
        if let Some(batches) = held_out.filter(|_| *places > 0) {
            let fitted = Posteriors::fit(explorer, batches, *places, &mut |done, all| {
                progress("posteriors", done, all);
            })?;
            if are_stories(&**explorer.tokenizer()) {
                facts = Some(Carried::of(&fitted, explorer.config().model.dim));
            }
            map = Some(Map::of(explorer, &fitted, *grid, &mut |done, all| {
                progress("map", done, all);
            })?);
        }
        let about = About::of(explorer, name, *seed)?;
        Ok(Self { about, texts: explored, changes, between, map, facts })
    }
}

impl Between {
    fn all(explorer: &mut Explorer, texts: &[Exploration]) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for to in 0..texts.len() {
            for from in 0..to {
                let at = |point: usize| {
                    let share = point as f32 / (BETWEEN - 1) as f32;
                    explorer.decode(&between(&texts[from].mu, &texts[to].mu, share)?)
                };
                let decoded = (0..BETWEEN).map(at).collect::<Result<_>>()?;
                all.push(Self { from, to, decoded });
            }
        }
        Ok(all)
    }
}

/// Texts that a model was not trained on: of generated stories `most` fresh ones, which need no corpus in the run's folder,
/// otherwise the validation split of the run's files. `None` without one.
///
/// # Errors
/// Those of the corpus.
pub fn held_out(
    config: &Config,
    tokenizer: &SharedTokenizer,
    most: u64,
) -> Result<Option<Batches>> {
    if config.data.path.is_some() {
        return Ok(open_val(config, Some(tokenizer))?);
    }
    if !are_stories(&**tokenizer) {
        return Ok(None);
    }
    // After those of both splits.
    let first = config.data.documents.saturating_add(config.data.val_documents);
    let stories = (first..first.saturating_add(most.max(1)))
        .flat_map(|index| storyworld::sample(config.run.seed, index).tokens);
    let corpus = Corpus::from_tokens(tokenizer.clone(), stories)?;
    Ok(Some(open_corpus(config, corpus, Order::Sequential)?))
}

/// The first texts of a corpus, each up to its first separator, for a page to begin with.
///
/// # Errors
/// Those of the corpus.
pub fn demo_texts(
    batches: &Batches,
    tokenizer: &SharedTokenizer,
    count: usize,
) -> Result<Vec<String>> {
    let (mut texts, separator) = (Vec::new(), tokenizer.separator() as i32);
    for index in 0..batches.per_epoch() {
        let rows = batches.batch(index)?;
        let t = rows.targets.len() / batches.options().batch;
        for row in rows.targets.chunks(t).take(rows.rows) {
            let end = row.iter().position(|id| *id < 0 || *id == separator).unwrap_or(t);
            let text = decode(&**tokenizer, &row[..end]);
            if texts.len() < count && !text.trim().is_empty() && !texts.contains(&text) {
                texts.push(text);
            }
        }
        if texts.len() >= count {
            break;
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ltm_train::data::Bytes;

    use super::*;
    use crate::tiny::{config, weights};

    #[test]
    fn a_document_has_all_that_is_wanted() {
        let config = config(4);
        let mut explorer =
            Explorer::new(config.clone(), weights(&config), Arc::new(Bytes)).expect("a model");
        let wanted = Wanted {
            name: "tiny".into(),
            texts: ["a dog", "the cat", "one"].map(String::from).into(),
            seed: 3,
            places: 2,
            grid: 2,
        };
        let corpus = Corpus::from_documents(Arc::new(Bytes), ["x y", "z"]).expect("texts");
        let batches = open_corpus(&config, corpus, Order::Sequential).expect("batches");
        let mut parts = Vec::new();
        let mut progress = |part: &str, done: u64, all: u64| {
            if done == all {
                parts.push(part.to_owned());
            }
        };
        let found = Document::of(&mut explorer, &wanted, Some(&batches), &mut progress);
        let found = found.expect("looked at");
        let expected = ["texts", "changes", "changes", "changes", "posteriors", "map"];
        assert_eq!(parts, expected);
        let pairs: Vec<_> = found.between.iter().map(|b| (b.from, b.to)).collect();
        assert_eq!(pairs, [(0, 1), (0, 2), (1, 2)]);
        // The line begins and ends at the texts.
        let [first, last] = [0, BETWEEN - 1].map(|at| &found.between[2].decoded[at]);
        assert_eq!([first, last], [&found.texts[1].decoded, &found.texts[2].decoded]);
        assert_eq!((found.changes.len(), found.changes[2].len()), (3, 6 * 5));
        assert_eq!(found.map.as_ref().map(|map| map.places.len()), Some(2));
        assert!(found.facts.is_none(), "bytes are no stories");
        assert_eq!((found.about.latents_per_layer, found.about.n_layers), (2, 2));
        serde_json::to_string(&found).expect("plain data");
        let none = Wanted { places: 0, texts: Vec::new(), ..wanted };
        let found = Document::of(&mut explorer, &none, Some(&batches), &mut |_, _, _| ());
        assert!(found.expect("looked at").map.is_none());
    }

    #[test]
    fn held_out_stories_are_of_neither_split() {
        let mut config = config(4);
        config.train.seq_len = storyworld::MAX_TOKENS;
        let tokenizer = storyworld::tokenizer();
        let found = held_out(&config, &tokenizer, 3).expect("drawn").expect("stories");
        let texts = demo_texts(&found, &tokenizer, 2).expect("texts");
        // 64 to train on and 8 to validate on.
        let expected = [72, 73].map(|index| {
            let tokens = storyworld::sample(config.run.seed, index).tokens;
            tokenizer.decode(&tokens[..tokens.len() - 1])
        });
        assert_eq!(texts, expected);
        assert_eq!(found.rows(), 3);
        let bytes: SharedTokenizer = Arc::new(Bytes);
        assert!(held_out(&config, &bytes, 3).expect("nothing is written").is_none());
    }
}
