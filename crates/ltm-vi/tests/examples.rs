//! The examples run to their end.

#[path = "../examples/decoder.rs"]
mod decoder;
#[path = "../examples/natural_gradient.rs"]
mod natural_gradient;
#[path = "../examples/prior.rs"]
mod prior;

#[test]
fn natural_gradient_descends() {
    natural_gradient::main().unwrap();
}

#[test]
fn a_prior_of_ones_own_has_bounds() {
    prior::main().unwrap();
}

#[test]
fn a_decoder_of_ones_own_is_scored() {
    decoder::main().unwrap();
}
