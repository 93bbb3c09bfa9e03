//! The decoder against the logits recorded from the published model: prompts in one pass, and token by
//! token. It shares no attention code with the traced model, so only this comparison notices a decoder
//! that agrees with itself and is wrong.

mod fixture;

use fixture::Fixture;
use ltm_kernels::Device;
use ltm_model::{Decoder, ModelConfig};
use ltm_testkit::relative_frobenius;

/// As for the traced model: some fifty dependent sums in single precision.
const TOL: f64 = 2e-5;

/// A decoder of the recorded weights at the recorded sample.
fn decoder(config: ModelConfig, fixture: &Fixture, batch: usize) -> Decoder {
    let weights = fixture.weights(&config);
    let mut decoder = Decoder::new(config, &weights, Device::Cpu, batch).unwrap();
    decoder.set_latents(&fixture.z()).unwrap();
    decoder
}

#[test]
fn logits_are_the_recorded_ones_from_every_prompt() {
    for (config, fixture) in [fixture::tiny(), fixture::gqa()] {
        let [b, t] = fixture.shape("tokens").try_into().unwrap();
        let (tokens, logits) = (fixture.i32("tokens"), fixture.f32("logits"));
        let v = config.vocab_size;
        let column = |at: usize| (0..b).map(|row| tokens[row * t + at]).collect::<Vec<_>>();
        let check = |found: &[f32], at: usize| {
            let rows = (0..b).map(|row| &logits[(row * t + at) * v..(row * t + at + 1) * v]);
            let distance = relative_frobenius(found, &rows.collect::<Vec<_>>().concat());
            assert!(distance <= TOL, "token {at}: relative distance {distance:e}");
        };
        for prompt_len in [0, 1, t / 2, t] {
            let mut decoder = decoder(config, &fixture, b);
            if prompt_len > 0 {
                let rows = (0..b).map(|row| &tokens[row * t..row * t + prompt_len]);
                let prompt = rows.collect::<Vec<_>>().concat();
                check(decoder.prefill(&prompt).unwrap(), prompt_len - 1);
            }
            for at in prompt_len..t {
                check(decoder.step(&column(at)).unwrap(), at);
            }
        }
    }
}
