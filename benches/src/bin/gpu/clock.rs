//! The device's clock: a cold cache, many samples, quantiles. Knows no op.

use anyhow::Result;
use ltm_kernels::cuda::Context;
use ltm_kernels::{Buffer, DType, Device};

/// How often something is timed.
#[derive(Clone, Copy, Debug)]
pub struct Often {
    /// Calls before the first that is timed.
    pub warm_up: usize,
    pub samples: usize,
    /// A call so slow that all samples would take longer than this is sampled less often,
    pub most_ms: f64,
    /// but at least so many times.
    pub least_samples: usize,
}

/// How often a kernel is timed.
const OF_A_KERNEL: Often = Often { warm_up: 5, samples: 30, most_ms: 2000.0, least_samples: 5 };

/// More than the L2 cache of any device: copied between calls, so that none finds its inputs there.
pub const FLUSH_ELEMENTS: usize = 64 << 20;

/// Times of one case in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub p10: f64,
    pub median: f64,
    pub p90: f64,
    pub samples: usize,
}

/// The device's clock, and what clears its cache.
pub struct Clock {
    context: &'static Context,
    flush: [Buffer; 2],
    /// Bytes read and written a second by a plain copy, in units of 1e9.
    pub copy_gb_s: f64,
}

impl Clock {
    /// Measures the bandwidth of a copy.
    pub fn new(context: &'static Context) -> Result<Self> {
        let device = Device::Cuda(context);
        let zeros = || Buffer::zeros(&device, DType::F32, FLUSH_ELEMENTS);
        let [mut to, from] = [zeros()?, zeros()?];
        // Each copy is larger than the cache and clears it for the next.
        let copy = sample(|| Ok(context.elapsed_ms(|| to.copy_from(&from))?))?;
        let copy_gb_s = 2.0 * to.size_bytes() as f64 / copy.median / 1e6;
        Ok(Self { context, flush: [to, from], copy_gb_s })
    }

    /// Times a call with the cache cleared before each.
    pub fn sample(&mut self, mut call: impl FnMut() -> ltm_kernels::Result<()>) -> Result<Sample> {
        sample(|| {
            let [to, from] = &mut self.flush;
            to.copy_from(from)?;
            Ok(self.context.elapsed_ms(&mut call)?)
        })
    }
}

/// Quantiles of the times that `measure` returns for a kernel, in milliseconds.
pub fn sample(measure: impl FnMut() -> Result<f64>) -> Result<Sample> {
    Ok(quantiles(times(OF_A_KERNEL, measure)?))
}

/// The times that `measure` returns, in milliseconds and in order.
pub fn times(often: Often, mut measure: impl FnMut() -> Result<f64>) -> Result<Vec<f64>> {
    for _ in 0..often.warm_up {
        if measure()? * often.least_samples as f64 > often.most_ms {
            break;
        }
    }
    let mut times = Vec::new();
    while times.len() < often.samples {
        times.push(measure()?);
        if times.len() >= often.least_samples && times.iter().sum::<f64>() > often.most_ms {
            break;
        }
    }
    Ok(times)
}

/// Quantiles of times in any order.
pub fn quantiles(mut times: Vec<f64>) -> Sample {
    times.sort_by(f64::total_cmp);
    let quantile = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    let [p10, median, p90] = [0.1, 0.5, 0.9].map(quantile);
    Sample { p10, median, p90, samples: times.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_come_after_the_warm_up_and_slow_calls_are_few() {
        let mut calls = 0.0;
        let counted = sample(|| {
            calls += 1.0;
            Ok(calls)
        });
        let Sample { p10, median, p90, samples } = counted.expect("nothing fails");
        assert_eq!((p10, median, p90, samples), (9.0, 21.0, 32.0, 30));
        let mut calls = 0;
        let slow = sample(|| {
            calls += 1;
            Ok(1000.0)
        });
        assert_eq!(slow.expect("nothing fails").samples, 5);
        assert_eq!(calls, 6, "one of them to warm up");
        assert!(sample(|| anyhow::bail!("no device")).is_err());
    }
}
