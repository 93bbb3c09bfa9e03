//! The map from noise to what a decoder attends to: in cached decoding as in the traced model, the identity at first, and
//! a map of all layers' latents together.

use ltm_autodiff::Precision;
use ltm_kernels::Device;
use ltm_model::{Decoder, DeviceWeights, Forward, ModelConfig, Tap, Weights, param_table};
use ltm_testkit::relative_frobenius;

/// As for the traced model and the decoder.
const TOL: f64 = 2e-5;

/// Two layers of two latents each.
fn mapped() -> ModelConfig {
    ModelConfig {
        dim: 8,
        n_layers: 2,
        n_heads: 2,
        n_kv_heads: 1,
        vocab_size: 11,
        max_seq_len: 6,
        window: 3,
        n_latents: 4,
        ffn_hidden: 16,
        init_std: 0.3,
        map_layers: 2,
        ..ModelConfig::ltm_small()
    }
}

const TOKENS: [i32; 10] = [0, 1, 2, 3, 4, 0, 5, 6, 7, 8];

/// Weights whose map does something: what starts at 0 has the size of other matrices.
fn weights() -> Weights {
    let mut weights = Weights::init(&mapped(), 3).unwrap();
    for (spec, params) in param_table(&mapped()).iter().zip(&mut weights.params) {
        if spec.name.starts_with("map.") && params.iter().all(|x| *x == 0.0) {
            params.iter_mut().zip(0u8..).for_each(|(x, i)| *x = 0.3 * f32::from(i).sin());
        }
    }
    weights
}

fn noise() -> Vec<f32> {
    (0..2 * 4 * 8u8).map(|i| (f32::from(i) * 0.7).cos()).collect()
}

fn states(config: ModelConfig, weights: &Weights, z: &[f32]) -> Vec<Vec<f32>> {
    let weights = DeviceWeights::new(&config, weights, &Device::Cpu, Precision::F32).unwrap();
    let taps = [Tap::Logits(2), Tap::State(1)];
    Forward::new(config, weights, Precision::F32, &taps).unwrap().run(2, &TOKENS, z).unwrap()
}

#[test]
fn cached_decoding_maps_as_the_traced_model_does() {
    let (weights, z) = (weights(), noise());
    let expected = &states(mapped(), &weights, &z)[0];
    let mut decoder = Decoder::new(mapped(), &weights, Device::Cpu, 2).unwrap();
    decoder.set_latents(&vec![0.5; z.len()]).unwrap();
    decoder.set_latents_rows(0..1, &z[..32]).unwrap();
    decoder.set_latents_rows(1..2, &z[32..]).unwrap();
    for at in 0..5 {
        let found = decoder.step(&[TOKENS[at], TOKENS[5 + at]]).unwrap();
        for (row, found) in found.chunks(11).enumerate() {
            let distance = relative_frobenius(found, &expected[(5 * row + at) * 11..][..11]);
            assert!(distance <= TOL, "token {at} of row {row}: relative distance {distance:e}");
        }
    }
}

#[test]
fn new_layers_change_nothing_until_they_are_trained() {
    let without = ModelConfig { map_layers: 0, ..mapped() };
    let (new, old) = (Weights::init(&mapped(), 3).unwrap(), Weights::init(&without, 3).unwrap());
    assert_eq!(new.params[..old.params.len()], old.params);
    assert_eq!(states(mapped(), &new, &noise()), states(without, &old, &noise()));
}

#[test]
fn each_layers_latents_depend_on_all_noise_of_a_text_and_on_no_other_text() {
    let weights = weights();
    let before = states(mapped(), &weights, &noise());
    // The last latent of the first text, which belongs to the second layer.
    let mut moved = noise();
    moved[3 * 8] += 1.0;
    let after = states(mapped(), &weights, &moved);
    let (text, state) = (5 * 11, 5 * 8);
    assert_ne!(after[1][..state], before[1][..state], "the first layer reads it through the map");
    assert_ne!(after[0][..text], before[0][..text]);
    assert_eq!(after[1][state..], before[1][state..]);
    assert_eq!(after[0][text..], before[0][text..]);
}
