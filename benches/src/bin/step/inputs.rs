//! What an iteration starts from, seeded, and its files for a peer. Knows nothing of gradients.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use bytemuck::cast_slice;
use ltm_kernels::ops::cross_entropy::IGNORED;
use ltm_model::{Init, Weights, param_table};
use ltm_testkit::seeded;
use ltm_train::Config;
use ltm_train::data::Batch;
use ltm_vi::{Gaussian, Posterior, Program, SlowGradient};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;

/// A model, a batch and a posterior.
pub struct Inputs {
    pub config: Config,
    pub batch: Batch,
    /// For the comparison of gradients; an iteration draws its own.
    pub posterior: Posterior,
}

impl Inputs {
    /// The model of a configuration file in `f32` or `mixed`, with `b` sequences of `t` tokens in one micro-batch.
    pub fn new(config: &Path, b: usize, t: usize, precision: &str) -> Result<Self> {
        let precision = format!("run.precision=\"{precision}\"");
        let shape = [format!("train.batch={b}"), format!("train.seq_len={t}"), precision];
        let overrides = [&shape[..], &["train.micro_batches=1".into()]].concat();
        let config = Config::load(config, &overrides)?;
        let vocabulary = config.model.vocab_size;
        let ids = |seed| {
            let below = |x: f64| ((x.abs() * 1e6) as usize % vocabulary) as i32;
            seeded(seed, b * t).into_iter().map(below).collect::<Vec<_>>()
        };
        let (tokens, mut targets) = (ids(1000), ids(1001));
        targets[0] = IGNORED;
        let (numbers, documents) = ((0..b as u64).collect(), vec![None; b]);
        let (scored, context) = (b * t - 1, vec![0; b]);
        let batch = Batch { tokens, targets, context, numbers, documents, rows: b, scored };
        let normal = |seed, mean: f32, std: f32| {
            let numbers = seeded(seed, b * config.model.n_latents * config.model.dim);
            numbers.into_iter().map(|x| mean + std * x as f32).collect::<Vec<_>>()
        };
        let posterior = Posterior {
            mu: normal(1002, 0.0, 0.5),
            log_var: normal(1003, -1.0, 0.5),
            noise: normal(1004, 0.0, 1.0),
            factor: None,
        };
        Ok(Self { config, batch, posterior })
    }

    /// The model traced for the batch.
    pub fn program(&self) -> Result<Program> {
        let Config { model, run, train, .. } = &self.config;
        let (device, precision) = run.compute()?;
        let (b, t) = (train.batch, train.seq_len);
        Ok(Program::new(model, b, t, &device, precision, SlowGradient::Final)?)
    }

    /// The batch, checked.
    pub fn rows(&self) -> Result<ltm_vi::Batch> {
        let Batch { tokens, targets, rows, .. } = &self.batch;
        Ok(ltm_vi::Batch::new(&self.config.model, *rows, tokens, targets)?)
    }

    /// The posterior on its device.
    pub fn gaussian(&self) -> Result<Gaussian> {
        let (device, precision) = self.config.run.compute()?;
        Ok(Gaussian::new(&self.posterior, &device, precision.float)?)
    }

    /// The weight of each target in the mean.
    pub fn token_weight(&self) -> Vec<f32> {
        vec![1.0 / self.batch.scored as f32; self.batch.targets.len()]
    }

    /// The weights, generated again, so that no copy takes memory next to a learner's.
    pub fn weights(&self) -> Result<Weights> {
        let config = &self.config;
        let mut weights = Weights::init(&config.model, config.run.seed)?;
        for (i, (spec, values)) in
            param_table(&config.model).iter().zip(&mut weights.params).enumerate()
        {
            // Norms start at 1: a peer that leaves them out must show.
            if spec.init == Init::Ones {
                let noise = seeded(i as u64, values.len());
                values.iter_mut().zip(noise).for_each(|(value, x)| *value += 0.1 * x as f32);
            }
        }
        Ok(weights)
    }

    /// Writes `setup.json` and `inputs.safetensors`: weights under their names, batch and posterior.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let Config { model, infer, train, .. } = &self.config;
        let setup = json!({ "model": model, "infer": infer, "train": train });
        let path = folder.join("setup.json");
        std::fs::write(&path, setup.to_string()).with_context(|| path.display().to_string())?;

        let (b, t) = (train.batch, train.seq_len);
        let weights = self.weights()?;
        let mut tensors = BTreeMap::new();
        let mut insert = |name: &str, dtype, shape: &[usize], bytes| {
            let view = TensorView::new(dtype, shape.to_vec(), bytes)?;
            tensors.insert(name.to_owned(), view);
            anyhow::Ok(())
        };
        for (spec, values) in param_table(model).iter().zip(&weights.params) {
            insert(&spec.name, Dtype::F32, &spec.shape, cast_slice(values))?;
        }
        for (name, ids) in [("tokens", &self.batch.tokens), ("targets", &self.batch.targets)] {
            insert(name, Dtype::I32, &[b, t], cast_slice(ids))?;
        }
        let Posterior { mu, log_var, noise, .. } = &self.posterior;
        for (name, values) in [("mu", mu), ("log_var", log_var), ("noise", noise)] {
            insert(name, Dtype::F32, &[b, model.n_latents, model.dim], cast_slice(values))?;
        }
        let path = folder.join("inputs.safetensors");
        safetensors::serialize_to_file(&tensors, None, &path)
            .with_context(|| path.display().to_string())
    }
}
