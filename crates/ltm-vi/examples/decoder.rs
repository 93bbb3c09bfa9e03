//! A decoder of one's own, scored by importance samples: a neural topic model, in which one latent vector gives every
//! word of a text the same distribution (Miao, Yu and Blunsom 2016). `cargo run -p ltm-vi --example decoder`.

use std::sync::Arc;

use ltm_vi::ltm_autodiff::{self, Graph, Kind, Value, ops};
use ltm_vi::ltm_model::{Init, ParamSpec, Part};
use ltm_vi::{
    Batch, Device, DeviceWeights, Extents, InferConfig, InferKey, Inference, Likelihood, Precision,
    Program, Protocol, Result, Sequences, SlowGradient, StandardNormal, Weights, score,
};

const WORDS: [&str; 6] = ["ball", "goal", "team", "vote", "law", "party"];
/// Of each word: how much it belongs to sport, and to politics.
const TOPICS: [[f32; 2]; 6] =
    [[2.0, 0.0], [2.0, 0.0], [1.5, 0.5], [0.0, 2.0], [0.0, 2.0], [0.5, 1.5]];

/// `p(word | z)` is the softmax of `TOPICS · z`, at every position.
struct TopicModel {
    max_seq_len: usize,
}

impl Likelihood for TopicModel {
    fn extents(&self) -> Extents {
        Extents {
            n_latents: 1,
            dim: 2,
            n_layers: 1,
            vocab_size: WORDS.len(),
            max_seq_len: self.max_seq_len,
            mask_id: None,
            has_encoder: false,
        }
    }

    fn params(&self) -> Vec<ParamSpec> {
        let init = Init::Normal { std: 1.0 };
        let (name, shape) = ("topics".into(), vec![WORDS.len(), 2]);
        vec![ParamSpec { name, shape, init, decay: true, part: Part::Decoder }]
    }

    fn nll(
        &self,
        g: &mut Graph,
        weights: &[Value],
        tokens: Value,
        targets: Value,
        z: Option<Value>,
    ) -> ltm_autodiff::Result<Value> {
        let &[b, t] = g.shape(tokens) else { unreachable!("tokens are (B,T)") };
        // The latent (B,1,C), repeated for each word.
        let zeros = ops::fill(g, &[b, t, 2], 0.0);
        let z = ops::add(g, zeros, z.expect("the extents have latents"))?;
        let z = ops::cast(g, z, Kind::Activation)?;
        let topics = ops::cast(g, weights[0], Kind::MatmulWeight)?;
        ops::cross_entropy(g, z, topics, targets)
    }
}

/// Fits and scores a text of one topic, and one of two.
pub fn main() -> Result<()> {
    let (cpu, precision, none) = (Device::Cpu, Precision::F32, SlowGradient::None);
    let model = Arc::new(TopicModel { max_seq_len: 6 });
    let weights = Weights { params: vec![TOPICS.as_flattened().to_vec()] };
    let weights = DeviceWeights::of(&model.params(), &weights, &cpu, precision)?;
    let texts = [0, 1, 2, 0, 1, 0, 0, 3, 2, 5, 4, 1];
    // The decoder reads no earlier words, so its inputs do not matter.
    let batch = Batch::new(model.extents(), 2, &[0; 12], &texts)?;
    let mut program = Program::of(model, Arc::new(StandardNormal), [2, 6], &cpu, precision, none)?;
    let mut problem = program.problem(&weights, &batch)?;

    let inference = Inference::finished(&InferConfig { lr: 0.1, ..InferConfig::published() })?;
    let key = InferKey { seed: 42, step: 0, sequences: Sequences::From(0) };
    let latents = inference.infer(&mut problem, key, &mut |_| Ok(()))?;
    let elbo = Protocol::Elbo { samples: 256 };
    let elbo = score(&mut problem, elbo, &latents, &inference, key)?.nats;
    let iwae = Protocol::Iwae { samples: 256 };
    let iwae = score(&mut problem, iwae, &latents, &inference, key)?.nats;
    for (row, z) in latents.center()?.chunks(2).enumerate() {
        let words: Vec<_> = texts[6 * row..][..6].iter().map(|id| WORDS[*id as usize]).collect();
        println!("{}", words.join(" "));
        println!("  sport {:.2}, politics {:.2}", z[0], z[1]);
        println!("  -ELBO {:.2}, IWAE bound {:.2} nats", elbo[row], iwae[row]);
    }
    assert!(iwae[0] < iwae[1], "a text of one topic is more likely");
    Ok(())
}
