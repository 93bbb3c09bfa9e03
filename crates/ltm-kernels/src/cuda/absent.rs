//! Stand-ins for the CUDA types in a build without the feature `cuda`. They have no values: opening
//! a device is an error, and code that takes one compiles but is never called.

use super::architecture::Architecture;
use super::launch::{Arg, Geometry};
use crate::{DType, Error, Result};

/// A CUDA device; this build has none.
#[derive(Debug)]
pub enum Context {}

impl Context {
    /// Always fails: this build has no CUDA.
    ///
    /// # Errors
    /// [`Error::NoDevice`], always.
    pub fn open(ordinal: usize) -> Result<&'static Self> {
        let name = format!("cuda:{ordinal}");
        let reason = "this build has no CUDA support; rebuild with the feature `cuda`".into();
        Err(Error::NoDevice { name, reason })
    }

    /// The device's number.
    pub fn ordinal(&self) -> usize {
        match *self {}
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        match *self {}
    }

    /// The architecture that kernels are compiled for.
    pub fn architecture(&self) -> Architecture {
        match *self {}
    }

    /// Multiprocessors of the device.
    pub fn multiprocessors(&self) -> u32 {
        match *self {}
    }

    /// Waits for the device.
    ///
    /// # Errors
    /// None, as there is no device.
    pub fn synchronize(&self) -> Result<()> {
        match *self {}
    }

    /// Measures the device time of the work that `body` queues, in milliseconds.
    ///
    /// # Errors
    /// None, as there is no device.
    pub fn elapsed_ms(&self, _body: impl FnOnce() -> Result<()>) -> Result<f64> {
        match *self {}
    }

    pub(crate) fn workspace(&self) -> (Arg, usize) {
        match *self {}
    }

    /// # Safety
    /// None: this cannot be called.
    pub(crate) unsafe fn launch(&self, _: &str, _: Geometry, _: &[Arg]) -> Result<()> {
        match *self {}
    }

    /// # Safety
    /// Nothing to promise: it cannot be called.
    pub(crate) unsafe fn launch_text(
        &self,
        _: &str,
        _: &str,
        _: &str,
        _: Geometry,
        _: &[Arg],
    ) -> Result<()> {
        match *self {}
    }

    pub(crate) fn together(&self) -> Result<Option<std::convert::Infallible>> {
        match *self {}
    }
}

/// Recorded work on a device; this build has none.
#[derive(Debug)]
pub enum Recording {}

impl Recording {
    /// Records the work that `body` queues.
    ///
    /// # Errors
    /// None, as there is no device.
    pub fn capture<E: From<Error>>(
        context: &'static Context,
        _body: impl FnOnce() -> std::result::Result<(), E>,
    ) -> std::result::Result<Self, E> {
        match *context {}
    }

    /// Queues the recorded work on the device's stream.
    ///
    /// # Errors
    /// None, as there is no device.
    pub fn replay(&self) -> Result<()> {
        match *self {}
    }
}

/// Elements in the memory of a device; this build has none.
#[derive(Debug)]
pub(crate) enum DeviceBuffer {}

impl DeviceBuffer {
    pub fn zeros(context: &'static Context, _dtype: DType, _len: usize) -> Result<Self> {
        match *context {}
    }

    pub fn context(&self) -> &'static Context {
        match *self {}
    }

    pub fn dtype(&self) -> DType {
        match *self {}
    }

    pub fn len(&self) -> usize {
        match *self {}
    }

    pub fn arg(&self) -> Arg {
        match *self {}
    }

    pub fn try_clone(&self) -> Result<Self> {
        match *self {}
    }

    pub fn upload<T>(&mut self, _data: &[T]) -> Result<()> {
        match *self {}
    }

    pub fn download<T>(&self) -> Result<Vec<T>> {
        match *self {}
    }

    pub fn copy_range(&mut self, _: usize, _: &Self, _: usize, _: usize) -> Result<()> {
        match *self {}
    }
}
