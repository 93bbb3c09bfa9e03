//! Evaluations as a whole: overlapping windows, bytes, sequences, and the fits behind the numbers.

use std::path::Path;

use ltm_model::Weights;
use ltm_testkit::{Tol, assert_close};
use ltm_train::data::{Batches, Split};
use ltm_train::eval::convergence;
use ltm_train::{Checkpoint, Config, Error, Evaluation, Run, Start, evaluate, run_data};
use ltm_vi::StartKind;

/// A hundred sums in double precision, one after the other.
const DOUBLE: Tol = Tol { abs: 0.0, rel: 1e-12 };

/// The smallest configuration, with these changes, and its validation split.
fn tiny(dir: &Path, set: &[&str]) -> (Config, Batches) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tiny.toml");
    let run = format!("run.dir={}", dir.join("run").display());
    let set: Vec<String> = set.iter().chain([&run.as_str()]).map(ToString::to_string).collect();
    let config = Config::load(&file, &set).expect("a good configuration");
    let batches = run_data::open(&config, Split::Val).expect("a corpus");
    (config, batches)
}

fn scores(
    (config, batches): &(Config, Batches),
    weights: &Weights,
    protocols: &[&str],
    sequences: u64,
) -> Evaluation {
    let protocols: Vec<_> = protocols.iter().map(|name| name.parse().expect("a name")).collect();
    let mut seen = Vec::new();
    let mut progress = |done, all| seen.push((done, all));
    let weights = config.on_device(weights).expect("they fit");
    let evaluation = evaluate(config, &weights, batches, &protocols, sequences, &mut progress);
    let all = seen[0].1;
    assert!(all >= protocols.len() as u64);
    assert!(
        seen.into_iter().eq((0..=all).map(|done| (done, all))),
        "each score moves the bar once"
    );
    evaluation.expect("scores")
}

/// A token of this text is known from the two before it and not from one, so that a row's first is
/// worth its context.
#[test]
fn context_pays_where_windows_overlap() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let data = temp.path().join("data");
    std::fs::create_dir(&data).expect("writable");
    std::fs::write(data.join("meta.json"), r#"{"tokenizer": {"name": "bytes"}}"#).expect("written");
    for (name, triples) in [("train.bin", 200), ("val.bin", 33)] {
        let tokens = b"aab".repeat(triples);
        let ids: Vec<u8> = tokens.iter().flat_map(|byte| u16::from(*byte).to_le_bytes()).collect();
        std::fs::write(data.join(name), ids).expect("written");
    }
    let path = format!("data.path={}", data.display());
    let run = tiny(
        temp.path(),
        &[
            &path,
            "model.n_latents=0",
            "train.seq_len=4",
            "train.batch=8",
            "train.micro_batches=1",
            "train.steps=200",
            "train.lr=3e-3",
            "train.eval_every=0",
            "train.checkpoint_every=200",
        ],
    );
    let mut training = Run::new(run.0.clone(), Start::Fresh).expect("a run");
    let end = training.run(&mut ()).expect("trained");
    let weights = Checkpoint::load(&end.checkpoint).expect("saved").weights;
    let names = [
        "autoregressive",
        "autoregressive-overlap:4",
        "autoregressive-overlap:2",
        "autoregressive-overlap:1",
        "prequential-overlap:1",
    ];
    for sequences in [0, 5] {
        let found = scores(&run, &weights, &names, sequences);
        // Of rows that overlap, 5 of 25 are a fifth.
        let expected = if sequences == 0 { 99..=99 } else { 18..=23 };
        let nats: Vec<f64> = found.estimates.iter().map(|e| e.mean_nats_per_token).collect();
        for estimate in &found.estimates {
            assert!(expected.contains(&estimate.tokens), "{estimate:?}");
            assert_eq!(found.bytes(estimate.protocol), estimate.tokens, "{}", estimate.protocol);
        }
        assert_eq!(nats[0], nats[1], "windows that only touch");
        // A first token in three rows is `b` after `a`, or `a` after `a`: about ln 2 in two of twelve.
        assert!(nats[2] < nats[0] - 0.05 && nats[3] < nats[0] - 0.05, "{nats:?}");
        assert_eq!(nats[3], nats[4], "without latents there is nothing to fit");
        assert!(found.latents.is_none());
    }
}

#[test]
fn sequences_add_up_to_the_estimates() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let run = tiny(temp.path(), &["train.seq_len=32", "infer.steps=2"]);
    let weights = Weights::init(&run.0.model, 3).expect("weights");
    let names = ["elbo:2", "prequential-overlap:16:1", "reconstruction", "prequential:16:2"];
    let found = scores(&run, &weights, &names, 0);
    let meta = run.1.corpus().meta().expect("a sidecar");
    for estimate in &found.estimates {
        let (protocol, stride) = (estimate.protocol, estimate.protocol.overlap());
        let scored: Vec<_> = found.sequences.iter().filter(|one| one.stride == stride).collect();
        assert_eq!(scored.iter().map(|one| one.tokens as u64).sum::<u64>(), meta.tokens);
        assert_eq!(found.bytes(protocol) as u64, meta.bytes, "{protocol}");
        let of = |one: &&ltm_train::eval::Sequence| {
            *one.scores.iter().find(|score| score.protocol == protocol).expect("a score")
        };
        let nats: Vec<f64> = scored.iter().map(|one| of(one).nats).collect();
        assert_eq!(nats, estimate.per_sequence);
        let variance: f64 = scored.iter().map(|one| of(one).sampling_error.powi(2)).sum();
        // Sums of the same numbers in double precision; NaN on both sides for single samples.
        if estimate.sampling_error.is_nan() {
            assert!(variance.is_nan(), "{protocol}");
        } else {
            let error = variance.sqrt() / meta.tokens as f64;
            assert_close(&[error], &[estimate.sampling_error], DOUBLE);
        }
        let bits = nats.iter().sum::<f64>() / std::f64::consts::LN_2;
        let bits_per_byte = found.bits_per_byte(estimate).expect("text");
        assert_close(&[bits_per_byte], &[bits / meta.bytes as f64], DOUBLE);
        assert_eq!(scored.iter().all(|one| one.kl.is_some()), stride.is_none());
        // Stories are longer than these rows: each is one sequence, which begins where the one before ends.
        assert!(scored.iter().map(|one| one.document).eq((0..8).map(Some)));
        let ends = scored.iter().scan(0, |end, one| {
            *end += one.rows as u64;
            Some(*end)
        });
        let ends: Vec<u64> = ends.collect();
        assert!(scored[1..].iter().map(|one| one.index).eq(ends[..7].iter().copied()));
        let rows = match stride {
            None => run.1.rows(),
            Some(stride) => run.1.overlapping(stride).expect("a good stride").rows(),
        };
        assert_eq!((ends[7], rows > 8), (rows, true));
    }
    let latents = found.latents.as_ref().expect("a fit");
    let kl: Vec<f64> = found.sequences.iter().filter_map(|one| one.kl).collect();
    let mean = kl.iter().sum::<f64>() / kl.len() as f64;
    assert_eq!(latents.sequences(), kl.len());
    for kl in [latents.kl_per_layer(), latents.kl_per_latent()] {
        assert_close(&[kl.iter().sum::<f64>()], &[mean], DOUBLE);
    }
    // Without a protocol that asks for it, no row is fitted whole, and the others are what they were.
    let fewer = scores(&run, &weights, &names[1..2], 0);
    assert!(fewer.latents.is_none() && fewer.sequences.iter().all(|one| one.kl.is_none()));
    assert_eq!(fewer.estimates[0].per_sequence, found.estimates[1].per_sequence);
}

/// Rows of one document are not independent: its sum is one number of the standard error.
#[test]
fn a_document_of_many_rows_is_one_sequence() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let set = ["train.seq_len=16", "infer.steps=1"];
    let run = tiny(&temp.path().join("documents"), &set);
    let weights = Weights::init(&run.0.model, 3).expect("weights");
    let found = scores(&run, &weights, &["reconstruction"], 0);
    let [estimate] = &found.estimates[..] else { panic!("one protocol") };
    let nats: Vec<f64> = found.sequences.iter().map(|one| one.scores[0].nats).collect();
    let tokens: Vec<f64> = found.sequences.iter().map(|one| one.tokens as f64).collect();
    let (mean, error) = ltm_vi::estimators::ratio(&nats, &tokens).expect("as many");
    assert_eq!((estimate.mean_nats_per_token, estimate.standard_error), (mean, error));
    assert_eq!((nats.len(), estimate.per_sequence.len()), (8, 8));
    // Of a part of the rows, a document has those that were drawn.
    let some = scores(&run, &weights, &["reconstruction"], 9);
    assert_eq!(some.sequences.iter().map(|one| one.rows).sum::<usize>(), 9);
    assert!(some.sequences.len() < 9, "{:?}", some.sequences);
    let windows = tiny(&temp.path().join("windows"), &[&set[..], &["data.rows=windows"]].concat());
    let found = scores(&windows, &weights, &["reconstruction"], 0);
    assert!(found.sequences.iter().all(|one| one.document.is_none() && one.rows == 1));
    assert_eq!(found.sequences.len() as u64, windows.1.rows());
}

/// Each start and number of steps has the bounds of an evaluation that is configured so.
#[test]
fn convergence_is_that_of_evaluations_from_each_start() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let at_prior = ["infer.start=prior"];
    let encoder = ["model.encoder_width=8", "infer.start=encoder"];
    for (name, set, fits) in [
        ("prior", &at_prior[..], &[(StartKind::Prior, 3), (StartKind::Prior, 12)][..]),
        (
            "encoder",
            &encoder,
            &[
                (StartKind::Prior, 3),
                (StartKind::Prior, 12),
                (StartKind::Encoder, 0),
                (StartKind::Encoder, 3),
                (StartKind::Encoder, 12),
            ],
        ),
    ] {
        let run = tiny(&temp.path().join(name), set);
        let weights = Weights::init(&run.0.model, 3).expect("weights");
        let expected = scores(&run, &weights, &["elbo:2", "iwae:2"], 5);
        let weights = run.0.on_device(&weights).expect("they fit");
        let mut seen = Vec::new();
        let mut progress = |done, all| seen.push((done, all));
        let found = convergence(&run.0, &weights, &run.1, 2, 5, &mut progress).expect("scores");
        let of = |fit: &ltm_train::eval::FitScore| (fit.start, fit.steps);
        assert_eq!(found.iter().map(of).collect::<Vec<_>>(), fits);
        let all = 3 * 2 * fits.len() as u64;
        assert!(seen.into_iter().eq((0..=all).map(|done| (done, all))));
        let same = if name == "prior" { &found[0] } else { &found[3] };
        assert_eq!([&same.elbo, &same.iwae], [&expected.estimates[0], &expected.estimates[1]]);
        assert_ne!(found[0].elbo, found[1].elbo);
    }
    let langevin = tiny(&temp.path().join("langevin"), &["infer.method=langevin"]);
    let weights = Weights::init(&langevin.0.model, 3).expect("weights");
    let weights = langevin.0.on_device(&weights).expect("they fit");
    let refused = convergence(&langevin.0, &weights, &langevin.1, 2, 5, &mut |_, _| ());
    assert!(matches!(refused, Err(Error::Infer(_))), "{refused:?}");
}

/// A part of the rows, spread over the corpus, in batches of its own: of every seed the same rows, and each with the score
/// that it has among all.
#[test]
fn a_row_is_scored_as_among_all_rows() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let run = |seed: &str| tiny(&temp.path().join(seed), &["infer.steps=2", seed]);
    let weights = Weights::init(&run("run.seed=1").0.model, 3).expect("weights");
    let names = ["elbo:2", "elbo-fitted-noise", "prequential:16:2", "prequential-overlap:16:2"];
    let [all, some, fewer] = [0, 5, 3].map(|n| scores(&run("run.seed=1"), &weights, &names, n));
    for stride in [None, Some(16)] {
        let of = |found: &Evaluation| -> Vec<_> {
            let rows = found.sequences.iter().filter(|row| row.stride == stride);
            rows.map(|row| (row.index, row.digest)).collect()
        };
        let (all, some, fewer) = (of(&all), of(&some), of(&fewer));
        assert_ne!(some, all[..some.len()], "they are not the first");
        assert!(some.is_sorted() && some.iter().all(|row| all.contains(row)));
        assert!(fewer.len() < some.len() && fewer.iter().all(|row| some.contains(row)));
    }
    for row in &some.sequences {
        let same =
            |one: &&ltm_train::eval::Sequence| (one.stride, one.index) == (row.stride, row.index);
        let whole = all.sequences.iter().find(same).expect("a row of the corpus");
        for (score, whole) in row.scores.iter().zip(&whole.scores) {
            let [found, expected] = [score.nats, whole.nats];
            // Sums in single precision, which do not depend on the other rows of a batch.
            assert_close(&[found], &[expected], Tol { abs: 0.0, rel: 1e-6 });
        }
    }
    let other = scores(&run("run.seed=2"), &weights, &names[..1], 5);
    let numbers = |found: &Evaluation| -> Vec<u64> {
        let rows = found.sequences.iter().filter(|row| row.stride.is_none());
        rows.map(|row| row.index).collect()
    };
    assert_eq!(numbers(&other), numbers(&some));
}

/// An evaluation is one of a finished model: with the rate of the end of training, and the KL in full.
#[test]
fn fits_are_those_of_the_end_of_training() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let names = ["reconstruction", "elbo-fitted-noise", "elbo:2", "prequential:48:2"];
    let found = |name: &str, set: &[&str]| {
        let run = tiny(&temp.path().join(name), set);
        let weights = Weights::init(&run.0.model, 3).expect("weights");
        let found = scores(&run, &weights, &names, 2);
        let nats: Vec<f64> = found.estimates.iter().map(|e| e.mean_nats_per_token).collect();
        let latents = found.latents.expect("a fit");
        (nats, latents.kl_per_layer(), latents.worth())
    };
    let end = found("end", &["infer.lr=0.9"]);
    assert_eq!(found("lr_end", &["infer.lr=0.1", "infer.lr_end=0.9"]), end);
    assert_ne!(found("start", &["infer.lr=0.1"]), end);
    assert_eq!(found("warmup", &["infer.lr=0.9", "infer.kl_warmup=1"]), end);
}

/// Weights that are not finite are a run that diverged, whose error says what may help.
#[test]
fn weights_that_are_not_finite_are_named() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let (config, batches) = tiny(temp.path(), &[]);
    let mut weights = Weights::init(&config.model, 3).expect("weights");
    // As an optimiser leaves them, and as a checkpoint has them.
    let mut moved = config.on_device(&weights).expect("they fit");
    let norm = moved.param_mut(1).expect("a weight");
    norm.as_mut_slice::<f32>().expect("on the CPU")[0] = f32::INFINITY;
    weights.params[1][0] = f32::NAN;
    let protocols = ["elbo:2".parse().expect("a name")];
    for weights in [config.on_device(&weights), Ok(moved)] {
        let evaluation = weights.and_then(|weights| {
            evaluate(&config, &weights, &batches, &protocols, 1, &mut |_, _| ())
        });
        match evaluation {
            Err(Error::NonFinite { tensor, .. }) => {
                assert_eq!(tensor, "`layers.0.attention_norm.weight`");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A fit that leaves samples and no density has no fresh ones to predict from.
#[test]
fn prequential_needs_a_density() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let (config, batches) = tiny(temp.path(), &["infer.method=langevin"]);
    let weights = Weights::init(&config.model, 3).expect("weights");
    let weights = config.on_device(&weights).expect("they fit");
    for name in ["prequential:8:1", "prequential-overlap:8:1"] {
        let protocols = [name.parse().expect("a name")];
        let error = evaluate(&config, &weights, &batches, &protocols, 1, &mut |_, _| ());
        assert!(matches!(error, Err(Error::Infer(_))), "{name}: {error:?}");
    }
}
