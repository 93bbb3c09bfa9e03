//! Graphs on CUDA against the CPU: on a GPU, or on the simulator where its library stands in for the driver. Without
//! `LTM_DEVICE=cuda` the tests are skipped.
#![expect(dead_code, reason = "the examples' own `main`")]

#[path = "../examples/classifier.rs"]
mod classifier;
#[path = "../examples/custom_operation.rs"]
mod custom_operation;
#[path = "../examples/vae.rs"]
mod vae;

use ltm_autodiff::ltm_kernels::cuda::Geometry;
use ltm_autodiff::ltm_kernels::program::{Argument, Program};
use ltm_autodiff::ltm_kernels::{Buffer, DType, Device, Error};
use ltm_autodiff::{Graph, Kind, Plan, Precision, Store, UpdateRate, grad, ops};
use ltm_testkit::{Tol, assert_close, cuda_device, seeded};

fn device() -> Option<Device> {
    let name = cuda_device()?;
    Some(name.parse().expect("LTM_DEVICE names a device that can be opened"))
}

#[test]
fn the_custom_operation_agrees() {
    let Some(device) = device() else { return };
    let x: Vec<f32> = seeded(1, 700).iter().map(|&x| 4.0 * x as f32).collect();
    let here = custom_operation::run(&device, Precision::F32, &x).expect("the kernel compiles");
    let there = custom_operation::run(&Device::Cpu, Precision::F32, &x).expect("the CPU has f32");
    // Two roundings of each function, of numbers of at most 14.
    let tol = Tol { abs: 4.0 * f64::from(f32::EPSILON), rel: 4.0 * f64::from(f32::EPSILON) };
    assert_close(&here.0, &there.0, tol);
    assert_close(&here.1, &there.1, tol);
}

#[test]
#[expect(unsafe_code, reason = "launches that are refused")]
fn what_does_not_fit_a_program_is_refused_by_name() {
    let Some(device) = device() else { return };
    let Device::Cuda(context) = device else { panic!("{device} is not CUDA") };
    let launch = |text: &str, entry: &str, args: &mut [Argument<'_>]| {
        let program = Program { name: "mine.cu", text };
        // SAFETY: the kernel writes one element, and every other call is refused.
        unsafe { program.launch(context, entry, Geometry::threads(1), args) }
    };
    let fill = "extern \"C\" __global__ void fill(float *x, float value) {\n\
                if (threadIdx.x == 0) *x = value;\n}\n";
    let mut x = Buffer::zeros(&device, DType::F32, 1).expect("a small buffer fits");
    launch(fill, "fill", &mut [Argument::Write(&mut x), Argument::F32(2.5)]).expect("it fits");
    assert_eq!(x.to_f32(), Ok(vec![2.5]));

    let reason = |outcome| match outcome {
        Err(Error::Cuda { call, reason }) => format!("{call}: {reason}"),
        other => panic!("not refused: {other:?}"),
    };
    let missing = reason(launch(fill, "full", &mut []));
    assert!(missing.contains("full"), "{missing}");
    let few = reason(launch(fill, "fill", &mut [Argument::Write(&mut x)]));
    assert!(few.contains("takes 2 arguments, got 1"), "{few}");
    let wrong = reason(launch(fill, "fill", &mut [Argument::Write(&mut x), Argument::I32(1)]));
    assert!(wrong.contains("argument 1"), "{wrong}");
    let many: Vec<_> = (0..25).map(Argument::I32).collect();
    let many = reason(launch(fill, "fill", &mut { many }));
    assert!(many.contains("at most 24"), "{many}");
    let here = Buffer::from_vec(vec![0f32]);
    let elsewhere = launch(fill, "fill", &mut [Argument::Read(&here), Argument::F32(1.0)]);
    assert!(matches!(elsewhere, Err(Error::WrongDevice { .. })), "{elsewhere:?}");
    match launch("extern \"C\" __global__ void f() { nonsense; }", "f", &mut []) {
        Err(Error::Compile { file, log, .. }) => {
            assert!(file == "mine.cu" && log.contains("nonsense"), "{file}: {log}");
        }
        other => panic!("compiled: {other:?}"),
    }
    let nul = launch("// \0\n", "f", &mut []);
    assert!(matches!(nul, Err(Error::Compile { .. })), "{nul:?}");
    assert_eq!(x.to_f32(), Ok(vec![2.5]), "refusals change nothing");
}

#[test]
fn the_first_steps_of_the_examples_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    // A few hundred roundings of sums of at most 64 terms, and steps of AdamW that amplify those of small gradients.
    let tol = Tol { abs: 0.0, rel: 1e-3 };
    let classify = |device| {
        let log = classifier::train(device, 2).expect("it trains");
        log.into_iter().flat_map(|(_, loss, _)| [loss]).collect::<Vec<_>>()
    };
    assert_close(&classify(&device), &classify(&Device::Cpu), tol);
    let encode = |device| {
        let log = vae::train(device, 2).expect("it trains");
        log.into_iter().flat_map(|(_, nll, kl)| [nll, kl]).collect::<Vec<_>>()
    };
    assert_close(&encode(&device), &encode(&Device::Cpu), tol);
}

/// A graph in which activations of 16 bits meet every new operation; its loss and the gradients.
#[test]
fn activations_of_16_bits_give_gradients_in_full_precision() {
    let Some(device) = device() else { return };
    let mut g = Graph::new();
    let mut input = |name, shape: &[usize]| g.input(name, shape, Kind::Float, UpdateRate::Step);
    let [x, w, bias] = [input("x", &[2, 3, 16]), input("w", &[16, 16]), input("bias", &[16])];
    let all = [x, w, bias];
    let (x, bias_narrow) = (
        ops::cast(&mut g, x, Kind::Activation).expect("floats"),
        ops::cast(&mut g, bias, Kind::Activation).expect("floats"),
    );
    let w = ops::cast(&mut g, w, Kind::MatmulWeight).expect("floats");
    let loss = (|| {
        let y = ops::linear(&mut g, x, w)?;
        let y = ops::add(&mut g, y, bias_narrow)?;
        let y = ops::gelu(&mut g, y)?;
        let y = ops::permute(&mut g, y, &[1, 0, 2])?;
        let y = ops::reshape(&mut g, y, &[6, 16])?;
        let p = ops::softmax(&mut g, y)?;
        let both = ops::concat(&mut g, &[p, y], 1)?;
        let part = ops::narrow(&mut g, both, 1, 8, 16)?;
        let mean = ops::mean(&mut g, part, &[1])?;
        let centred = ops::sub(&mut g, part, mean)?;
        let square = ops::mul(&mut g, centred, centred)?;
        ops::sum_all(&mut g, square)
    })()
    .expect("the shapes fit");
    let gradients = grad(&mut g, loss, &all).expect("all have gradients");
    assert!(gradients.iter().all(|dx| g.spec(*dx).kind == Kind::Float));
    let run = |device: &Device, precision| {
        let mut store = Store::new(&g, device, precision).expect("small");
        for (seed, x) in (1..).zip(all) {
            let n = g.spec(x).len();
            let data: Vec<_> = seeded(seed, n).iter().map(|&x| 0.5 * x as f32).collect();
            store.write_f32(x, &data).expect("the right length");
        }
        let outputs = [&gradients[..], &[loss]].concat();
        let mut plan = Plan::new(&g, device, precision, &outputs).expect("small");
        plan.run(&store).expect("it runs");
        let of = |v: &ltm_autodiff::Value| plan.output(*v).and_then(|x| Ok(x.to_f64()?));
        outputs.iter().map(|v| of(v).expect("an output")).collect::<Vec<_>>()
    };
    let exact = run(&Device::Cpu, Precision::F64);
    let single = run(&device, Precision::F32);
    let mixed = run(&device, Precision::MIXED);
    for ((exact, single), mixed) in exact.iter().zip(&single).zip(&mixed) {
        let size = exact.iter().fold(0f64, |size, x| size.max(x.abs()));
        // A hundred roundings on the way, each relative to the largest element.
        let of = |eps: f64| Tol { abs: size * 100.0 * eps, rel: 0.0 };
        assert_close(single, exact, of(f64::from(f32::EPSILON)));
        // A dozen operations round to 8 binary digits; their errors do not all point one way.
        assert_close(mixed, exact, Tol { abs: size * 12.0 / 256.0, rel: 0.0 });
    }
}
