//! What a bench case is made of: its buffers and how they are filled, its call, its cost. Knows no case and no clock.

use ltm_bench::{input, tokens};
use ltm_kernels::ops::cast;
use ltm_kernels::ops::matmul::MatmulDims;
use ltm_kernels::ops::philox::{self, PhiloxKey};
use ltm_kernels::{Buffer, Cost, DType, Device, Result};

/// What a buffer holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Element {
    /// The type under test.
    Activation,
    F32,
    /// Integers below this number.
    Index(usize),
}

impl Element {
    /// The type in memory where activations have this one.
    pub fn dtype(self, activation: DType) -> DType {
        match self {
            Self::Activation => activation,
            Self::F32 => DType::F32,
            Self::Index(_) => DType::I32,
        }
    }
}

/// One buffer of a call: normal numbers of this standard deviation, or uniform integers.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    pub len: usize,
    pub element: Element,
    pub std: f64,
}

/// An operand of the type under test.
pub fn activation(len: usize) -> Operand {
    Operand { len, element: Element::Activation, std: 1.0 }
}

/// An operand that is `f32` whatever is tested.
pub fn float(len: usize) -> Operand {
    Operand { len, element: Element::F32, std: 1.0 }
}

/// Integers below `limit`.
pub fn index(len: usize, limit: usize) -> Operand {
    Operand { len, element: Element::Index(limit), std: 1.0 }
}

/// A call with its inputs and outputs.
pub type Run = Box<dyn Fn(&Device, &[Buffer], &mut [Buffer]) -> Result<()>>;
/// What has to be computed before a call: it overwrites some of the inputs.
pub type Prepare = Box<dyn Fn(&Device, &mut [Buffer]) -> Result<()>>;

/// The buffers of a call by length and type, and the call.
pub struct Spec {
    pub inputs: Vec<Operand>,
    pub outputs: Vec<Operand>,
    /// Elements of an `f32` scratch buffer after the outputs; 0 for none.
    pub scratch: usize,
    /// The longest chain of roundings in one result.
    pub terms: usize,
    pub cost: Cost,
    /// The matrix product that the call is, if it is nothing else.
    pub product: Option<MatmulDims>,
    pub prepare: Option<Prepare>,
    pub run: Run,
}

impl Spec {
    /// Bytes that a call moves at least: the cost's, which counts every element as an `f32`, less
    /// what the buffers of the type under test save.
    pub fn bytes(&self, dtype: DType) -> f64 {
        let all = self.inputs.iter().chain(&self.outputs);
        let wide = all.filter(|operand| operand.element != Element::Activation);
        let wide: f64 = wide.map(|operand| 4.0 * operand.len as f64).sum();
        let (all, share) = (self.cost.bytes as f64, dtype.size_bytes() as f64 / 4.0);
        let wide = wide.min(all);
        wide + (all - wide) * share
    }
}

/// Which of an op's calls a case times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    /// One rung, of this op and of those that it calls.
    Rung(u32),
    /// What the op takes by itself.
    Production,
}

/// One op at two shapes, which its `spec` reads as it likes.
pub struct Case {
    pub op: &'static str,
    /// The pass whose rungs there are, as the kernel table names it.
    pub pass: &'static str,
    pub name: &'static str,
    pub dtypes: &'static [DType],
    /// Whether the op calls others, so that production is no single rung.
    pub is_composed: bool,
    pub small: [usize; 3],
    pub full: [usize; 3],
    pub spec: fn([usize; 3], &Device) -> Spec,
}

pub const BOTH: &[DType] = &[DType::F32, DType::BF16];
pub const F32_ONLY: &[DType] = &[DType::F32];
pub const BF16_ONLY: &[DType] = &[DType::BF16];

/// The buffers of one call.
pub struct Call {
    pub inputs: Vec<Buffer>,
    pub outputs: Vec<Buffer>,
}

impl Call {
    /// Random inputs, prepared; outputs of zeros.
    pub fn new(spec: &Spec, dtype: DType, device: &Device) -> Result<Self> {
        let mut inputs = Vec::new();
        for (seed, operand) in (1..).zip(&spec.inputs) {
            let mut buffer = Buffer::zeros(device, operand.element.dtype(dtype), operand.len)?;
            match operand.element {
                Element::Index(limit) => {
                    buffer.write_i32(&tokens(seed, operand.len, limit).to_i32()?)?;
                }
                _ => fill(&mut buffer, seed, operand.std)?,
            }
            inputs.push(buffer);
        }
        if let Some(prepare) = &spec.prepare {
            prepare(device, &mut inputs)?;
        }
        let mut outputs = Vec::new();
        for operand in &spec.outputs {
            outputs.push(Buffer::zeros(device, operand.element.dtype(dtype), operand.len)?);
        }
        if spec.scratch > 0 {
            outputs.push(Buffer::zeros(device, DType::F32, spec.scratch)?);
        }
        Ok(Self { inputs, outputs })
    }

    /// Runs the call once.
    pub fn run(&mut self, spec: &Spec, device: &Device) -> Result<()> {
        (spec.run)(device, &self.inputs, &mut self.outputs)
    }

    /// The results, without the scratch.
    pub fn results(&self, spec: &Spec) -> Result<Vec<Vec<f64>>> {
        self.outputs[..spec.outputs.len()].iter().map(Buffer::to_f64).collect()
    }
}

/// More numbers than these are drawn where they are needed: the host takes seconds for a large matrix.
const MOST_FROM_HOST: usize = 1 << 20;

/// Fills a float buffer with normal numbers. Few of them are the same in every type and on every device.
pub fn fill(buffer: &mut Buffer, seed: u64, std: f64) -> Result<()> {
    let (device, len) = (buffer.device(), buffer.len());
    if device == Device::Cpu || len <= MOST_FROM_HOST {
        // Rounded to what bf16 holds exactly, so that every type computes the same.
        let round = |x: f32| f32::from_bits(x.to_bits() & 0xffff_0000);
        let numbers: Vec<_> = input(seed, len, std).to_f32()?.into_iter().map(round).collect();
        return buffer.write_f32(&numbers);
    }
    let mut wide = Buffer::zeros(&device, DType::F32, len)?;
    philox::normal(&device, &mut wide, PhiloxKey { seed, stream: 0, step: 0 }, 0.0, std)?;
    cast::fwd(&device, buffer, &wide)
}
