//! The gradient sums of a slow step: over its micro-batches in the order of a fixed tree, and over the processes of a
//! group while the last gradients are still computed. Knows no model and no optimiser.

use ltm_collective::{Group, Sum, tree};
use ltm_kernels::ops::elementwise;
use ltm_kernels::{Buffer, DType, Device};

use crate::Result;

/// Bytes that are exchanged at once: enough that a message's start costs nothing beside it, and few enough that the first
/// leave early.
const BUCKET_BYTES: usize = 4 << 20;

/// Where the gradients of a micro-batch go.
pub(super) trait Gradients: Send {
    /// Adds a gradient of weight `param`.
    fn add(&mut self, param: usize, gradient: &Buffer) -> ltm_kernels::Result<()>;

    /// Adds one that no other of this micro-batch and weight follows; these come in the order in which plans finish.
    fn add_last(&mut self, param: usize, gradient: &Buffer) -> ltm_kernels::Result<()> {
        self.add(param, gradient)
    }
}

/// Partial sums of the gradients of all weights.
///
/// A step's sum is a [tree] over its micro-batches, of which a process has a whole subtree; so it holds few partial sums
/// at a time: one for one micro-batch, and one more whenever their number doubles.
pub(super) struct GradientSums {
    device: Device,
    float: DType,
    /// The length of each weight.
    lengths: Vec<usize>,
    /// Memory of partial sums, one buffer per weight; the first `held` are in use.
    partial: Vec<Vec<Buffer>>,
    held: usize,
}

impl GradientSums {
    pub fn new(device: Device, float: DType, lengths: Vec<usize>) -> Self {
        Self { device, float, lengths, partial: Vec::new(), held: 0 }
    }

    /// Forgets what an earlier step has left.
    pub fn clear(&mut self) {
        self.held = 0;
    }

    /// Begins the sum of another micro-batch.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn begin(&mut self) -> ltm_kernels::Result<()> {
        if self.held == self.partial.len() {
            let zeros = |len: &usize| Buffer::zeros(&self.device, self.float, *len);
            self.partial.push(self.lengths.iter().map(zeros).collect::<ltm_kernels::Result<_>>()?);
        } else {
            for (buffer, len) in self.partial[self.held].iter_mut().zip(&self.lengths) {
                if buffer.len() != *len {
                    // It was lost in a failed exchange.
                    *buffer = Buffer::zeros(&self.device, self.float, *len)?;
                }
                elementwise::fill(&self.device, buffer, 0.0)?;
            }
        }
        self.held += 1;
        Ok(())
    }

    /// Adds the last two partial sums, `additions` times.
    pub fn merge(&mut self, additions: usize) -> ltm_kernels::Result<()> {
        for _ in 0..additions {
            for param in 0..self.lengths.len() {
                self.merge_last(self.held - 1, param)?;
            }
            self.held -= 1;
        }
        Ok(())
    }

    fn merge_last(&mut self, last: usize, param: usize) -> ltm_kernels::Result<()> {
        let (before, from) = self.partial.split_at_mut(last);
        elementwise::add_assign(&self.device, &mut before[last - 1][param], &from[0][param])
    }

    /// Takes this process's whole sum of weight `param` out, after its last gradient: the sum of what is held.
    fn take(&mut self, param: usize) -> ltm_kernels::Result<Buffer> {
        for last in (1..self.held).rev() {
            self.merge_last(last, param)?;
        }
        Ok(std::mem::replace(&mut self.partial[0][param], Buffer::empty()))
    }

    /// The sums, once the exchange has put them back.
    pub fn whole(&self) -> &[Buffer] {
        &self.partial[0]
    }
}

impl Gradients for GradientSums {
    /// To the sum of the micro-batch that was begun last.
    fn add(&mut self, param: usize, gradient: &Buffer) -> ltm_kernels::Result<()> {
        let last = self.held.saturating_sub(1);
        elementwise::add_assign(&self.device, &mut self.partial[last][param], gradient)
    }
}

/// The exchange of a step's sums, which begins when the first is final in this process.
///
/// Every process exchanges the same weights in the same order, also one that failed meanwhile: otherwise the others would
/// wait for it.
pub(super) struct Exchange<'a> {
    group: &'a Group,
    sums: &'a mut GradientSums,
    /// The weights, in the order in which they are exchanged.
    order: &'a [usize],
    /// How many of them were taken.
    taken: usize,
    bucket: Vec<Buffer>,
    under_way: Vec<ltm_collective::Result<Sum>>,
}

impl<'a> Exchange<'a> {
    /// Of the sums held, to which the gradients of the last pass are still to be added.
    pub fn new(group: &'a Group, sums: &'a mut GradientSums, order: &'a [usize]) -> Self {
        Self { group, sums, order, taken: 0, bucket: Vec::new(), under_way: Vec::new() }
    }

    /// Puts the next weight's sum into the bucket, which is sent when it is full.
    fn send_next(&mut self) -> ltm_kernels::Result<()> {
        let sum = self.sums.take(self.order[self.taken])?;
        self.taken += 1;
        self.bucket.push(sum);
        let bytes: usize = self.bucket.iter().map(Buffer::size_bytes).sum();
        if bytes >= BUCKET_BYTES || self.taken == self.order.len() {
            self.under_way.push(self.group.sum(std::mem::take(&mut self.bucket)));
        }
        Ok(())
    }

    /// Sends what is left, waits for all, and puts the sums over all processes where the own ones were.
    ///
    /// # Errors
    /// [`Error::Group`](crate::Error::Group) when another process does not answer.
    pub fn finish(mut self) -> Result<()> {
        while self.taken < self.order.len() {
            self.send_next()?;
        }
        let mut order = self.order.iter();
        for sum in self.under_way {
            for buffer in sum?.wait()? {
                let param = order.next().expect("as many buffers come back as were sent");
                self.sums.partial[0][*param] = buffer;
            }
        }
        self.sums.held = 1;
        Ok(())
    }
}

impl Gradients for Exchange<'_> {
    fn add(&mut self, param: usize, gradient: &Buffer) -> ltm_kernels::Result<()> {
        self.sums.add(param, gradient)
    }

    /// Then the weight's sum is final in this process, and is sent.
    fn add_last(&mut self, param: usize, gradient: &Buffer) -> ltm_kernels::Result<()> {
        self.sums.add(param, gradient)?;
        debug_assert_eq!(self.order.get(self.taken), Some(&param), "the order of plans");
        self.send_next()
    }
}

/// The sum of numbers of micro-batches or processes, in the order of the sums.
pub(super) fn in_tree(numbers: impl ExactSizeIterator<Item = f64>) -> f64 {
    tree::sum(numbers, |a, b| *a += b).unwrap_or(0.0)
}
