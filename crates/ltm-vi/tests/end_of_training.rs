//! Reported numbers are those of a finished model: every fit for a score, a generation or a probe uses the
//! rate of the end of training and the KL in full, whatever `lr_end` and `kl_warmup` are.

mod tiny;

use ltm_autodiff::Precision;
use ltm_kernels::Device;
use ltm_model::{DeviceWeights, SampleConfig, Weights};
use ltm_vi::probe::Thought;
use ltm_vi::{
    Batch, FastStep, GenerateOptions, InferConfig, InferKey, Inference, LatentSource, LatentUse,
    Latents, Noise, Program, Protocol, Sequences, SlowGradient, generate, score,
};
use tiny::CONFIG;

const KEY: InferKey = InferKey { seed: 2, step: 3, sequences: Sequences::From(0) };
const TEXT: [i32; 6] = [0, 4, 7, 1, 9, 3];

fn weights() -> DeviceWeights {
    let mut weights = Weights::init(&CONFIG, 5).unwrap();
    weights.params.iter_mut().flatten().for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 15.0 });
    DeviceWeights::new(&CONFIG, &weights, &Device::Cpu, Precision::F32).unwrap()
}

fn program() -> (Program, Batch) {
    let (device, precision) = (Device::Cpu, Precision::F32);
    let program = Program::new(&CONFIG, 1, 5, &device, precision, SlowGradient::None).unwrap();
    (program, Batch::new(&CONFIG, 1, &TEXT[..5], &TEXT[1..]).unwrap())
}

/// Every number that is reported of a model: all fits but those of training.
fn reported(infer: &InferConfig) -> [Vec<f64>; 4] {
    let (weights, (mut program, batch)) = (weights(), program());
    let mut problem = program.problem(&weights, &batch).unwrap();
    let inference = Inference::finished(infer).unwrap();
    let prequential = Protocol::Prequential { stride: 2, samples: 2 };
    let prequential =
        score(&mut problem, prequential, &Latents::None, &inference, KEY).unwrap().nats;
    let mut used = LatentUse::new(&CONFIG);
    used.fit(&mut problem, &inference, KEY, &[]).unwrap();
    let evaluated = [used.kl_per_layer(), vec![used.worth().0]].concat();
    let options = GenerateOptions {
        max_tokens: 2,
        sample: SampleConfig::GREEDY,
        latents: LatentSource::Prompt,
        refit: None,
        rethink: None,
        seed: 5,
        stop: None,
        precision: Precision::F32,
    };
    let generation = generate(&CONFIG, &weights, &inference, &TEXT[..4], &options).unwrap();
    let generated = generation.z.iter().map(|z| f64::from(*z)).collect();
    let thought = Thought::fit(&weights, &CONFIG, &inference, &TEXT, 5, Precision::F32).unwrap();
    [prequential, evaluated, generated, thought.z.iter().map(|z| f64::from(*z)).collect()]
}

#[test]
fn fits_of_a_finished_model_are_at_the_end_of_training() {
    let start = InferConfig {
        steps: 4,
        lr: 0.05,
        lr_end: None,
        noise: Noise::Fresh,
        ..InferConfig::published()
    };
    let end = InferConfig { lr: 0.4, ..start };
    let expected = reported(&end);
    let (at_start, whole) =
        (reported(&start), reported(&InferConfig { lr_end: Some(end.lr), ..start }));
    for (i, (found, expected)) in whole.iter().zip(&expected).enumerate() {
        assert_eq!(found, expected, "number {i} does not follow lr_end");
        assert_ne!(found, &at_start[i], "number {i} does not depend on the rate");
    }
    let warmed = reported(&InferConfig { kl_warmup: 1.0, ..end });
    assert_eq!(warmed, expected, "a KL warm-up changes reported numbers");
}

/// During the warm-up the objective counts less of the KL, and what is reported of a step all of it.
#[test]
fn a_step_reports_the_whole_kl_during_the_warmup() {
    let infer = InferConfig { kl_warmup: 0.5, steps: 3, ..InferConfig::published() };
    let (weights, (mut program, batch)) = (weights(), program());
    let mut problem = program.problem(&weights, &batch).unwrap();
    let mut steps: Vec<FastStep> = Vec::new();
    let mut observer = |step: &FastStep| {
        steps.push(step.clone());
        Ok(())
    };
    let inference = Inference::at(&infer, 0.0).unwrap();
    let latents = inference.infer(&mut problem, KEY, &mut observer).unwrap();
    for step in &steps {
        let kl: f64 = step.kl_per_layer.iter().sum();
        assert!(kl > 1.0, "{step:?}");
        assert_eq!(step.bound, step.nll + kl);
    }
    // So does a bound at the fit.
    let kl = latents.gaussian().unwrap().to_host().unwrap().kl(1).unwrap()[0];
    let fitted = Protocol::ElboFittedNoise;
    let bound = score(&mut problem, fitted, &latents, &inference, KEY).unwrap().nats[0];
    let nll: f64 = problem.token_nll(&latents).unwrap().iter().sum();
    assert_eq!(bound, nll + kl);
}
