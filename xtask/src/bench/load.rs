//! `cargo xtask bench load`: many clients of `ltm serve` at once, and the same requests one by one. Some clients leave while
//! their text is written, some send what is no request; what the others get is checked. Knows HTTP, never a model.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::runs;
use crate::flags::Load;
use crate::{cargo, exec, root, target_dir};

/// Different requests: each has its own prompt and seed.
const REQUESTS: usize = 24;
/// Tokens of each text.
const MAX_TOKENS: usize = 48;
/// How much more memory the server may have at the end than after a quarter of the time.
const GROWTH: f64 = 1.1;
/// How many times as many tokens per second must arrive together as one by one. The goal is 2.5, which is reached where nothing
/// but server and clients computes.
const LEAST_GAIN: f64 = 2.0;

const PROMPTS: [&str; 6] = [
    "one sunny morning",
    "it was a rainy day at the school , and leo arrived",
    "on a snowy day , henry went to the farm",
    "on a",
    "one sunny morning , tom went to the river",
    "it was a sunny day at the square , and rosa arrived with a yellow mouse . there",
];

/// A server that is ended with this.
struct Server {
    process: Child,
    address: String,
    model: String,
}

/// A text with when it came.
struct Text {
    text: String,
    tokens: u64,
    first: Duration,
}

/// What the clients of one kind have seen.
#[derive(Default)]
struct Seen {
    texts: u64,
    tokens: u64,
    first: Vec<f64>,
    left: u64,
    refused: u64,
    faults: Vec<String>,
}

/// Starts the server, asks each request alone, then lets all clients ask at once.
pub fn run(load: &Load) -> Result<()> {
    exec(&mut cargo(["build", "--release", "--package", "ltm-cli"]))?;
    let server = Server::start(load)?;
    let alone: Vec<Text> =
        (0..REQUESTS).map(|number| server.text(number)).collect::<Result<_>>()?;
    let (one_by_one, mut first_alone) = one_by_one(&server, load)?;
    let (seen, memory) = together(&server, &alone, load)?;
    let rate = seen.tokens as f64 / load.seconds as f64;
    let mut first = seen.first.clone();
    let ([p50, p99], [alone_p50, alone_p99]) =
        (percentiles(&mut first), percentiles(&mut first_alone));
    let line = json!({
        "model": server.model, "clients": load.clients, "seconds": load.seconds, "max_tokens": MAX_TOKENS,
        "texts": seen.texts, "tokens_per_second": rate, "one_by_one_tokens_per_second": one_by_one,
        "first_token_seconds": { "p50": p50, "p99": p99, "alone_p50": alone_p50, "alone_p99": alone_p99 },
        "left": seen.left, "refused": seen.refused, "faults": seen.faults.len(), "memory_mib": memory,
    });
    let table = summary(&line);
    outln!("{}", table.trim_end())?;
    ensure!(seen.faults.is_empty(), "{} faults, the first: {}", seen.faults.len(), seen.faults[0]);
    ensure!(
        memory[1] <= GROWTH * memory[0],
        "the server's memory grew from {:.0} to {:.0} MiB",
        memory[0],
        memory[1]
    );
    ensure!(
        rate > LEAST_GAIN * one_by_one,
        "{rate:.0} tokens per second together, {one_by_one:.0} one by one"
    );
    if load.save { runs::save("serve-load", &[line], &table) } else { Ok(()) }
}

/// The requests one after the other, again and again for a tenth of the time: tokens per second, and the seconds to each
/// first token.
fn one_by_one(server: &Server, load: &Load) -> Result<(f64, Vec<f64>)> {
    let (begun, mut tokens, mut first) = (Instant::now(), 0, Vec::new());
    while begun.elapsed() < Duration::from_secs(load.seconds) / 10 {
        for number in 0..REQUESTS {
            let text = server.text(number)?;
            tokens += text.tokens;
            first.push(text.first.as_secs_f64());
        }
    }
    Ok((tokens as f64 / begun.elapsed().as_secs_f64(), first))
}

/// All clients at once; returns what they have seen and the server's memory after a quarter and at the end, in MiB.
fn together(server: &Server, alone: &[Text], load: &Load) -> Result<(Seen, [f64; 2])> {
    let (seen, is_over) = (Mutex::new(Seen::default()), AtomicBool::new(false));
    let mut memory = [0.0; 2];
    std::thread::scope(|scope| -> Result<()> {
        for client in 0..load.clients {
            let (seen, is_over) = (&seen, &is_over);
            scope.spawn(move || {
                for turn in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let number = (client * 7 + turn) % alone.len();
                    let done = server.turn(client, turn, number, &alone[number]);
                    let mut seen = seen.lock().expect("no client panics");
                    seen.add(done);
                }
            });
        }
        let quarter = Duration::from_secs_f64(load.seconds as f64 / 4.0);
        std::thread::sleep(quarter);
        memory[0] = server.memory_mib()?;
        std::thread::sleep(3 * quarter);
        memory[1] = server.memory_mib()?;
        is_over.store(true, Ordering::Relaxed);
        Ok(())
    })?;
    Ok((seen.into_inner().expect("no client panics"), memory))
}

/// What one request came to.
enum Done {
    Text(Text),
    /// After so many tokens.
    Left(u64),
    Refused,
    Fault(String),
}

impl Seen {
    fn add(&mut self, done: Done) {
        match done {
            Done::Text(text) => {
                self.texts += 1;
                self.tokens += text.tokens;
                self.first.push(text.first.as_secs_f64());
            }
            Done::Left(tokens) => {
                self.left += 1;
                self.tokens += tokens;
            }
            Done::Refused => self.refused += 1,
            Done::Fault(fault) => self.faults.push(fault),
        }
    }
}

impl Server {
    fn start(load: &Load) -> Result<Self> {
        let run = load.run.as_ref().map_or_else(|| root().join("models/storyworld"), PathBuf::from);
        let model =
            run.file_name().and_then(|name| name.to_str()).context("a run has a name")?.to_owned();
        let mut command = Command::new(target_dir().join("release/ltm"));
        command.arg("serve").arg(&run).args(["--port", "0"]).stdout(Stdio::piped());
        let mut process = command.spawn().context("cannot start ltm serve")?;
        let mut address = String::new();
        BufReader::new(process.stdout.take().expect("piped above")).read_line(&mut address)?;
        let address =
            address.trim().strip_prefix("http://").context("ltm serve did not start")?.to_owned();
        Ok(Self { process, address, model })
    }

    fn memory_mib(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))
            .context("the server's memory is read on Linux")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib / 1024.0)
    }

    /// One turn of a client: of three, one leaves while its text is written, and of ten, one sends what is no request.
    fn turn(&self, client: usize, turn: usize, number: usize, alone: &Text) -> Done {
        if turn % 10 == 9 {
            return match self.refusal() {
                Ok(status) if (400..500).contains(&status) => Done::Refused,
                Ok(status) => Done::Fault(format!("status {status} for what is no request")),
                Err(error) => Done::Fault(format!("no answer to what is no request: {error:#}")),
            };
        }
        if client.is_multiple_of(3) {
            let left = self.stream(number).map(|(lines, _)| {
                let tokens =
                    lines.lines().map_while(Result::ok).filter(|line| line.starts_with("data: "));
                tokens.take(MAX_TOKENS / 2).count()
            });
            return left.map_or_else(
                |error| Done::Fault(format!("{error:#}")),
                |tokens| Done::Left(tokens as u64),
            );
        }
        match self.text(number) {
            Ok(text) if text.text == alone.text => Done::Text(text),
            Ok(text) => Done::Fault(format!(
                "request {number}: `{}` alone, `{}` among others",
                alone.text, text.text
            )),
            Err(error) => Done::Fault(format!("{error:#}")),
        }
    }

    /// The status of an answer to what is no request.
    fn refusal(&self) -> Result<u16> {
        let body = "{\"model\": \"nobody\", \"prompt\": [\"";
        let mut stream = self.post(body)?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(String::from_utf8_lossy(&head[9..]).parse()?)
    }

    fn post(&self, body: &str) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        write!(
            stream,
            "POST /v1/completions HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )?;
        Ok(stream)
    }

    /// Asks for a text as a stream; returns its lines after the head, and when it was asked.
    fn stream(&self, number: usize) -> Result<(BufReader<TcpStream>, Instant)> {
        let asked = Instant::now();
        let body = json!({
            "model": self.model, "prompt": PROMPTS[number % PROMPTS.len()], "seed": number,
            "max_tokens": MAX_TOKENS, "temperature": 0.8, "top_p": 0.95, "stream": true,
            "stream_options": { "include_usage": true },
        });
        let mut lines = BufReader::new(self.post(&body.to_string())?);
        let mut status = String::new();
        lines.read_line(&mut status)?;
        if !status.starts_with("HTTP/1.1 200") {
            let mut rest = String::new();
            let _ = lines.read_to_string(&mut rest);
            bail!("{}: {}", status.trim(), rest.lines().last().unwrap_or_default());
        }
        Ok((lines, asked))
    }

    /// A whole text.
    fn text(&self, number: usize) -> Result<Text> {
        let (lines, asked) = self.stream(number)?;
        let (mut text, mut tokens, mut first, mut is_done) = (String::new(), 0, None, false);
        for line in lines.lines() {
            let line = line?;
            let Some(data) = line.strip_prefix("data: ") else { continue };
            if data == "[DONE]" {
                is_done = true;
                break;
            }
            let chunk: Value = serde_json::from_str(data).with_context(|| data.to_owned())?;
            ensure!(chunk["error"].is_null(), "{data}");
            first.get_or_insert_with(|| asked.elapsed());
            text += chunk["choices"][0]["text"].as_str().unwrap_or_default();
            tokens = chunk["usage"]["completion_tokens"].as_u64().unwrap_or(tokens);
        }
        ensure!(is_done && tokens > 0, "a stream that does not end: `{text}`");
        Ok(Text { text, tokens, first: first.context("a first token")? })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The median and the 99th percentile; NaN of nothing.
fn percentiles(seconds: &mut [f64]) -> [f64; 2] {
    seconds.sort_by(f64::total_cmp);
    [0.5, 0.99].map(|share| {
        let at = (share * seconds.len() as f64) as usize;
        seconds.get(at.min(seconds.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    })
}

fn summary(line: &Value) -> String {
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let (rate, alone) =
        (number(&line["tokens_per_second"]), number(&line["one_by_one_tokens_per_second"]));
    let first = &line["first_token_seconds"];
    let ms = |key: &str| 1000.0 * number(&first[key]);
    format!(
        "`{}`, texts of at most {} tokens, fitted to their prompts.\n\n\
         | | one by one | {} clients for {} s |\n| --- | --- | --- |\n\
         | tokens that arrived, per second | {alone:.0} | {rate:.0} ({:.2} times) |\n\
         | first token, median, ms | {:.1} | {:.1} |\n| first token, 99th percentile, ms | {:.1} | {:.1} |\n\n\
         {} whole texts, each as it is alone; {} clients left while their text was written; {} malformed requests were \
         refused; {} faults. Memory after a quarter of the time and at the end: {:.0} and {:.0} MiB.\n\
         The clients run on the same processor.\n",
        line["model"].as_str().unwrap_or_default(),
        line["max_tokens"],
        line["clients"],
        line["seconds"],
        rate / alone,
        ms("alone_p50"),
        ms("p50"),
        ms("alone_p99"),
        ms("p99"),
        line["texts"],
        line["left"],
        line["refused"],
        line["faults"],
        number(&line["memory_mib"][0]),
        number(&line["memory_mib"][1]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_numbers() {
        let mut seconds: Vec<f64> = (0..200).rev().map(f64::from).collect();
        assert_eq!(percentiles(&mut seconds), [100.0, 198.0]);
        assert_eq!(percentiles(&mut [3.0]), [3.0, 3.0]);
        assert!(percentiles(&mut []).iter().all(|x| x.is_nan()));
    }
}
