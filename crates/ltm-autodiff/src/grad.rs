//! Gradients as more graph: reverse accumulation over the nodes between `wrt` and `loss`.

use std::collections::HashMap;

use crate::graph::Io;
use crate::{Error, Graph, Kind, Result, Value, ops};

/// Adds to `g` the gradient of `loss` for exactly the values in `wrt`, and returns them in order.
///
/// No node is added for a gradient that was not requested: with respect to latents alone, no weight
/// gradient exists in the graph.
///
/// # Errors
/// [`Error::NotScalar`] when `loss` is not one number, [`Error::Unreachable`] when it does not
/// depend on one of the values, [`Error::NoGradient`] when an op on the way has no gradient,
/// [`Error::Gradient`] when it returns gradients of the wrong number or shape,
/// [`Error::OtherGraph`] for a value of another graph.
pub fn grad(g: &mut Graph, loss: Value, wrt: &[Value]) -> Result<Vec<Value>> {
    if !g.owns(loss) {
        return Err(Error::OtherGraph { what: "the loss".into() });
    }
    if let Some(i) = wrt.iter().position(|v| !g.owns(*v)) {
        return Err(Error::OtherGraph { what: format!("value {i} of those to differentiate by") });
    }
    if g.spec(loss).len() != 1 {
        return Err(Error::NotScalar { shape: g.shape(loss).to_vec() });
    }
    // A node matters when one of its inputs does; nodes are in topological order.
    let n_nodes = loss.node + 1;
    let mut matters = vec![false; n_nodes];
    for value in wrt {
        if value.node < n_nodes {
            matters[value.node] = true;
        }
    }
    for node in 0..n_nodes {
        matters[node] |= g.nodes[node].inputs.iter().any(|v| matters[v.node]);
    }

    let spec = g.spec(loss).clone();
    let seed = ops::fill(g, &spec.shape, 1.0);
    let seed = ops::cast(g, seed, spec.kind)?;
    let mut gradients: HashMap<Value, Value> = HashMap::from([(loss, seed)]);
    for node in (0..n_nodes).rev() {
        let Some(op) = g.nodes[node].op.clone() else { continue };
        let n_outputs = g.nodes[node].outputs.len();
        let outputs: Vec<_> = (0..n_outputs).map(|output| g.value(node, output)).collect();
        let douts: Vec<_> = outputs.iter().map(|v| gradients.get(v).copied()).collect();
        if douts.iter().all(Option::is_none) {
            continue;
        }
        let inputs = g.nodes[node].inputs.clone();
        let wanted: Vec<_> = inputs.iter().map(|v| matters[v.node]).collect();
        if !wanted.contains(&true) {
            continue;
        }
        let io = Io { inputs, outputs };
        let first_new = g.nodes.len();
        let grads = op.grad_outputs(g, &io, &douts, &wanted)?;
        check(g, op.name(), &io.inputs, &grads, &wanted)?;
        for (position, (input, gradient)) in io.inputs.iter().zip(grads).enumerate() {
            if !wanted[position] {
                continue;
            }
            let gradient = gradient.ok_or(Error::NoGradient { op: op.name(), position })?;
            let total = match gradients.get(input) {
                Some(&earlier) if gradient.node >= first_new => sum(g, earlier, gradient)?,
                Some(&earlier) => add(g, earlier, gradient)?,
                None => gradient,
            };
            gradients.insert(*input, total);
        }
    }
    wrt.iter()
        .enumerate()
        .map(|(position, v)| gradients.get(v).copied().ok_or(Error::Unreachable { position }))
        .collect()
}

/// Refuses gradients that are not one per input, of the input's shape and of floats.
fn check(
    g: &Graph,
    op: &'static str,
    inputs: &[Value],
    grads: &[Option<Value>],
    wanted: &[bool],
) -> Result<()> {
    let refuse = |reason| Err(Error::Gradient { op, reason });
    if grads.len() != inputs.len() {
        return refuse(format!("expected {} gradients, got {}", inputs.len(), grads.len()));
    }
    for (i, (input, gradient)) in inputs.iter().zip(grads).enumerate().filter(|(i, _)| wanted[*i]) {
        let Some(gradient) = *gradient else { continue };
        if !g.owns(gradient) {
            return Err(Error::OtherGraph { what: format!("the gradient of input {i} of `{op}`") });
        }
        let (expected, got) = (g.shape(*input), g.spec(gradient));
        if got.shape != expected || got.kind == Kind::Int {
            let (shape, kind) = (&got.shape, got.kind);
            return refuse(format!(
                "the gradient of input {i} must be floats of shape {expected:?}, got {kind:?} \
                 {shape:?}"
            ));
        }
    }
    Ok(())
}

/// `earlier + gradient`, where nobody else reads `gradient`: if its node can add on its own, one that
/// does so takes its place, and it never runs.
fn sum(g: &mut Graph, earlier: Value, gradient: Value) -> Result<Value> {
    let node = &g.nodes[gradient.node];
    let alike = g.spec(earlier) == g.spec(gradient);
    let Some(adding) = node.op.as_ref().filter(|_| alike).and_then(|op| op.adding()) else {
        return add(g, earlier, gradient);
    };
    let inputs = [&[earlier], node.inputs.as_slice()].concat();
    let spec = g.spec(gradient).clone();
    Ok(g.push_shared(adding, &inputs, vec![spec])[0])
}

/// `a + b`, in full precision where only one of them is.
fn add(g: &mut Graph, a: Value, b: Value) -> Result<Value> {
    if g.spec(a).kind == g.spec(b).kind {
        return ops::add(g, a, b);
    }
    let (a, b) = (ops::cast(g, a, Kind::Float)?, ops::cast(g, b, Kind::Float)?);
    ops::add(g, a, b)
}
