//! What a decoder checks of the tokens and latents that it is given. Knows no device.

use crate::{Error, ModelConfig, Result};

/// Refuses tokens outside the vocabulary, before anything has changed.
pub(crate) fn check_tokens(tokens: &[i32], limit: usize) -> Result<()> {
    let outside = |token: &i32| usize::try_from(*token).map_or(true, |token| token >= limit);
    match tokens.iter().position(outside) {
        None => Ok(()),
        Some(position) => {
            let (op, got) = ("embedding", i64::from(tokens[position]));
            Err(ltm_kernels::Error::Index { op, position, got, limit }.into())
        }
    }
}

/// Refuses latents that are not `z (rows,L·Z,C)` of finite numbers.
pub(crate) fn check_latents(config: &ModelConfig, rows: usize, z: &[f32]) -> Result<()> {
    let expected = rows * config.n_latents * config.dim;
    if z.len() != expected {
        return Err(argument("z", format!("{expected} numbers"), z.len()));
    }
    match z.iter().position(|number| !number.is_finite()) {
        Some(index) => Err(argument("z", "finite", format!("{} at index {index}", z[index]))),
        None => Ok(()),
    }
}

pub(crate) fn argument(
    arg: &'static str,
    expected: impl Into<String>,
    found: impl ToString,
) -> Error {
    Error::Argument { arg, expected: expected.into(), found: found.to_string() }
}
