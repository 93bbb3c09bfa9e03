//! What is refused, by which error, and that a refusal changes nothing.

use std::error::Error as _;

use ltm_autodiff::ops::{self, Mask};
use ltm_autodiff::{
    Call, Error, Grads, Graph, Io, Kind, Operation, Plan, Precision, Result, Spec, Store,
    UpdateRate, Value, count, grad,
};
use ltm_kernels::Device;

const CPU: &Device = &Device::Cpu;

/// A graph with one input of this shape.
fn graph(shape: &[usize]) -> (Graph, Value) {
    let mut g = Graph::new();
    let x = g.input("x", shape, Kind::Float, UpdateRate::Step);
    (g, x)
}

/// What belongs to another graph, by the message of a refusal.
#[track_caller]
fn foreign<T>(outcome: Result<T>) -> String {
    match outcome {
        Err(Error::OtherGraph { what }) => what,
        Err(error) => panic!("refused as {error}"),
        Ok(_) => panic!("a value of another graph was accepted"),
    }
}

#[test]
fn a_value_of_another_graph_is_refused_everywhere() {
    let (mut g, x) = graph(&[2, 2]);
    let w = ops::fill(&mut g, &[2], 1.0);
    let ids = g.input("ids", &[2], Kind::Int, UpdateRate::Batch);
    // The other graph has more nodes, so that its values would also be out of bounds.
    let (mut other, _) = graph(&[2, 2]);
    let s = (0..9).map(|_| ops::fill(&mut other, &[2, 2], 1.0)).last().expect("nine values");
    assert!(g.owns(x) && !g.owns(s));

    assert_eq!(foreign(ops::add(&mut g, x, s)), "input 1 of `add`");
    assert_eq!(foreign(ops::add(&mut g, s, x)), "input 0 of `add`");
    assert_eq!(foreign(ops::linear(&mut g, x, s)), "input 1 of `matmul`");
    assert_eq!(foreign(ops::embedding(&mut g, s, ids)), "input 0 of `embedding`");
    assert_eq!(foreign(ops::embedding(&mut g, x, s)), "input 1 of `embedding`");
    assert_eq!(foreign(ops::cast(&mut g, s, Kind::Activation)), "input 0 of `cast`");
    foreign(ops::attention(&mut g, s, x, x, 1, 1, Mask::None));
    foreign(ops::attention(&mut g, x, x, s, 1, 1, Mask::Window(1)));
    foreign(ops::cross_entropy(&mut g, x, x, s));
    foreign(ops::dot(&mut g, x, s));
    foreign(ops::gaussian_kl(&mut g, s, x, 1));
    foreign(ops::reparam(&mut g, x, x, s));
    foreign(ops::rms_norm(&mut g, x, s, 1e-5));
    foreign(ops::add_rms_norm(&mut g, x, s, w, 1e-5));
    foreign(ops::rope(&mut g, s, x, 1));
    foreign(ops::rope_table(&mut g, s, 1e4, 2));
    foreign(ops::slice(&mut g, s, 0, 1));
    foreign(ops::swiglu(&mut g, x, s));
    assert_eq!(foreign(ops::sub(&mut g, x, s)), "input 1 of `sub`");
    foreign(ops::mul(&mut g, s, x));
    foreign(ops::div(&mut g, x, s));
    assert_eq!(foreign(ops::tanh(&mut g, s)), "input 0 of `tanh`");
    foreign(ops::sum(&mut g, s, &[0]));
    foreign(ops::mean(&mut g, s, &[0]));
    foreign(ops::sum_all(&mut g, s));
    foreign(ops::mean_all(&mut g, s));
    foreign(ops::softmax(&mut g, s));
    foreign(ops::reshape(&mut g, s, &[4]));
    foreign(ops::permute(&mut g, s, &[1, 0]));
    foreign(ops::transpose(&mut g, s, 0, 1));
    foreign(ops::broadcast(&mut g, s, &[2, 2]));
    foreign(ops::narrow(&mut g, s, 0, 0, 1));
    assert_eq!(foreign(ops::concat(&mut g, &[x, s], 0)), "input 1 of `concat`");

    assert_eq!(foreign(g.check("x", s)), "x");
    assert!(g.check("x", x).is_ok());
    let loss = ops::dot(&mut g, x, x).expect("one graph");
    assert_eq!(foreign(grad(&mut g, s, &[x])), "the loss");
    assert_eq!(foreign(grad(&mut g, loss, &[x, s])), "value 1 of those to differentiate by");
    let new = |outputs: &[Value]| Plan::new(&g, CPU, Precision::F32, outputs);
    assert_eq!(foreign(new(&[loss, s])), "output 1 of the plan");
    foreign(count(&g, Precision::F32, &[s], UpdateRate::Constant));
    let mut store = Store::new(&g, CPU, Precision::F32).expect("small");
    assert_eq!(foreign(store.get(s)), "the input");
    foreign(store.get_mut(s));
    foreign(store.write_f32(s, &[1.0; 4]));
    let mut plan = new(&[loss]).expect("small");
    let strange = Store::new(&other, CPU, Precision::F32).expect("small");
    assert_eq!(foreign(plan.run(&strange)), "the store");
    assert_eq!(foreign(plan.prepare(&strange)), "the store");
    assert_eq!(foreign(plan.run_step(&strange)), "the store");
    assert!(matches!(plan.output(s), Err(Error::Unknown { .. })));
}

/// An operation of `n` inputs whose gradient rule returns what `grads` makes of the gradient.
struct Custom {
    grads: fn(&mut Graph, Value) -> Grads,
}

impl std::fmt::Debug for Custom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Custom")
    }
}

impl Operation for Custom {
    fn name(&self) -> &'static str {
        "custom"
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        Ok(call.output().copy_from(call.inputs[0])?)
    }

    fn grad(&self, g: &mut Graph, _: &Io, dout: Value, _: &[bool]) -> Result<Grads> {
        Ok((self.grads)(g, dout))
    }
}

#[test]
fn gradients_of_the_wrong_number_or_shape_are_refused() {
    let gradient = |grads| {
        let (mut g, x) = graph(&[1]);
        let y = g.apply1(Custom { grads }, &[x, x], Spec::float(&[1])).expect("two inputs");
        grad(&mut g, y, &[x]).map(|dx| g.shape(dx[0]).to_vec())
    };
    assert_eq!(gradient(|_, dout| vec![Some(dout); 2]).expect("one each"), [1]);
    let refused = |grads| match gradient(grads) {
        Err(Error::Gradient { op: "custom", reason }) => reason,
        other => panic!("not refused: {other:?}"),
    };
    assert_eq!(refused(|_, _| vec![]), "expected 2 gradients, got 0");
    assert_eq!(refused(|_, dout| vec![Some(dout)]), "expected 2 gradients, got 1");
    assert_eq!(refused(|_, dout| vec![Some(dout); 3]), "expected 2 gradients, got 3");
    let wide = refused(|g, dout| vec![Some(dout), Some(ops::fill(g, &[1, 1], 1.0))]);
    assert!(wide.starts_with("the gradient of input 1 must be floats of shape [1]"), "{wide}");
    let integers = refused(|g, dout| {
        let positions = ops::positions(g, 1, 1).expect("one position");
        vec![Some(positions), Some(dout)]
    });
    assert!(integers.contains("input 0") && integers.contains("Int"), "{integers}");
    // A gradient that is missing though it was wanted keeps its own error.
    let missing = gradient(|_, dout| vec![Some(dout), None]);
    assert!(matches!(missing, Err(Error::NoGradient { op: "custom", position: 1 })));
}

#[test]
fn limits_of_an_operation_are_errors() {
    let (mut g, x) = graph(&[1]);
    let (_, stranger) = graph(&[1]);
    let custom = || Custom { grads: |_, dout| vec![Some(dout)] };
    let spec = Spec::float(&[1]);
    let most = g.apply(custom(), &[x; 8], vec![spec.clone(); 4]).expect("8 and 4 are taken");
    assert_eq!(most.len(), 4);
    let mut refused =
        |n: usize, m: usize| match g.apply(custom(), &vec![x; n], vec![spec.clone(); m]) {
            Err(error @ Error::Limit { op: "custom", .. }) => error.to_string(),
            other => panic!("not refused: {other:?}"),
        };
    assert_eq!(refused(9, 1), "custom: expected 0 to 8 inputs, got 9");
    assert_eq!(refused(1, 5), "custom: expected 1 to 4 outputs, got 5");
    assert_eq!(refused(1, 0), "custom: expected 1 to 4 outputs, got 0");
    let refused = ops::concat(&mut g, &[x; 9], 0).expect_err("eight parts at most");
    assert_eq!(refused.to_string(), "concat: expected 0 to 8 inputs, got 9");
    assert_eq!(foreign(g.apply1(custom(), &[x, stranger], spec)), "input 1 of `custom`");
}

#[test]
fn extents_that_do_not_fit_are_errors() {
    let (mut g, x) = graph(&[1, 2, 6]);
    for heads in [0, 4] {
        let refused = ops::attention(&mut g, x, x, x, heads, 1, Mask::None);
        let refused = refused.map_err(|e| e.to_string());
        let expected = format!("attention: {heads} heads do not divide the width 6");
        assert_eq!(refused.unwrap_err(), expected);
    }
    for rows in [0, 5] {
        let refused = ops::gaussian_kl(&mut g, x, x, rows);
        assert!(matches!(refused, Err(Error::Shape { op: "gaussian_kl", .. })), "{refused:?}");
    }
}

#[test]
fn a_precision_that_the_device_lacks_is_refused_before_anything_runs() {
    let (mut g, x) = graph(&[2]);
    let y = ops::add(&mut g, x, x).expect("one shape");
    let Err(refused) = Store::new(&g, CPU, Precision::MIXED) else { panic!("not refused") };
    let message = refused.to_string();
    assert!(message.starts_with("cpu does not compute with floats of f32, activations of bf16"));
    assert!(matches!(refused, Error::Precision { precision: Precision::MIXED, .. }));
    assert!(matches!(
        Plan::new(&g, CPU, Precision::MIXED, &[y]),
        Err(Error::Precision { precision: Precision::MIXED, .. })
    ));
}

#[test]
fn memory_that_is_not_there_is_an_error() {
    use ltm_kernels::Error::OutOfMemory;
    // The second shape does not even fit in 64 bits.
    for shape in [[1 << 20, 1 << 20, 1 << 16], [1 << 40, 1 << 40, 1 << 40]] {
        let (mut g, _) = graph(&shape);
        let store = Store::new(&g, CPU, Precision::F32);
        assert!(matches!(store, Err(Error::Kernel(OutOfMemory { .. }))), "{shape:?}");
        let filled = ops::fill(&mut g, &shape, 1.0);
        let plan = Plan::new(&g, CPU, Precision::F64, &[filled]);
        assert!(matches!(plan, Err(Error::Kernel(OutOfMemory { .. }))), "{shape:?}");
    }
    assert_eq!(Spec::float(&[0, 1 << 40, 1 << 40]).len(), 0);
    assert_eq!(Spec::float(&[1 << 40, 1 << 40, 0]).len(), 0);
}

#[test]
fn a_refused_write_is_no_write() {
    let (mut g, x) = graph(&[2]);
    let y = ops::add(&mut g, x, x).expect("one shape");
    let mut store = Store::new(&g, CPU, Precision::F32).expect("small");
    let mut plan = Plan::new(&g, CPU, Precision::F32, &[y]).expect("small");
    assert!(store.write_f32(x, &[1.0; 3]).is_err());
    assert!(store.write_i32(x, &[1; 2]).is_err());
    assert!(matches!(store.get(x), Err(Error::Unwritten { .. })));
    assert!(matches!(plan.run(&store), Err(Error::Unwritten { .. })));

    store.write_f32(x, &[1.0, 2.0]).expect("the right length");
    plan.run(&store).expect("written");
    assert!(store.write_f32(x, &[1.0; 3]).is_err());
    plan.run(&store).expect("written");
    assert_eq!(plan.counts()[0].runs, 1, "nothing changed, so nothing runs again");
    assert_eq!(plan.output(y).and_then(|y| Ok(y.to_f64()?)).expect("an output"), [2.0, 4.0]);
}

#[test]
fn a_cause_is_displayed_once() {
    let kernel = ltm_kernels::Error::Dims { op: "op", reason: "n is 0".into() };
    let error = Error::Kernel(kernel);
    assert_eq!(error.to_string(), "op: n is 0");
    assert!(error.source().is_none());
}
