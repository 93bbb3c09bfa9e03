//! Every op's gradient against central differences, in f64 and through graph and plan.

use ltm_autodiff::ops::{self, Layout, Mask};
use ltm_autodiff::{Error, Graph, Kind, Plan, Precision, Result, Store, UpdateRate, Value, grad};
use ltm_kernels::Device;
use ltm_testkit::{Tol, gradcheck, seeded};

/// The functions are of order 1 with sums of at most a hundred terms, so the differences err by some
/// 1e-9; see `ltm_testkit::gradcheck`.
const TOL: Tol = Tol { abs: 1e-7, rel: 1e-7 };

/// Checks the gradient of a random weighting of `build`'s output with respect to each of the float
/// inputs, computed together and one by one.
fn check(
    floats: &[&[usize]],
    ints: &[&[i32]],
    build: impl Fn(&mut Graph, &[Value], &[Value]) -> Result<Value>,
) {
    let mut g = Graph::new();
    let xs: Vec<_> =
        floats.iter().map(|shape| g.input("x", shape, Kind::Float, UpdateRate::Step)).collect();
    let is: Vec<_> =
        ints.iter().map(|data| g.input("i", &[data.len()], Kind::Int, UpdateRate::Batch)).collect();
    let y = build(&mut g, &xs, &is).unwrap();
    let shape = g.shape(y).to_vec();
    let r = g.input("r", &shape, Kind::Float, UpdateRate::Weights);
    let loss = ops::dot(&mut g, y, r).unwrap();
    let together = grad(&mut g, loss, &xs).unwrap();
    let alone: Vec<_> = xs.iter().map(|x| grad(&mut g, loss, &[*x]).unwrap()[0]).collect();

    let mut store = Store::new(&g, &Device::Cpu, Precision::F64).unwrap();
    let write = |store: &mut Store, value: Value, data: &[f64]| {
        let buffer = store.get_mut(value).unwrap();
        buffer.as_mut_slice::<f64>().unwrap().copy_from_slice(data);
    };
    let data: Vec<_> = xs.iter().zip(1..).map(|(x, seed)| seeded(seed, g.spec(*x).len())).collect();
    for (x, data) in xs.iter().zip(&data) {
        write(&mut store, *x, data);
    }
    for (i, data) in is.iter().zip(ints) {
        store.write_i32(*i, data).unwrap();
    }
    write(&mut store, r, &seeded(99, g.spec(r).len()));

    let mut plan = Plan::new(&g, &Device::Cpu, Precision::F64, &[loss]).unwrap();
    for (i, x) in xs.iter().enumerate() {
        let mut analytic = Vec::new();
        for dx in [together[i], alone[i]] {
            assert_eq!(g.shape(dx), g.shape(*x));
            let mut plan = Plan::new(&g, &Device::Cpu, Precision::F64, &[dx]).unwrap();
            plan.run(&store).unwrap();
            analytic.push(plan.output(dx).unwrap().to_f64().unwrap());
        }
        assert_eq!(analytic[0], analytic[1], "input {i}: alone and together");
        let f = |at: &[f64]| {
            write(&mut store, *x, at);
            plan.run(&store).unwrap();
            plan.output(loss).unwrap().to_f64().unwrap()[0]
        };
        gradcheck(f, &data[i], &analytic[0], TOL);
        write(&mut store, *x, &data[i]);
    }
}

#[test]
fn matmul_in_every_layout() {
    let (normal, transposed) = (Layout::Normal, Layout::Transposed);
    check(&[&[2, 3, 4], &[4, 5]], &[], |g, x, _| ops::matmul(g, x[0], x[1], normal, normal));
    check(&[&[2, 4], &[3, 4]], &[], |g, x, _| ops::matmul(g, x[0], x[1], normal, transposed));
    check(&[&[2, 2, 3], &[4, 5]], &[], |g, x, _| ops::matmul(g, x[0], x[1], transposed, normal));
    check(&[&[4, 3], &[5, 4]], &[], |g, x, _| ops::matmul(g, x[0], x[1], transposed, transposed));
}

#[test]
fn linear() {
    check(&[&[2, 3, 4], &[5, 4]], &[], |g, x, _| ops::linear(g, x[0], x[1]));
}

#[test]
fn a_gradient_of_a_gradient() {
    check(&[&[2, 3], &[4, 3]], &[], |g, x, _| {
        let y = ops::linear(g, x[0], x[1])?;
        // The sum of yᵀ y by products alone: their gradients have gradients.
        let row = ops::matmul(g, y, y, Layout::Transposed, Layout::Normal)?;
        let ones = ops::fill(g, &[4, 1], 1.0);
        let column = ops::matmul(g, row, ones, Layout::Normal, Layout::Normal)?;
        let loss = ops::matmul(g, ones, column, Layout::Transposed, Layout::Normal)?;
        Ok(grad(g, loss, &[x[1]])?[0])
    });
}

#[test]
fn add_and_values_read_twice() {
    check(&[&[2, 3], &[2, 3]], &[], |g, x, _| {
        let y = ops::add(g, x[0], x[1])?;
        let y = ops::add(g, y, y)?;
        ops::add(g, y, x[0])
    });
}

/// Positive numbers, for functions that need them.
fn positive(g: &mut Graph, x: Value) -> Result<Value> {
    let square = ops::mul(g, x, x)?;
    ops::affine(g, square, 1.0, 0.5)
}

#[test]
fn functions_of_each_element() {
    check(&[&[3, 4]], &[], |g, x, _| ops::affine(g, x[0], -1.5, 0.25));
    check(&[&[3, 4]], &[], |g, x, _| ops::exp(g, x[0]));
    check(&[&[3, 4]], &[], |g, x, _| ops::tanh(g, x[0]));
    check(&[&[3, 4]], &[], |g, x, _| ops::sigmoid(g, x[0]));
    check(&[&[3, 4]], &[], |g, x, _| ops::gelu(g, x[0]));
    check(&[&[3, 4]], &[], |g, x, _| ops::relu(g, x[0]));
    check(&[&[3, 4]], &[], |g, x, _| {
        let x = positive(g, x[0])?;
        ops::log(g, x)
    });
    check(&[&[3, 4]], &[], |g, x, _| {
        let x = positive(g, x[0])?;
        ops::sqrt(g, x)
    });
}

#[test]
fn operators_on_operands_that_are_repeated() {
    for [a, b] in [
        [&[2, 3, 4][..], &[2, 3, 4][..]],
        [&[2, 3, 4], &[4]],
        [&[4], &[2, 3, 4]],
        [&[2, 1, 4], &[3, 1]],
        [&[1, 3, 1], &[2, 1, 4]],
        [&[2, 3], &[1]],
        [&[1, 1], &[3]],
    ] {
        check(&[a, b], &[], |g, x, _| ops::add(g, x[0], x[1]));
        check(&[a, b], &[], |g, x, _| ops::sub(g, x[0], x[1]));
        check(&[a, b], &[], |g, x, _| ops::mul(g, x[0], x[1]));
        check(&[a, b], &[], |g, x, _| {
            let divisor = positive(g, x[1])?;
            ops::div(g, x[0], divisor)
        });
    }
    check(&[&[2, 3]], &[], |g, x, _| ops::mul(g, x[0], x[0]));
}

#[test]
fn sums_and_means() {
    for axes in [&[][..], &[0], &[1], &[2], &[0, 1], &[2, 0], &[0, 1, 2]] {
        check(&[&[2, 3, 4]], &[], |g, x, _| ops::sum(g, x[0], axes));
        check(&[&[2, 3, 4]], &[], |g, x, _| ops::mean(g, x[0], axes));
    }
    check(&[&[2, 3]], &[], |g, x, _| ops::sum_all(g, x[0]));
    check(&[&[2, 3]], &[], |g, x, _| ops::mean_all(g, x[0]));
}

#[test]
fn softmax() {
    check(&[&[2, 3, 5]], &[], |g, x, _| ops::softmax(g, x[0]));
}

#[test]
fn other_shapes() {
    check(&[&[2, 3, 4]], &[], |g, x, _| {
        // Twice, so that the sum of two gradients goes through the shapes.
        let a = ops::reshape(g, x[0], &[6, 4])?;
        let b = ops::reshape(g, x[0], &[4, 6])?;
        let b = ops::transpose(g, b, 0, 1)?;
        ops::mul(g, a, b)
    });
    for axes in [[0, 1, 2], [2, 0, 1], [1, 0, 2], [2, 1, 0]] {
        check(&[&[2, 3, 4]], &[], |g, x, _| ops::permute(g, x[0], &axes));
    }
    check(&[&[3, 1]], &[], |g, x, _| ops::broadcast(g, x[0], &[2, 3, 4]));
    check(&[&[]], &[], |g, x, _| ops::broadcast(g, x[0], &[2, 3]));
}

#[test]
fn parts_of_an_axis() {
    for axis in 0..3 {
        check(&[&[2, 3, 4], &[2, 3, 4]], &[], |g, x, _| {
            let both = ops::concat(g, &[x[0], x[1], x[0]], axis)?;
            ops::narrow(g, both, axis, 1, 4)
        });
    }
}

#[test]
fn layer_norm_from_parts_and_its_second_derivative() {
    let norm = |g: &mut Graph, x: Value| {
        let mean = ops::mean(g, x, &[1])?;
        let centred = ops::sub(g, x, mean)?;
        let square = ops::mul(g, centred, centred)?;
        let variance = ops::mean(g, square, &[1])?;
        // Division alone: the gradient of a square root has no gradient.
        ops::div(g, centred, variance)
    };
    check(&[&[2, 5]], &[], |g, x, _| norm(g, x[0]));
    check(&[&[2, 5]], &[], |g, x, _| {
        let y = norm(g, x[0])?;
        let part = ops::narrow(g, y, 1, 1, 3)?;
        let both = ops::concat(g, &[part, y], 1)?;
        let swapped = ops::transpose(g, both, 0, 1)?;
        let cube = ops::mul(g, swapped, swapped)?;
        let loss = ops::sum_all(g, cube)?;
        Ok(grad(g, loss, &[x[0]])?[0])
    });
}

#[test]
fn slice() {
    check(&[&[2, 5, 3]], &[], |g, x, _| {
        let a = ops::slice(g, x[0], 0, 3)?;
        let b = ops::slice(g, x[0], 2, 3)?;
        ops::swiglu(g, a, b)
    });
}

#[test]
fn rms_norm() {
    check(&[&[2, 3, 5], &[5]], &[], |g, x, _| ops::rms_norm(g, x[0], x[1], 1e-5));
    // Of the sum alone, of its norm alone, and of both.
    let of = |g: &mut Graph, x: &[Value]| ops::add_rms_norm(g, x[0], x[1], x[2], 1e-5);
    check(&[&[2, 3, 5], &[2, 3, 5]], &[], |g, x, _| {
        let w = ops::fill(g, &[5], 1.0);
        Ok(of(g, &[x[0], x[1], w])?.0)
    });
    check(&[&[2, 3, 5], &[2, 3, 5], &[5]], &[], |g, x, _| Ok(of(g, x)?.1));
    check(&[&[2, 3, 5], &[2, 3, 5], &[5]], &[], |g, x, _| {
        let (sum, norm) = of(g, x)?;
        ops::swiglu(g, sum, norm)
    });
}

#[test]
fn rope() {
    check(&[&[2, 3, 8]], &[], |g, x, _| {
        let positions = ops::positions(g, 3, 7)?;
        let table = ops::rope_table(g, positions, 100.0, 4)?;
        ops::rope(g, x[0], table, 2)
    });
}

#[test]
fn attention() {
    check(&[&[2, 5, 12], &[2, 5, 6], &[2, 5, 6]], &[], |g, x, _| {
        ops::attention(g, x[0], x[1], x[2], 4, 2, Mask::Window(3))
    });
    check(&[&[2, 5, 12], &[2, 3, 6], &[2, 3, 6]], &[], |g, x, _| {
        ops::attention(g, x[0], x[1], x[2], 4, 2, Mask::None)
    });
}

#[test]
fn swiglu() {
    check(&[&[3, 4], &[3, 4]], &[], |g, x, _| ops::swiglu(g, x[0], x[1]));
}

#[test]
fn embedding() {
    check(&[&[4, 3]], &[&[1, 3, 1, 0, 1]], |g, x, i| ops::embedding(g, x[0], i[0]));
}

#[test]
fn cross_entropy() {
    check(&[&[2, 2, 3], &[5, 3]], &[&[4, -1, 0, 2]], |g, x, i| {
        ops::cross_entropy(g, x[0], x[1], i[0])
    });
}

#[test]
fn reparam() {
    check(&[&[2, 3], &[2, 3]], &[], |g, x, _| {
        let noise = ops::fill(g, &[2, 3], -0.7);
        ops::reparam(g, x[0], x[1], noise)
    });
}

#[test]
fn gaussian_kl() {
    check(&[&[2, 3, 2], &[2, 3, 2]], &[], |g, x, _| ops::gaussian_kl(g, x[0], x[1], 2));
}

#[test]
fn dot() {
    check(&[&[3, 2], &[3, 2]], &[], |g, x, _| ops::dot(g, x[0], x[1]));
    check(&[&[3, 2]], &[], |g, x, _| ops::dot(g, x[0], x[0]));
}

/// An input and a graph to put it in.
fn graph(shape: &[usize]) -> (Graph, Value) {
    let mut g = Graph::new();
    let x = g.input("x", shape, Kind::Float, UpdateRate::Step);
    (g, x)
}

#[test]
fn gradients_that_are_not_defined_are_refused() {
    let no_gradient = |result: Result<Vec<Value>>, op, position| match result {
        Err(Error::NoGradient { op: found, position: at }) => {
            assert_eq!((found, at), (op, position));
        }
        other => panic!("{op}: {other:?}"),
    };
    let (mut g, x) = graph(&[1, 2, 2]);
    let noise = g.input("noise", &[1, 2, 2], Kind::Float, UpdateRate::Step);
    let z = ops::reparam(&mut g, x, x, noise).unwrap();
    let loss = ops::dot(&mut g, z, z).unwrap();
    no_gradient(grad(&mut g, loss, &[x, noise]), "reparam", 2);

    let table = g.input("table", &[2, 1, 2], Kind::Float, UpdateRate::Step);
    let y = ops::rope(&mut g, x, table, 1).unwrap();
    let loss = ops::dot(&mut g, y, x).unwrap();
    no_gradient(grad(&mut g, loss, &[table]), "rope", 1);

    let y = ops::swiglu(&mut g, x, x).unwrap();
    let loss = ops::dot(&mut g, y, x).unwrap();
    let dx = grad(&mut g, loss, &[x]).unwrap()[0];
    let loss = ops::dot(&mut g, dx, dx).unwrap();
    no_gradient(grad(&mut g, loss, &[x]), "swiglu_bwd", 1); // through its second output
}

#[test]
fn losses_that_are_no_number_or_do_not_depend_are_refused() {
    let (mut g, x) = graph(&[2]);
    let other = g.input("other", &[2], Kind::Float, UpdateRate::Step);
    let y = ops::add(&mut g, x, x).unwrap();
    assert!(matches!(grad(&mut g, y, &[x]), Err(Error::NotScalar { .. })));
    let loss = ops::dot(&mut g, y, x).unwrap();
    let later = ops::add(&mut g, y, x).unwrap();
    for stranger in [other, later] {
        let refused = grad(&mut g, loss, &[x, stranger]);
        assert!(matches!(refused, Err(Error::Unreachable { position: 1 })));
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let (mut g, x) = graph(&[2, 3, 4]);
    let v = g.input("v", &[5], Kind::Float, UpdateRate::Step);
    let i = g.input("i", &[5], Kind::Int, UpdateRate::Step);
    let scalar = g.input("scalar", &[], Kind::Float, UpdateRate::Step);
    let table = ops::rope_table(&mut g, i, 10.0, 4).unwrap();
    let normal = Layout::Normal;
    let refusals = [
        ops::matmul(&mut g, x, x, normal, normal),
        ops::matmul(&mut g, scalar, x, normal, normal),
        ops::linear(&mut g, x, v),
        ops::linear(&mut g, x, i),
        ops::add(&mut g, x, v),
        ops::add(&mut g, i, i),
        ops::slice(&mut g, x, 2, 2),
        ops::slice(&mut g, v, 0, 1),
        ops::rms_norm(&mut g, x, v, 1e-5),
        ops::positions(&mut g, 3, 1 << 31),
        ops::rope_table(&mut g, i, 10.0, 3),
        ops::rope_table(&mut g, v, 10.0, 4),
        ops::rope(&mut g, x, table, 1),
        ops::rope(&mut g, x, table, 0),
        ops::attention(&mut g, x, x, x, 3, 1, Mask::Window(2)),
        ops::attention(&mut g, x, x, x, 2, 1, Mask::Window(2)),
        ops::attention(&mut g, x, x, x, 2, 2, Mask::Window(0)),
        ops::attention(&mut g, x, x, x, 0, 1, Mask::None),
        ops::attention(&mut g, x, v, v, 2, 2, Mask::None),
        ops::swiglu(&mut g, x, v),
        ops::embedding(&mut g, v, i),
        ops::embedding(&mut g, x, v),
        ops::cross_entropy(&mut g, x, x, i),
        ops::cross_entropy(&mut g, x, v, i),
        ops::reparam(&mut g, x, x, v),
        ops::gaussian_kl(&mut g, x, x, 5),
        ops::gaussian_kl(&mut g, x, x, 0),
        ops::dot(&mut g, x, v),
        ops::sub(&mut g, x, v),
        ops::mul(&mut g, v, x),
        ops::div(&mut g, i, i),
        ops::tanh(&mut g, i),
        ops::sum(&mut g, x, &[3]),
        ops::sum(&mut g, x, &[1, 1]),
        ops::mean(&mut g, i, &[0]),
        ops::sum_all(&mut g, i),
        ops::softmax(&mut g, scalar),
        ops::softmax(&mut g, i),
        ops::reshape(&mut g, x, &[5, 5]),
        ops::permute(&mut g, x, &[0, 1]),
        ops::permute(&mut g, x, &[0, 1, 1]),
        ops::transpose(&mut g, x, 0, 3),
        ops::broadcast(&mut g, x, &[4]),
        ops::broadcast(&mut g, v, &[5, 4]),
        ops::narrow(&mut g, x, 3, 0, 1),
        ops::narrow(&mut g, x, 1, 2, 2),
        ops::narrow(&mut g, x, 1, 0, 0),
        ops::concat(&mut g, &[], 0),
        ops::concat(&mut g, &[x, v], 0),
        ops::concat(&mut g, &[x, x], 3),
    ];
    for (case, refused) in refusals.into_iter().enumerate() {
        assert!(matches!(refused, Err(Error::Shape { .. })), "case {case}: {refused:?}");
    }
}
