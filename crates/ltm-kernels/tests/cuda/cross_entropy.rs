//! `cross_entropy` on its devices.

use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::cross_entropy::{CrossEntropyDims, IGNORED, bwd_weight, fwd, reference};
use ltm_kernels::{Buffer, DType, Device, Error, Result};
use ltm_testkit::{Tol, assert_close};

use crate::harness::{
    BF16, BF16_EPS, F32, F32_EPS, check_values, data, device, output, read, rounding, upload,
    upload_i32,
};
use crate::walk::{Case, Expected, Results, Subject, both, no_needs};

/// Every rung with a type that it takes.
const RUNGS: [(u32, DType); 5] = [(1, F32), (1, BF16), (2, F32), (2, BF16), (3, BF16)];

fn targets_for(dims: CrossEntropyDims) -> Vec<i32> {
    (0..dims.n).map(|n| if n % 5 == 3 { IGNORED } else { (n * n * 11 % dims.v) as i32 }).collect()
}

/// The buffers of a call, types as the op wants them; a test may spoil one.
struct Call {
    nll: Buffer,
    dh: Buffer,
    dw: Buffer,
    scratch: Buffer,
    h: Buffer,
    w: Buffer,
    dnll: Buffer,
    targets: Buffer,
    dims: CrossEntropyDims,
}

impl Call {
    fn new(device: &Device, dtype: DType, targets: &[i32], dims: CrossEntropyDims) -> Self {
        let CrossEntropyDims { n, c, v } = dims;
        Self {
            nll: output(device, F32, n),
            dh: output(device, dtype, n * c),
            dw: output(device, F32, v * c),
            scratch: output(device, F32, dims.scratch_len(device)),
            h: upload(device, dtype, &data(1, n * c)),
            w: upload(device, dtype, &data(2, v * c)),
            dnll: upload(device, F32, &data(3, n)),
            targets: upload_i32(device, targets),
            dims,
        }
    }

    /// Loss and gradient, each if wanted.
    fn fwd(&mut self, device: &Device, wants_nll: bool, wants_dh: bool) -> Result<()> {
        let (nll, dh) = (wants_nll.then_some(&mut self.nll), wants_dh.then_some(&mut self.dh));
        fwd(device, nll, dh, &mut self.scratch, &self.h, &self.w, &self.targets, self.dims)
    }

    fn bwd_weight(&mut self, device: &Device) -> Result<()> {
        let Self { dw, scratch, dnll, nll, h, w, targets, dims, .. } = self;
        bwd_weight(device, dw, scratch, dnll, nll, h, w, targets, *dims)
    }

    fn all(mut self, device: &Device) -> Result<[Buffer; 3]> {
        self.fwd(device, true, true)?;
        self.bwd_weight(device)?;
        Ok([self.nll, self.dh, self.dw])
    }
}

/// Types, dims as one past a tile of the products, 65, and past what a block's threads take at once, 1025.
pub fn subject() -> Subject {
    let dims = [(1, 1, 1), (6, 8, 65), (11, 16, 1030), (70, 5, 7), (65, 24, 1025), (2, 3, 64)]
        .map(|(n, c, v)| CrossEntropyDims { n, c, v });
    let case = Case {
        pass: "fwd",
        calls: both(dims),
        holds: |need, dtype, dims| match need {
            "[P1] bf16" => dtype == BF16,
            "[P2] C % 8 == 0" => dims.c.is_multiple_of(8),
            _ => no_needs(need, dtype, dims),
        },
        run: |device, dtype, dims| run(device, dtype, &targets_for(*dims), *dims),
        expected: |dtype, dims, _| expected(dtype, *dims),
    };
    Subject { op: "cross_entropy", cases: vec![Box::new(case)] }
}

/// `nll`, `dh` and `dw` on the device.
fn run(device: &Device, dtype: DType, targets: &[i32], dims: CrossEntropyDims) -> Results {
    let results = Call::new(device, dtype, targets, dims).all(device)?;
    Ok(results.map(|buffer| read(&buffer)).into())
}

fn expected(dtype: DType, dims: CrossEntropyDims) -> Vec<Expected> {
    let CrossEntropyDims { n, c, v } = dims;
    let (h, w, dnll, targets) = (data(1, n * c), data(2, v * c), data(3, n), targets_for(dims));
    let (mut nll, mut dh, mut dw) = (vec![0.0; n], vec![0.0; n * c], vec![0.0; v * c]);
    let mut p_n = vec![0.0; v];
    reference::fwd(Some(&mut nll), Some(&mut dh), &mut p_n, &h, &w, &targets, dims);
    reference::bwd_weight(&mut dw, &mut p_n, &dnll, &h, &w, &targets, dims);
    // A logit sums C products within 3.5², and is rounded to its type when stored; a probability is
    // off by twice that, relatively, by its own rounding, and by exp and the sum.
    let size = 3.5 * 3.5 * c as f64;
    let logit = size * (c as f64 * F32_EPS + rounding(dtype));
    let p = 2.0 * logit + rounding(dtype) + (100 + v) as f64 * F32_EPS;
    // The p of a row sum to 2 at most with the target's 1; `dh` is rounded once more.
    let of_dh = Tol { abs: 2.0 * 3.5 * (p + v as f64 * F32_EPS), rel: rounding(dtype) };
    let of_dw = Tol { abs: n as f64 * 3.5 * 3.5 * (p + n as f64 * F32_EPS), rel: 0.0 };
    let of_nll = Tol { abs: 2.0 * p, rel: F32_EPS };
    vec![("nll", nll, of_nll), ("dh", dh, of_dh), ("dw", dw, of_dw)]
}

/// On a rung, or on those that the op and its products take by themselves.
fn agrees(device: &Device, rung: Option<u32>, dtype: DType, dims: CrossEntropyDims) {
    let call = || run(device, dtype, &targets_for(dims), dims);
    let results = match rung {
        Some(rung) => with_rung(rung, call),
        None => call(),
    };
    let results = results.expect("needs hold");
    let rung = rung.map_or("production".into(), |rung| format!("v{rung}"));
    for (result, (what, expected, tol)) in results.iter().zip(expected(dtype, dims)) {
        check_values(
            &format!("cross_entropy {what} {rung} {dtype} {dims:?}"),
            result,
            &expected,
            tol,
        );
    }
}

#[test]
fn every_rung_agrees() {
    subject().walk();
}

#[test]
fn rungs_that_are_chosen_agree() {
    let Some(device) = device() else { return };
    for (n, c, v) in [(1, 1, 1), (6, 8, 65), (11, 16, 1030), (70, 5, 7), (65, 24, 1025), (2, 3, 64)]
    {
        agrees(&device, None, F32, CrossEntropyDims { n, c, v });
        agrees(&device, None, BF16, CrossEntropyDims { n, c, v });
    }
}

#[test]
fn statistics_in_the_product_agree() {
    let Some(device) = device() else { return };
    // Small tiles and one past them; large ones, as a device of up to 142 multiprocessors takes for
    // 2 by 71, and one past a tile in the rows; columns that end inside a warp's part.
    for (n, c, v) in [(1, 8, 1), (64, 64, 64), (65, 72, 193), (129, 8, 9000), (3, 8, 8001)] {
        agrees(&device, Some(3), BF16, CrossEntropyDims { n, c, v });
    }
}

#[test]
fn rows_past_a_chunk_agree() {
    let Some(device) = device() else { return };
    // A chunk has 4096 rows at most: two chunks, the second a row shorter.
    for (dtype, c, v) in [(F32, 2, 3), (BF16, 8, 5)] {
        agrees(&device, None, dtype, CrossEntropyDims { n: 4097, c, v });
    }
}

#[test]
fn loss_and_gradient_may_be_asked_for_alone() {
    let Some(device) = device() else { return };
    let dims = CrossEntropyDims { n: 9, c: 8, v: 70 };
    for (rung, dtype) in RUNGS {
        let call = || Call::new(&device, dtype, &targets_for(dims), dims);
        let (mut both, mut loss, mut gradient) = (call(), call(), call());
        with_rung(rung, || {
            both.fwd(&device, true, true)?;
            loss.fwd(&device, true, false)?;
            gradient.fwd(&device, false, true)
        })
        .expect("needs hold");
        assert_eq!(read(&loss.nll), read(&both.nll), "v{rung} {dtype}");
        assert_eq!(read(&gradient.dh), read(&both.dh), "v{rung} {dtype}");
        assert!(read(&loss.dh).iter().chain(&read(&gradient.nll)).all(|x| x.is_nan()));
    }
}

#[test]
fn ignored_targets_cost_and_move_nothing() {
    let Some(device) = device() else { return };
    let dims = CrossEntropyDims { n: 7, c: 8, v: 66 };
    for (rung, dtype) in RUNGS {
        let results = with_rung(rung, || run(&device, dtype, &[IGNORED; 7], dims));
        assert!(
            results.expect("needs hold").iter().flatten().all(|&x| x == 0.0),
            "v{rung} {dtype}"
        );
    }
}

#[test]
fn logits_far_from_zero_are_shifted_before_their_exponentials() {
    let Some(device) = device() else { return };
    let dims = CrossEntropyDims { n: 2, c: 8, v: 70 };
    for (rung, dtype) in RUNGS {
        for sign in [1.0, -1.0] {
            // Every logit is 2048 or its opposite, and what pads a tile is 0.
            let mut call = Call::new(&device, dtype, &[0, 69], dims);
            call.h = upload(&device, dtype, &[16.0; 16]);
            call.w = upload(&device, dtype, &[16.0 * sign; 560]);
            with_rung(rung, || call.fwd(&device, true, true)).expect("needs hold");
            // ln V next to 2048, which f32 holds to 2^-13 before the difference.
            let tol = Tol { abs: 2048.0 * F32_EPS, rel: 0.0 };
            assert_close(&read(&call.nll), &[70f64.ln(); 2], tol);
            // Equal rows of w cancel: 70 probabilities, rounded to the type, and the target's one.
            let rounding = if dtype == BF16 { BF16_EPS } else { 70.0 * F32_EPS };
            let abs = 2.0 * 16.0 * (rounding + 2048.0 * F32_EPS);
            assert_close(&read(&call.dh), &[0.0; 16], Tol { abs, rel: 0.0 });
        }
    }
}

#[test]
fn a_target_outside_the_vocabulary_is_nan_and_stays_in_its_row() {
    let Some(device) = device() else { return };
    let dims = CrossEntropyDims { n: 4, c: 8, v: 10 };
    for (rung, dtype) in RUNGS {
        let targets = [10, 3, IGNORED, -7];
        let results = with_rung(rung, || run(&device, dtype, &targets, dims));
        let results = results.expect("needs hold");
        let (nll, dh) = (&results[0], &results[1]);
        assert_eq!([0, 1, 2, 3].map(|n| nll[n].is_nan()), [true, false, false, true]);
        assert_eq!([0, 1, 2, 3].map(|n| dh[8 * n].is_nan()), [true, false, false, true]);
        assert_eq!((nll[2], &dh[16..24]), (0.0, &[0.0; 8][..]));
    }
}

#[test]
fn other_types_are_refused() {
    let Some(device) = device() else { return };
    let dims = CrossEntropyDims { n: 3, c: 8, v: 5 };
    type Of = fn(&mut Call) -> &mut Buffer;
    // Each buffer in turn has a type of the same length that its call does not take.
    let spoil: [(DType, Of); 7] = [
        (F32, |call| &mut call.w),
        (F32, |call| &mut call.dh),
        (F32, |call| &mut call.targets),
        (BF16, |call| &mut call.nll),
        (BF16, |call| &mut call.dnll),
        (BF16, |call| &mut call.dw),
        (BF16, |call| &mut call.scratch),
    ];
    for (nth, (got, buffer)) in spoil.into_iter().enumerate() {
        let mut call = Call::new(&device, BF16, &[0; 3], dims);
        let len = buffer(&mut call).len();
        *buffer(&mut call) = output(&device, got, len);
        let refused = call.all(&device).map(drop);
        assert!(
            matches!(refused, Err(Error::DType { got: by, .. }) if by == got),
            "{nth} {refused:?}"
        );
    }
    let mut call = Call::new(&device, BF16, &[0; 3], dims);
    call.h = upload_i32(&device, &[0; 24]);
    let refused = call.fwd(&device, true, true);
    assert!(matches!(refused, Err(Error::DType { got: DType::I32, .. })), "{refused:?}");
}
