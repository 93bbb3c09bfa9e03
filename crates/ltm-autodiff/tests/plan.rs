//! Plans: liveness, hoisting by update rate, and what is refused.

use ltm_autodiff::{
    Error, Graph, Kind, Parameters, Plan, Precision, Store, UpdateRate, Value, grad, ops,
};
use ltm_kernels::{Buffer, DType, Device};
use ltm_testkit::seeded;

/// Small random choices.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 += 1;
        // Seeded numbers lie within ±3.5.
        ((seeded(self.0, 1)[0] + 4.0) * 1e6) as usize % n
    }
}

const LIFETIMES: [UpdateRate; 3] = [UpdateRate::Weights, UpdateRate::Batch, UpdateRate::Step];

/// A graph of 4 inputs and 14 nodes of one shape, then a loss of the last and the gradients that it
/// has. Returns the inputs and every other value.
fn random_graph(dice: &mut Dice) -> (Graph, Vec<Value>, Vec<Value>) {
    let mut g = Graph::new();
    let inputs: Vec<_> =
        (0..4).map(|_| g.input("x", &[1, 2, 3], Kind::Float, LIFETIMES[dice.below(3)])).collect();
    let mut values = inputs.clone();
    for _ in 0..14 {
        let mut pick = || values[dice.below(values.len())];
        let (a, b, c) = (pick(), pick(), pick());
        let value = match dice.below(4) {
            0 | 1 => ops::add(&mut g, a, b),
            2 => ops::swiglu(&mut g, a, b),
            _ => ops::reparam(&mut g, a, b, c),
        };
        values.push(value.unwrap());
    }
    let last = values[values.len() - 1];
    let loss = ops::dot(&mut g, last, last).unwrap();
    let mut others = values.split_off(inputs.len());
    others.push(loss);
    for x in &inputs {
        others.extend(grad(&mut g, loss, &[*x]).unwrap_or_default());
    }
    (g, inputs, others)
}

#[test]
fn shared_memory_changes_no_output() {
    let mut dice = Dice(0);
    let (mut bytes, mut bytes_apart) = (0, 0);
    for case in 0..150 {
        let (g, inputs, values) = random_graph(&mut dice);
        let outputs: Vec<_> = (0..1 + dice.below(3))
            .map(|_| values[dice.below(values.len())])
            .chain(values.last().copied())
            .collect();
        let mut store = Store::new(&g, &Device::Cpu, Precision::F64).unwrap();
        let new = |outputs: &[Value]| Plan::new(&g, &Device::Cpu, Precision::F64, outputs).unwrap();
        let (mut plan, mut apart) = (new(&outputs), new(&values));
        bytes += plan.size_bytes();
        bytes_apart += apart.size_bytes();
        for round in 0..6 {
            for (i, x) in inputs.iter().enumerate() {
                if round == 0 || dice.below(3) == 0 {
                    let data: Vec<_> = seeded(dice.below(1000) as u64 + i as u64, 6)
                        .iter()
                        .map(|x| 0.2 * *x as f32)
                        .collect();
                    store.write_f32(*x, &data).unwrap();
                }
            }
            let mut handed = Vec::new();
            let mut hand = |value, output: &Buffer| -> Result<(), Error> {
                handed.push((value, output.to_f64().unwrap()));
                Ok(())
            };
            plan.run_handing(&store, &mut hand).unwrap();
            let order: Vec<_> = plan.finish_order().collect();
            assert_eq!(handed.iter().map(|(value, _)| *value).collect::<Vec<_>>(), order);
            for (value, then) in &handed {
                let last = plan.output(*value).unwrap().to_f64().unwrap();
                assert_eq!(then, &last, "case {case}: an output was handed over too early");
            }
            assert!(outputs.iter().all(|value| order.contains(value)), "case {case}");
            apart.run(&store).unwrap();
            for value in &outputs {
                let (found, expected) = (plan.output(*value), apart.output(*value));
                let (found, expected) =
                    (found.unwrap().to_f64().unwrap(), expected.unwrap().to_f64().unwrap());
                let same = found.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "case {case}, round {round}: {found:?} is not {expected:?}");
            }
        }
    }
    assert!(bytes < bytes_apart, "nothing was shared: {bytes} of {bytes_apart} bytes");
}

#[test]
fn nodes_run_as_often_as_their_lifetime() {
    let mut g = Graph::new();
    let shape = [1, 2, 4];
    let mut input = |update_rate| g.input("x", &shape, Kind::Float, update_rate);
    let inputs = LIFETIMES.map(&mut input);
    let [w, x, s] = inputs;
    let one = ops::fill(&mut g, &shape, 1.0);
    let w = ops::slice(&mut g, w, 0, 2).unwrap();
    let w = ops::add(&mut g, w, one).unwrap();
    let x = ops::swiglu(&mut g, x, w).unwrap();
    let s_x = ops::reparam(&mut g, s, x, w).unwrap();
    let loss = ops::dot(&mut g, s_x, s_x).unwrap();
    ops::add(&mut g, s_x, s).unwrap(); // never read, so never run

    let mut store = Store::new(&g, &Device::Cpu, Precision::F32).unwrap();
    let mut plan = Plan::new(&g, &Device::Cpu, Precision::F32, &[loss]).unwrap();
    let write = |store: &mut Store, i: usize| store.write_f32(inputs[i], &[0.5; 8]).unwrap();
    (0..3).for_each(|i| write(&mut store, i));

    for _epoch in 0..2 {
        write(&mut store, 0);
        for _batch in 0..3 {
            write(&mut store, 1);
            for _step in 0..5 {
                write(&mut store, 2);
                plan.run(&store).unwrap();
                plan.run(&store).unwrap(); // nothing was written: nothing runs
            }
        }
    }
    let runs: Vec<_> = plan.counts().iter().map(|c| (c.name, c.nodes, c.runs)).collect();
    let expected =
        [("add", 1, 2), ("dot", 1, 30), ("fill", 1, 1), ("reparam", 1, 30), ("slice", 1, 2)];
    assert_eq!(runs[..5], expected);
    assert_eq!(runs[5..], [("swiglu", 1, 6)]);
    assert!(plan.cost(UpdateRate::Step).flops < plan.cost(UpdateRate::Constant).flops);
}

/// `prepare` brings everything below the step up to date, `run_step` runs the step alone: the halves of `run` that a
/// device records and replays.
#[test]
fn prepared_steps_give_what_a_whole_run_gives() {
    let mut g = Graph::new();
    let inputs = LIFETIMES.map(|rate| g.input("x", &[2], Kind::Float, rate));
    let [w, x, s] = inputs;
    let below = ops::add(&mut g, w, x).unwrap();
    let sum = ops::add(&mut g, below, s).unwrap();
    let mut store = Store::new(&g, &Device::Cpu, Precision::F32).unwrap();
    let mut plan = Plan::new(&g, &Device::Cpu, Precision::F32, &[below, sum]).unwrap();
    let read = |plan: &Plan, value| plan.output(value).unwrap().to_f64().unwrap()[0];
    let runs = |plan: &Plan| plan.counts().iter().map(|count| count.runs).sum::<u64>();
    for (input, number) in inputs.into_iter().zip([100.0, 10.0, 1.0]) {
        store.write_f32(input, &[number; 2]).unwrap();
    }
    plan.prepare(&store).unwrap();
    assert_eq!((read(&plan, below), runs(&plan)), (110.0, 1), "a step ran, or nothing did");
    for step in 1..4 {
        store.write_f32(s, &[step as f32; 2]).unwrap();
        plan.run_step(&store).unwrap();
        assert_eq!((read(&plan, sum), runs(&plan)), (110.0 + f64::from(step), 1 + step as u64));
    }
    // Nothing changed below: nothing is prepared. After a change of the batch only what reads it is.
    plan.prepare(&store).unwrap();
    assert_eq!(runs(&plan), 4);
    store.write_f32(x, &[20.0; 2]).unwrap();
    plan.prepare(&store).unwrap();
    assert_eq!((read(&plan, below), runs(&plan)), (120.0, 5));
    // A whole run after it runs the step, whose last result is of the batch before.
    plan.run(&store).unwrap();
    assert_eq!((read(&plan, sum), runs(&plan)), (123.0, 6));
}

#[test]
fn a_cast_is_run_once_and_only_between_types() {
    let mut g = Graph::new();
    let [x, tiny] = ["x", "tiny"].map(|name| g.input(name, &[1], Kind::Float, UpdateRate::Step));
    let sum = ops::add(&mut g, x, tiny).unwrap();
    let narrow = ops::cast(&mut g, sum, Kind::Activation).unwrap();
    assert_eq!(ops::cast(&mut g, sum, Kind::Activation).unwrap(), narrow);
    assert_eq!(ops::cast(&mut g, narrow, Kind::Activation).unwrap(), narrow);
    let twice = ops::add(&mut g, narrow, narrow).unwrap();
    let wide = ops::cast(&mut g, twice, Kind::Float).unwrap();
    let loss = ops::dot(&mut g, wide, wide).unwrap();
    let dx = grad(&mut g, loss, &[x]).unwrap()[0];
    assert_eq!(g.spec(dx).kind, Kind::Float);
    assert!(matches!(ops::add(&mut g, x, narrow), Err(Error::Shape { .. })), "kinds differ");

    let narrowing =
        Precision { float: DType::F64, activation: DType::F32, matmul_weight: DType::F32 };
    // The sum needs 31 binary digits. There and back, and the same for the gradient: 4 casts.
    let sum = 1.0 + 2f64.powi(-30);
    for (precision, held, casts) in [(Precision::F64, sum, 0), (narrowing, 1.0, 4)] {
        let mut store = Store::new(&g, &Device::Cpu, precision).unwrap();
        store.write_f32(x, &[1.0]).unwrap();
        store.write_f32(tiny, &[2f32.powi(-30)]).unwrap();
        let mut plan = Plan::new(&g, &Device::Cpu, precision, &[loss, dx, narrow]).unwrap();
        plan.run(&store).unwrap();
        let output = |value| plan.output(value).unwrap().to_f64().unwrap();
        assert_eq!((output(narrow), output(loss)), (vec![held], vec![4.0 * held * held]));
        assert_eq!(output(dx), [8.0 * held]);
        let nodes = plan.counts().iter().find(|c| c.name == "cast").map_or(0, |c| c.nodes);
        assert_eq!(nodes, casts);
    }
}

#[test]
fn a_reshape_takes_no_memory_and_no_time() {
    let mut g = Graph::new();
    let x = g.input("x", &[2, 3], Kind::Float, UpdateRate::Step);
    let y = ops::tanh(&mut g, x).unwrap();
    let flat = ops::reshape(&mut g, y, &[6]).unwrap();
    let tall = ops::reshape(&mut g, flat, &[3, 2]).unwrap();
    assert_eq!(ops::reshape(&mut g, tall, &[3, 2]).unwrap(), tall);
    // The input, `y` and both shapes are read after each other has been.
    let sum = ops::add(&mut g, flat, flat).unwrap();
    let loss = ops::sum_all(&mut g, sum).unwrap();
    let dx = grad(&mut g, loss, &[x]).unwrap()[0];
    let mut store = Store::new(&g, &Device::Cpu, Precision::F64).unwrap();
    store.write_f32(x, &[0.0, 0.5, 1.0, -0.5, -1.0, 2.0]).unwrap();
    let mut plan = Plan::new(&g, &Device::Cpu, Precision::F64, &[y, tall, loss, dx]).unwrap();
    plan.run(&store).unwrap();
    assert!(plan.counts().iter().all(|count| count.name != "reshape"));
    let output = |value| plan.output(value).unwrap().to_f64().unwrap();
    assert_eq!(output(y), output(tall));
    assert_eq!(output(loss)[0], 2.0 * output(y).iter().sum::<f64>());
    assert_eq!(output(dx)[0], 2.0);
    assert_eq!((g.shape(dx), g.shape(loss)), (&[2, 3][..], &[1][..]));
}

#[test]
fn sums_of_activations_lose_nothing_on_the_way_to_full_precision() {
    let narrowing =
        Precision { float: DType::F64, activation: DType::F32, matmul_weight: DType::F32 };
    let mut g = Graph::new();
    let bias = g.input("bias", &[1], Kind::Float, UpdateRate::Step);
    let x = g.input("x", &[1 << 12], Kind::Float, UpdateRate::Step);
    let [bias_narrow, x_narrow] =
        [bias, x].map(|v| ops::cast(&mut g, v, Kind::Activation).unwrap());
    let y = ops::mul(&mut g, x_narrow, bias_narrow).unwrap();
    let loss = ops::sum_all(&mut g, y).unwrap();
    let dbias = grad(&mut g, loss, &[bias]).unwrap()[0];
    assert_eq!((g.spec(loss).kind, g.spec(dbias).kind), (Kind::Float, Kind::Float));
    let mut store = Store::new(&g, &Device::Cpu, narrowing).unwrap();
    store.write_f32(bias, &[1.0]).unwrap();
    // One large number and many small ones, whose sum needs 30 binary digits.
    let mut data = vec![1.0; 1 << 12];
    data[0] = (1 << 30) as f32;
    store.write_f32(x, &data).unwrap();
    let mut plan = Plan::new(&g, &Device::Cpu, narrowing, &[loss, dbias]).unwrap();
    plan.run(&store).unwrap();
    let expected = f64::from((1u32 << 30) + (1 << 12) - 1);
    for value in [loss, dbias] {
        assert_eq!(plan.output(value).unwrap().to_f64().unwrap(), [expected]);
    }
}

#[test]
fn gradients_of_different_kinds_add_up_in_full_precision() {
    let mut g = Graph::new();
    let w = g.input("w", &[2, 2], Kind::Float, UpdateRate::Step);
    let narrow = ops::cast(&mut g, w, Kind::Activation).unwrap();
    // The product gives its gradient in full precision, the sum as an activation.
    let product = ops::linear(&mut g, narrow, narrow).unwrap();
    let y = ops::add(&mut g, product, narrow).unwrap();
    let loss = ops::sum_all(&mut g, y).unwrap();
    let dw = grad(&mut g, loss, &[w]).unwrap()[0];
    assert_eq!(g.spec(dw).kind, Kind::Float);
    let mut store = Store::new(&g, &Device::Cpu, Precision::F32).unwrap();
    store.write_f32(w, &[1.0, 2.0, 3.0, 4.0]).unwrap();
    let mut plan = Plan::new(&g, &Device::Cpu, Precision::F32, &[dw]).unwrap();
    plan.run(&store).unwrap();
    // Σ (W Wᵀ) = Σ_k (column sum k)², of slope 2·(column sum).
    assert_eq!(plan.output(dw).unwrap().to_f64().unwrap(), [9.0, 13.0, 9.0, 13.0]);
}

#[test]
fn mistakes_are_refused() {
    let mut g = Graph::new();
    let table = g.input("table", &[4, 2], Kind::Float, UpdateRate::Weights);
    let tokens = g.input("tokens", &[3], Kind::Int, UpdateRate::Batch);
    let x = ops::embedding(&mut g, table, tokens).unwrap();
    let y = ops::add(&mut g, x, x).unwrap();
    let mut store = Store::new(&g, &Device::Cpu, Precision::F32).unwrap();
    let mut plan = Plan::new(&g, &Device::Cpu, Precision::F32, &[y]).unwrap();

    store.write_f32(table, &[1.0; 8]).unwrap();
    let Err(Error::Unwritten { name }) = plan.run(&store) else { panic!("tokens are missing") };
    assert_eq!(name, "tokens");
    store.write_i32(tokens, &[0, 4, 1]).unwrap();
    let Err(Error::Kernel(ltm_kernels::Error::Index { position, .. })) = plan.run(&store) else {
        panic!("4 is past the vocabulary")
    };
    assert_eq!(position, 1);
    store.write_i32(tokens, &[0, 3, 1]).unwrap();
    plan.run(&store).unwrap();
    assert_eq!(plan.output(y).unwrap().to_f64().unwrap(), [2.0; 6]);

    assert!(matches!(plan.output(x), Err(Error::Unknown { .. })));
    assert!(store.write_i32(table, &[1; 8]).is_err());
    assert!(store.write_f32(table, &[1.0; 7]).is_err());
    assert!(matches!(store.write_f32(x, &[1.0; 6]), Err(Error::Unknown { .. })));
    let stranger = Store::new(&Graph::new(), &Device::Cpu, Precision::F32).unwrap();
    assert!(matches!(plan.run(&stranger), Err(Error::OtherGraph { .. })));
}

/// Parameters are outside the stores of two graphs, which see each change and each other set, and run nothing without
/// one.
#[test]
fn graphs_share_parameters() {
    let new = || {
        let mut g = Graph::new();
        let w = g.input("w", &[2], Kind::Float, UpdateRate::Weights);
        let x = g.input("x", &[2], Kind::Float, UpdateRate::Step);
        let square = ops::dot(&mut g, w, w).unwrap();
        let product = ops::dot(&mut g, w, x).unwrap();
        let store = Store::with_parameters(&g, &Device::Cpu, Precision::F64, &[w]).unwrap();
        let outputs = [square, product];
        let plan = Plan::new(&g, &Device::Cpu, Precision::F64, &outputs).unwrap();
        (store, plan, w, x, outputs)
    };
    let set = |w: [f64; 2]| Parameters::new(vec![Buffer::from_vec(w.to_vec())]);
    let (mut own, other) = (set([1.0, 2.0]), set([3.0, 0.0]));
    for mut case in [new(), new()] {
        let (store, plan, w, x, outputs) = &mut case;
        store.write_f32(*x, &[1.0, 1.0]).unwrap();
        let mut check =
            |store: &Store, parameters: &Parameters, expected: [f64; 2], squares: u64| {
                plan.run(store.with(parameters)).unwrap();
                let found = outputs.map(|value| plan.output(value).unwrap().to_f64().unwrap()[0]);
                assert_eq!(found, expected);
                let runs: u64 = plan.counts().iter().map(|count| count.runs).sum();
                // The square runs when the parameters are others, the product whenever anything is.
                assert_eq!(runs, 2 * squares + u64::from(squares == 1 && expected[1] != 3.0));
            };
        own.get_mut(0).unwrap().as_mut_slice::<f64>().unwrap()[0] = 1.0;
        check(store, &own, [5.0, 3.0], 1);
        check(store, &own, [5.0, 3.0], 1);
        store.write_f32(*x, &[2.0, 1.0]).unwrap();
        check(store, &own, [5.0, 4.0], 1);
        assert!(plan.run(&*store).is_err(), "without parameters");
        assert!(plan.run(store.with(&Parameters::new(Vec::new()))).is_err());
        assert!(matches!(store.get(*w), Err(Error::Unknown { .. })));
        assert!(store.write_f32(*w, &[0.0; 2]).is_err());
        let id = own.id();
        plan.run(store.with(&other)).unwrap();
        assert_eq!(plan.output(outputs[0]).unwrap().to_f64().unwrap(), [9.0]);
        own.get_mut(0).unwrap().as_mut_slice::<f64>().unwrap()[0] = 4.0;
        plan.run(store.with(&own)).unwrap();
        assert_eq!(plan.output(outputs[0]).unwrap().to_f64().unwrap(), [20.0]);
        assert_eq!((own.id(), own.get_mut(1).is_none()), (id, true));
    }
}
