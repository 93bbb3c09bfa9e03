//! NVIDIA's matrix products, opened at run time, to compare ours with and to measure the device's dense rate. Has its own
//! stream and memory on the device; knows no op of ours but the extents of a product.
#![expect(unsafe_code, reason = "a C library that takes addresses")]

use std::ffi::c_void;
use std::sync::Arc;

use anyhow::{Result, ensure};
use cudarc::cublaslt::{result, sys};
use cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT;
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr, DevicePtrMut};
use ltm_kernels::DType;
use ltm_kernels::ops::matmul::{Layout, MatmulDims};

use crate::clock::{FLUSH_ELEMENTS, Sample, sample};

/// NVIDIA's recommendation for Hopper, the largest of all devices.
const WORKSPACE_BYTES: usize = 32 << 20;

/// The library, and a stream to run it on.
pub struct CublasLt {
    handle: sys::cublasLtHandle_t,
    stream: Arc<CudaStream>,
    workspace: CudaSlice<u8>,
    flush: [CudaSlice<f32>; 2],
}

/// A product that is ready to run.
struct Product {
    description: sys::cublasLtMatmulDesc_t,
    /// Of the first factor, the second, and the result, as the library counts them.
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// A product as the library takes it: its matrices are column-major and ours row-major, and a row-major matrix is its
/// transpose in column-major order. So it computes `cᵀ = op(b)ᵀ op(a)ᵀ`.
#[derive(Debug, PartialEq)]
struct ByColumns {
    /// Rows and columns of `b`, `a` and `c` in memory, in column-major order.
    extents: [[u64; 2]; 3],
    /// Whether to transpose `b` and `a`.
    transposed: [bool; 2],
}

impl ByColumns {
    fn of(dims: MatmulDims) -> Self {
        let [m, n, k] = [dims.m, dims.n, dims.k].map(|extent| extent as u64);
        let (b, b_transposed) = match dims.b {
            Layout::Normal => ([n, k], false),
            Layout::Transposed => ([k, n], true),
        };
        let (a, a_transposed) = match dims.a {
            Layout::Normal => ([k, m], false),
            Layout::Transposed => ([m, k], true),
        };
        Self { extents: [b, a, [n, m]], transposed: [b_transposed, a_transposed] }
    }
}

impl CublasLt {
    /// Opens the library on device 0; `None` when it is not there.
    pub fn open() -> Result<Option<Self>> {
        // SAFETY: only opens the library, whose initialisers are the vendor's.
        if !unsafe { sys::is_culib_present() } {
            return Ok(None);
        }
        let context = CudaContext::new(0)?;
        // SAFETY: all work is on the one stream made below, in whose order each buffer is written, read and freed.
        //
        // With tracking, cudarc would put waits for its own events between the two that take the time.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream()?;
        let handle = result::create_handle()?;
        let workspace = stream.alloc_zeros(WORKSPACE_BYTES)?;
        let flush = [stream.alloc_zeros(FLUSH_ELEMENTS)?, stream.alloc_zeros(FLUSH_ELEMENTS)?];
        Ok(Some(Self { handle, stream, workspace, flush }))
    }

    /// Times one product of `a` and `b`, rounded to `input`, and returns its result too.
    ///
    /// f32 is computed in f32, not in TF32, as ours is; a batch is not.
    pub fn time(
        &mut self,
        dims: MatmulDims,
        [input, output]: [DType; 2],
        a: &[f32],
        b: &[f32],
    ) -> Result<(Sample, Vec<f32>)> {
        ensure!(dims.batch == 1, "a batch of {} products is not compared", dims.batch);
        ensure!(a.len() == dims.m * dims.k && b.len() == dims.k * dims.n, "a factor of {dims:?}");
        let product = self.prepare(dims, [input, output])?;
        let (a, b) = (self.upload(input, a)?, self.upload(input, b)?);
        let mut c = self.stream.alloc_zeros::<u8>(dims.m * dims.n * output.size_bytes())?;
        let sample = sample(|| {
            let [to, from] = &mut self.flush;
            self.stream.memcpy_dtod(from, to)?;
            let start = self.stream.record_event(Some(CU_EVENT_DEFAULT))?;
            self.multiply(&product, &mut c, &a, &b)?;
            let end = self.stream.record_event(Some(CU_EVENT_DEFAULT))?;
            Ok(f64::from(start.elapsed_ms(&end)?))
        })?;
        let bytes = self.stream.clone_dtoh(&c)?;
        self.stream.synchronize()?;
        Ok((sample, floats(output, &bytes)))
    }

    fn upload(&self, dtype: DType, x: &[f32]) -> Result<CudaSlice<u8>> {
        Ok(self.stream.clone_htod(&bytes(dtype, x))?)
    }

    fn prepare(&self, dims: MatmulDims, [input, output]: [DType; 2]) -> Result<Product> {
        let [input, output] = [input, output].map(|dtype| match dtype {
            DType::BF16 => sys::cudaDataType::CUDA_R_16BF,
            _ => sys::cudaDataType::CUDA_R_32F,
        });
        let description = result::create_matmul_desc(
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cudaDataType::CUDA_R_32F,
        )?;
        let ByColumns { extents: [b, a, c], transposed } = ByColumns::of(dims);
        let layout = |dtype, [rows, columns]: [u64; 2]| {
            result::create_matrix_layout(dtype, rows, columns, rows as i64)
        };
        let layouts = [layout(input, b)?, layout(input, a)?, layout(output, c)?];
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let which =
            [Attribute::CUBLASLT_MATMUL_DESC_TRANSA, Attribute::CUBLASLT_MATMUL_DESC_TRANSB];
        for (which, transposed) in which.into_iter().zip(transposed) {
            let value = i32::from(transposed); // 0 is as it is, 1 is transposed
            // SAFETY: the description is alive, the value is a 32-bit integer as this attribute's is.
            unsafe {
                result::set_matmul_desc_attribute(
                    description,
                    which,
                    (&raw const value).cast(),
                    size_of::<i32>(),
                )?;
            }
        }
        let (preference, limit) = (result::create_matmul_pref()?, WORKSPACE_BYTES);
        let which =
            sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        // SAFETY: the preference is alive until it is destroyed, the value is a `size_t`; description and layouts are alive.
        let heuristic = unsafe {
            result::set_matmul_pref_attribute(
                preference,
                which,
                (&raw const limit).cast(),
                size_of::<usize>(),
            )?;
            let [b, a, c] = layouts;
            let found =
                result::get_matmul_algo_heuristic(self.handle, description, b, a, c, c, preference);
            result::destroy_matmul_pref(preference)?;
            found?
        };
        Ok(Product { description, layouts, algorithm: heuristic.algo })
    }

    fn multiply(
        &mut self,
        product: &Product,
        c: &mut CudaSlice<u8>,
        a: &CudaSlice<u8>,
        b: &CudaSlice<u8>,
    ) -> Result<()> {
        let stream = &self.stream;
        let (one, zero) = (1f32, 0f32);
        let address = |address: u64| address as *mut c_void;
        let (a, _a_is_read) = a.device_ptr(stream);
        let (b, _b_is_read) = b.device_ptr(stream);
        let (c, _c_is_written) = c.device_ptr_mut(stream);
        let (workspace, _workspace_is_written) = self.workspace.device_ptr_mut(stream);
        let [b_layout, a_layout, c_layout] = product.layouts;
        // SAFETY: `prepare` made description and layouts for matrices as long as `time` checked; all memory outlives the
        // call, which the stream's order puts before whatever frees it.
        unsafe {
            result::matmul(
                self.handle,
                product.description,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                address(b),
                b_layout,
                address(a),
                a_layout,
                address(c),
                c_layout,
                address(c),
                c_layout,
                &raw const product.algorithm,
                address(workspace),
                WORKSPACE_BYTES,
                stream.cu_stream().cast(),
            )?;
        }
        Ok(())
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        // SAFETY: made by `prepare`, used by nobody else; a failure to give memory back changes no result.
        unsafe {
            let _ = result::destroy_matmul_desc(self.description);
            for layout in self.layouts {
                let _ = result::destroy_matrix_layout(layout);
            }
        }
    }
}

impl Drop for CublasLt {
    fn drop(&mut self) {
        // SAFETY: made by `open`, used by nobody else.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// Numbers in memory; bf16 keeps the upper half of an f32, whose lower half must be zero.
fn bytes(dtype: DType, x: &[f32]) -> Vec<u8> {
    match dtype {
        DType::BF16 => x.iter().flat_map(|x| ((x.to_bits() >> 16) as u16).to_ne_bytes()).collect(),
        _ => x.iter().flat_map(|x| x.to_ne_bytes()).collect(),
    }
}

/// The inverse of [`bytes`].
fn floats(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        DType::BF16 => {
            let halves = bytes.as_chunks::<2>().0.iter();
            halves.map(|half| f32::from_bits(u32::from(u16::from_ne_bytes(*half)) << 16)).collect()
        }
        _ => bytes.as_chunks::<4>().0.iter().map(|x| f32::from_ne_bytes(*x)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `op(x)[i, j]` of a matrix by columns.
    fn at(x: &[f64], [rows, _]: [u64; 2], transposed: bool, i: usize, j: usize) -> f64 {
        let rows = rows as usize;
        if transposed { x[i * rows + j] } else { x[j * rows + i] }
    }

    #[test]
    fn by_columns_the_transposed_product_is_the_product_by_rows() {
        let (m, n, k) = (2, 3, 4);
        let [a, b] =
            [m * k, k * n].map(|len| (0..len).map(|x| (x * x + 1) as f64).collect::<Vec<_>>());
        for layouts in [Layout::Normal, Layout::Transposed]
            .map(|a| [Layout::Normal, Layout::Transposed].map(|b| (a, b)))
        {
            for (a_layout, b_layout) in layouts {
                let dims = MatmulDims { a: a_layout, b: b_layout, ..MatmulDims::new(m, n, k) };
                let mut expected = vec![0.0; m * n];
                ltm_kernels::ops::matmul::reference::fwd(
                    &mut expected,
                    &a,
                    &b,
                    ltm_kernels::ops::matmul::Write::Overwrite,
                    dims,
                );
                let ByColumns { extents, transposed } = ByColumns::of(dims);
                assert_eq!(extents[2], [3, 2], "cᵀ is N by M");
                // `cᵀ[j, i]`, written by columns.
                for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    let term = |l| {
                        at(&b, extents[0], transposed[0], j, l)
                            * at(&a, extents[1], transposed[1], l, i)
                    };
                    assert_eq!((0..k).map(term).sum::<f64>(), expected[i * n + j], "{dims:?}");
                }
            }
        }
    }

    #[test]
    fn numbers_survive_the_way_to_the_device_and_back() {
        let x = [1.5, -0.0, f32::INFINITY, 3.0e-39];
        for dtype in [DType::F32, DType::BF16] {
            assert_eq!(bytes(dtype, &x).len(), 4 * dtype.size_bytes());
            assert_eq!(floats(dtype, &bytes(dtype, &x[..3])), x[..3], "{dtype}");
        }
        assert_eq!(floats(DType::F32, &bytes(DType::F32, &x)), x);
    }
}
