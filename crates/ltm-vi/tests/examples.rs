//! The examples run to their end.

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
