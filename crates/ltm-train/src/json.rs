//! Numbers in files of JSON, which has none that are not finite: they are `null` in a file, and NaN when it is read.
//! For `#[serde(default = "nan", deserialize_with = "null_as_nan")]`.

use serde::{Deserialize, Deserializer};

/// The number of a key that a file does not have.
pub fn nan() -> f64 {
    f64::NAN
}

/// Reads a number.
///
/// # Errors
/// Those of the deserializer, for anything but a number and `null`.
pub fn null_as_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// Reads a list of numbers.
///
/// # Errors
/// Those of the deserializer, for anything but a list of numbers and `null`.
pub fn nulls_as_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    let numbers = Vec::<Option<f64>>::deserialize(deserializer)?;
    Ok(numbers.into_iter().map(|number| number.unwrap_or(f64::NAN)).collect())
}
