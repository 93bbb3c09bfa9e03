//! Logits and hidden states of whole texts: against cached decoding with the first layers alone, and against each
//! other in plain sums.

mod fixture;

use fixture::tiny;
use ltm_autodiff::Precision;
use ltm_kernels::Device;
use ltm_model::{
    Attention, Decoder, DeviceWeights, Error, Forward, ModelConfig, Tap, Weights, param_table,
};
use ltm_testkit::relative_frobenius;

/// As for the traced model and the decoder.
const TOL: f64 = 2e-5;

fn forward(config: ModelConfig, weights: &Weights, taps: &[Tap]) -> Forward {
    let weights = DeviceWeights::new(&config, weights, &Device::Cpu, Precision::F32).unwrap();
    Forward::new(config, weights, Precision::F32, taps).unwrap()
}

fn check(what: &str, found: &[f32], expected: &[f32]) {
    let distance = relative_frobenius(found, expected);
    assert!(distance <= TOL, "{what}: relative distance {distance:e}");
}

/// The model of the first `n_layers` layers; the latents keep their rotary positions.
fn first_layers(config: ModelConfig, weights: &Weights, n_layers: usize) -> (ModelConfig, Weights) {
    let n_latents = n_layers * config.latents_per_layer();
    let max_seq_len = n_latents * config.latent_stride();
    let first = ModelConfig { n_layers, n_latents, max_seq_len, ..config };
    let table = param_table(&config);
    let params = param_table(&first).into_iter().map(|spec| {
        let at = table.iter().position(|other| other.name == spec.name).expect("a prefix");
        weights.params[at].clone()
    });
    (first, Weights { params: params.collect() })
}

#[test]
fn logits_after_some_layers_are_those_of_a_decoder_of_these_layers() {
    let (config, fixture) = tiny();
    let weights = fixture.weights(&config);
    let (z, tokens) = (fixture.z(), fixture.i32("tokens"));
    let [b, all] = fixture.shape("tokens").try_into().unwrap();
    let (v, width) = (config.vocab_size, config.latents_per_layer() * config.dim);
    for n_layers in 1..=config.n_layers {
        let (first, first_weights) = first_layers(config, &weights, n_layers);
        let t = all.min(first.max_seq_len);
        assert!(t > config.window, "the window matters");
        let text = |row: usize| &tokens[row * all..row * all + t];
        let texts: Vec<i32> = (0..b).flat_map(text).copied().collect();
        let mut forward = forward(config, &weights, &[Tap::Logits(n_layers)]);
        let found = forward.run(b, &texts, &z).unwrap().remove(0);

        let mut decoder = Decoder::new(first, &first_weights, Device::Cpu, b).unwrap();
        let of_row = |row: usize| &z[row * config.n_layers * width..][..n_layers * width];
        decoder.set_latents(&(0..b).flat_map(of_row).copied().collect::<Vec<_>>()).unwrap();
        for at in 0..t {
            let column: Vec<i32> = (0..b).map(|row| texts[row * t + at]).collect();
            let expected = decoder.step(&column).unwrap();
            let found: Vec<f32> =
                (0..b).flat_map(|row| &found[(row * t + at) * v..][..v]).copied().collect();
            check(&format!("{n_layers} layers, token {at}"), &found, expected);
        }
    }
}

#[test]
fn norms_and_logits_are_those_of_the_states() {
    let (config, fixture) = tiny();
    let mut weights = fixture.weights(&config);
    let table = param_table(&config);
    let norm = table.iter().position(|spec| spec.name == "norm.weight").unwrap();
    // A gain that is noticed.
    weights.params[norm].iter_mut().zip(1..).for_each(|(x, i)| *x = 0.5 + i as f32 / 16.0);
    let taps: Vec<Tap> = (0..=config.n_layers)
        .flat_map(|layers| [Tap::State(layers), Tap::Normed(layers), Tap::Logits(layers)])
        .collect();
    let (b, c) = (fixture.shape("tokens")[0], config.dim);
    let tokens = fixture.i32("tokens");
    let found = forward(config, &weights, &taps).run(b, &tokens, &fixture.z()).unwrap();
    let embedding = &weights.params[0];
    let embedded: Vec<f32> =
        tokens.iter().flat_map(|id| &embedding[*id as usize * c..][..c]).copied().collect();
    assert_eq!(found[0], embedded);
    for (layers, taps) in found.chunks(3).enumerate() {
        let [state, normed, logits] = taps else { panic!("three taps a layer") };
        let mut expected = Vec::new();
        for row in state.chunks(c) {
            let squares: f32 = row.iter().map(|x| x * x).sum();
            let scale = (squares / c as f32 + config.norm_eps as f32).sqrt().recip();
            expected.extend(row.iter().zip(&weights.params[norm]).map(|(x, w)| x * scale * w));
        }
        check(&format!("norm of state {layers}"), normed, &expected);
        let product = |row: &[f32], id: &[f32]| row.iter().zip(id).map(|(x, w)| x * w).sum();
        let expected: Vec<f32> = normed
            .chunks(c)
            .flat_map(|row| embedding.chunks(c).map(move |id| product(row, id)))
            .collect();
        check(&format!("logits of state {layers}"), logits, &expected);
    }
}

const SMALL: ModelConfig = ModelConfig {
    dim: 8,
    n_layers: 2,
    n_heads: 2,
    n_kv_heads: 1,
    vocab_size: 11,
    max_seq_len: 6,
    window: 6,
    n_latents: 0,
    ffn_hidden: 16,
    norm_eps: 1e-5,
    rope_theta: 10_000.0,
    attention: Attention::Causal,
    encoder_width: 0,
    init_std: 0.02,
    prior_layers: 0,
    map_layers: 0,
};

#[test]
fn a_pass_does_not_depend_on_those_before() {
    let weights = Weights::init(&SMALL, 5).unwrap();
    let mut forward = forward(SMALL, &weights, &[Tap::Logits(2)]);
    let first = forward.run(2, &[1, 2, 3, 10, 9, 8], &[]).unwrap();
    let other = forward.run(1, &[1, 2, 3, 4, 5, 6], &[]).unwrap();
    assert_eq!(forward.run(2, &[1, 2, 3, 10, 9, 8], &[]).unwrap(), first);
    // A causal model: the text's first tokens do not see the others.
    check("a longer text", &other[0][..33], &first[0][..33]);
}

#[test]
fn attention_in_both_directions_sees_what_follows() {
    let config = ModelConfig { attention: Attention::Bidirectional, ..SMALL };
    let weights = Weights::init(&config, 5).unwrap();
    let mut forward = forward(config, &weights, &[Tap::State(0), Tap::State(1)]);
    let one = forward.run(1, &[1, 2, 3], &[]).unwrap();
    let other = forward.run(1, &[1, 2, 4], &[]).unwrap();
    assert_eq!(one[0][..8], other[0][..8], "an embedding sees its token alone");
    assert_ne!(one[1][..8], other[1][..8], "the first token sees the last");
}

#[test]
fn what_does_not_fit_is_refused() {
    let config = ModelConfig { n_latents: 2, ..SMALL };
    let weights = Weights::init(&config, 5).unwrap();
    let on_cpu = DeviceWeights::new(&config, &weights, &Device::Cpu, Precision::F32).unwrap();
    let new = |weights: &DeviceWeights, precision, tap| {
        Forward::new(config, weights.clone(), precision, &[tap]).map(|_| ())
    };
    let argument = |result: ltm_model::Result<()>, name: &str| {
        assert!(matches!(&result, Err(Error::Argument { arg, .. }) if *arg == name), "{result:?}");
    };
    new(&on_cpu, Precision::MIXED_PRODUCTS, Tap::Normed(2)).unwrap();
    argument(new(&on_cpu, Precision::F32, Tap::Normed(3)), "taps");
    argument(new(&on_cpu, Precision::F64, Tap::Normed(2)), "precision");
    assert!(matches!(new(&on_cpu, Precision::MIXED, Tap::Normed(2)), Err(Error::Autodiff(_))));
    let fewer = Weights::init(&SMALL, 5).unwrap();
    let fewer = DeviceWeights::new(&SMALL, &fewer, &Device::Cpu, Precision::F32).unwrap();
    argument(new(&fewer, Precision::F32, Tap::Normed(2)), "weights");

    let mut forward = forward(config, &weights, &[Tap::State(0)]);
    let z = [0.0; 2 * 8];
    let mut run = |b, tokens: &[i32], z: &[f32]| forward.run(b, tokens, z).map(|_| ());
    run(1, &[1, 2], &z).unwrap();
    argument(run(1, &[1, 2], &[]), "z");
    argument(run(1, &[1, 2], &[f32::NAN; 2 * 8]), "z");
    for (b, tokens) in [(0, &[1, 2][..]), (3, &[1, 2]), (1, &[])] {
        argument(run(b, tokens, &z), "tokens");
    }
    let long = run(1, &[1; 7], &z);
    assert!(matches!(long, Err(Error::ContextFull { added: 7, .. })), "{long:?}");
    for token in [-1, 11] {
        let outside = run(1, &[1, token], &z);
        assert!(matches!(outside, Err(Error::Kernel(_))), "{outside:?}");
    }
    run(1, &[1, 2], &z).unwrap();
}
