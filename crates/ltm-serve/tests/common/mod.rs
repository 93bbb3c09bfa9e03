//! A server on a free port of loopback with two small models over bytes, and a plain client.
#![allow(dead_code, reason = "each test file uses a part")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use ltm_eval::ltm_model::{ModelConfig, Weights};
use ltm_eval::ltm_train::data::Bytes;
use ltm_eval::ltm_train::data::Tokenizer as _;
use ltm_eval::ltm_train::eval::KEY_STEP;
use ltm_eval::ltm_train::{Checkpoint, Config, checkpoint};
use ltm_eval::ltm_vi::{
    Batch, InferKey, Inference, Latents, Program, Protocol, Sequences, SlowGradient, score,
};
use ltm_serve::{Options, Server};
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// Tokens of the models' context.
pub const CONTEXT: usize = 64;

/// A server that ends when it is dropped.
pub struct Served {
    pub address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server ends");
        }
    }
}

/// A model over bytes: with four latent vectors, or without.
fn config(n_latents: usize) -> Config {
    let text = include_str!("../../../ltm-train/tests/tiny.toml");
    let mut config = Config::parse(text, Path::new("tiny.toml"), &[]).expect("it is good");
    config.model = ModelConfig {
        dim: 16,
        n_layers: 2,
        n_heads: 2,
        n_kv_heads: 1,
        vocab_size: 257,
        max_seq_len: CONTEXT,
        window: 8,
        n_latents,
        ffn_hidden: 48,
        ..ModelConfig::ltm_small()
    };
    config.train.seq_len = CONTEXT;
    config
}

fn weights(config: &Config) -> Weights {
    let mut weights = Weights::init(&config.model, 3).expect("the model is good");
    weights.params.iter_mut().flatten().for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 8.0 });
    weights
}

fn model(n_latents: usize) -> Checkpoint {
    let config = config(n_latents);
    let weights = weights(&config);
    Checkpoint {
        dir: "memory".into(),
        state: checkpoint::State {
            step: 0,
            seed: config.run.seed,
            batches: 0,
            kl_balance: None,
            tokenizer: Bytes.spec(),
            data: None,
            files: Default::default(),
        },
        config,
        weights,
        tokenizer: std::sync::Arc::new(Bytes),
    }
}

/// The models `latents` and `plain`.
pub fn models() -> Vec<(String, Checkpoint)> {
    vec![("latents".into(), model(4)), ("plain".into(), model(0))]
}

/// A server of these models.
pub fn served() -> Served {
    served_with(Options::default())
}

/// The same with other options.
pub fn served_with(options: Options) -> Served {
    let server = Server::start(models(), options).expect("the models are good");
    let (end, ended) = oneshot::channel();
    let (started, address) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("threads").block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            started.send(listener.local_addr().expect("an address")).expect("awaited");
            server.run(listener, async { ended.await.unwrap_or_default() }).await;
        });
    });
    let address = address.recv().expect("it starts");
    Served { address, end: Some(end), thread: Some(thread) }
}

/// An answer.
pub struct Reply {
    pub status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("UTF-8")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The objects of a stream's lines, without the last.
    pub fn events(&self) -> Vec<Value> {
        let text = self.text();
        let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
        lines
            .filter(|line| *line != "[DONE]")
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
    stream
}

/// Sends bytes and reads until the server closes the connection.
pub fn exchange(address: SocketAddr, request: &[u8]) -> Option<Reply> {
    let mut stream = connect(address);
    // A server that refuses may close before it has read everything.
    let _ = stream.write_all(request);
    read(&mut stream)
}

/// Reads an answer until the connection closes.
pub fn read(stream: &mut TcpStream) -> Option<Reply> {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    let end = all.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut body = all[end + 4..].to_vec();
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body = unchunked(&body);
    }
    Some(Reply { status, head, body })
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&body[..end])
            .ok()
            .and_then(|size| usize::from_str_radix(size, 16).ok());
        let Some(size) = size.filter(|size| *size > 0 && end + 2 + size <= body.len()) else {
            break;
        };
        whole.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = body.get(end + 2 + size + 2..).unwrap_or_default();
    }
    whole
}

fn request(served: &Served, method: &str, path: &str, body: &str) -> Reply {
    let host = served.address;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    exchange(served.address, [head.as_bytes(), body.as_bytes()].concat().as_slice())
        .expect("an answer")
}

pub fn get(served: &Served, path: &str) -> Reply {
    request(served, "GET", path, "")
}

pub fn post(served: &Served, path: &str, body: &str) -> Reply {
    request(served, "POST", path, body)
}

/// The nats of a text by a protocol, as an evaluation computes them.
pub fn nats(model: &str, text: &str, protocol: Protocol) -> f64 {
    let config = config(if model == "latents" { 4 } else { 0 });
    let (device, precision) = config.run.compute_evaluation().expect("a device");
    let weights = config.on_device(&weights(&config)).expect("they fit");
    let ids = Bytes.encode(text).expect("bytes");
    let tokens: Vec<i32> = [Bytes.separator()].into_iter().chain(ids).map(|id| id as i32).collect();
    let t = tokens.len() - 1;
    // A text that is shorter than a block is one block.
    let protocol = match protocol {
        Protocol::Prequential { stride, samples } => {
            Protocol::Prequential { stride: stride.min(t), samples }
        }
        other => other,
    };
    let none = SlowGradient::None;
    let mut program =
        Program::new(&config.model, 1, t, &device, precision, none).expect("a program");
    let batch = Batch::new(&config.model, 1, &tokens[..t], &tokens[1..]).expect("tokens");
    let inference = Inference::finished(&config.infer).expect("a method");
    let seed = config.run.seed;
    let key = InferKey { seed, step: KEY_STEP, sequences: Sequences::From(0) };
    let mut problem = program.problem(&weights, &batch).expect("they fit");
    let latents = match model {
        "latents" => Latents::None,
        _ => inference.infer(&mut problem, key, &mut |_| Ok(())).expect("nothing to fit"),
    };
    score(&mut problem, protocol, &latents, &inference, key).expect("a score").nats[0]
}

/// The log-probability of a text's first token: the second entry of the text after its separator.
pub fn first_log_prob(served: &Served, model: &str, text: &str) -> f64 {
    let prompt = format!("<|endoftext|>{text}");
    let request =
        json!({"model": model, "prompt": prompt, "max_tokens": 0, "logprobs": 1, "echo": true});
    let answer = post(served, "/v1/completions", &request.to_string()).json();
    answer["choices"][0]["logprobs"]["token_logprobs"][1].as_f64().expect("a number")
}

/// `KL(q || N(0,I))` of the posterior in an answer, in nats, by its closed form.
pub fn kl(answer: &Value) -> f64 {
    let numbers = |field: &str| {
        let all = answer[field].as_array().expect("numbers").clone();
        all.into_iter().map(|x| x.as_f64().expect("a number"))
    };
    let terms = numbers("mu").zip(numbers("log_var"));
    terms.map(|(mu, log_var)| (log_var.exp() + mu * mu - 1.0 - log_var) / 2.0).sum()
}
