//! Requests that were changed at random: each gets a JSON error or a result, and the server goes on. `LTM_REQUESTS` sets
//! their number.

mod common;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use ltm_eval::ltm_vi::ltm_kernels::ops::philox::{Philox, PhiloxKey};
use ltm_serve::{Options, Server};
use serde_json::Value;
use tower::ServiceExt as _;

/// Valid requests, from which the others are made.
const VALID: [(&str, &str); 10] = [
    ("/v1/completions", r#"{"model":"latents","prompt":"a dog","max_tokens":2,"seed":1,"n":2}"#),
    (
        "/v1/completions",
        r#"{"model":"plain","prompt":[[97,98],[99]],"max_tokens":1,"logprobs":2,"echo":true}"#,
    ),
    (
        "/v1/completions",
        r#"{"model":"latents@prequential-4","prompt":"ab","max_tokens":1,"logprobs":1,"echo":true}"#,
    ),
    (
        "/v1/completions",
        r#"{"model":"plain","prompt":["a","b"],"max_tokens":3,"stop":["x","yz"],"temperature":0.5,"top_p":0.9}"#,
    ),
    (
        "/v1/completions",
        r#"{"model":"plain","prompt":"a","max_tokens":2,"stream":true,"stream_options":{"include_usage":true}}"#,
    ),
    (
        "/v1/thoughts",
        r#"{"model":"latents","text":"a cat","steps":1,"seed":3,"interventions":[{"latent":1,"scale":0.5}]}"#,
    ),
    ("/v1/explorations", r#"{"model":"latents","text":"a cat","seed":2}"#),
    ("/v1/explorations/decode", r#"{"model":"latents","z":[0.5,-1,2e3],"text":"a"}"#),
    ("/tokenize", r#"{"model":"latents","prompt":"a<|endoftext|>b","add_special_tokens":true}"#),
    ("/detokenize", r#"{"model":"plain","tokens":[97,256]}"#),
];

/// What is put into a request.
const PIECES: [&str; 18] = [
    "null",
    "-1",
    "1e999",
    "18446744073709551616",
    "\"\"",
    "[]",
    "{}",
    "true",
    "\\u0000",
    "\\ud800",
    "\u{fffd}",
    "é",
    "\"prompt\":",
    "\"n\":",
    "]",
    "}",
    ",",
    "NaN",
];

/// A number below `below`.
fn below(random: &Philox, at: &mut u64, below: usize) -> usize {
    *at += 1;
    ((random.uniform(*at) * below as f64) as usize).min(below - 1)
}

/// A valid request with a few changes.
fn mutated(random: &Philox, at: &mut u64) -> (String, Vec<u8>) {
    let (path, body) = VALID[below(random, at, VALID.len())];
    let (mut path, mut body) = (path.to_owned(), body.as_bytes().to_vec());
    for _ in 0..below(random, at, 4) {
        let place = below(random, at, body.len() + 1);
        match below(random, at, 7) {
            0 if place < body.len() => body[place] = below(random, at, 256) as u8,
            1 => body.truncate(place),
            2 => body.insert(place, below(random, at, 256) as u8),
            3 | 4 => {
                let piece = PIECES[below(random, at, PIECES.len())];
                // In place of what is there, as far as it is there.
                let end = (place + below(random, at, 8)).min(body.len());
                body.splice(place..end, piece.bytes());
            }
            5 => {
                let (from, to) = (place.min(body.len()), body.len());
                let part = body[from..to].to_vec();
                body.extend(part);
            }
            _ => {
                let others = VALID[below(random, at, VALID.len())].0;
                path = if below(random, at, 2) == 0 {
                    others.into()
                } else {
                    format!("{path}/{place}")
                };
            }
        }
    }
    (path, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_an_error_or_a_result() {
    let count = std::env::var("LTM_REQUESTS").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000);
    let server = Server::start(common::models(), Options::default()).expect("the models are good");
    let router = server.router();
    let random = Philox::new(PhiloxKey { seed: 1, stream: 7, step: 0 });
    let (mut at, mut results) = (0, 0);
    for _ in 0..count {
        let (path, body) = mutated(&random, &mut at);
        let shown = format!("{path} {}", String::from_utf8_lossy(&body));
        let request = Request::post(&path).header("host", "localhost").body(Body::from(body));
        let answer = router.clone().oneshot(request.expect("a request")).await.expect("an answer");
        let status = answer.status();
        let body = answer.into_body().collect().await.expect("a whole answer").to_bytes();
        let text = String::from_utf8_lossy(&body);
        if status == StatusCode::OK {
            results += 1;
            assert!(
                text.ends_with("data: [DONE]\n\n")
                    || serde_json::from_slice::<Value>(&body).is_ok(),
                "{shown}: {text}"
            );
            assert!(!text.contains("\"server_error\""), "{shown}: {text}");
        } else {
            assert!(status.is_client_error(), "{shown}: {status} {text}");
            let error: Value =
                serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{shown}: {text}"));
            assert!(error["error"]["message"].is_string(), "{shown}: {text}");
        }
    }
    assert!(results * 10 > count, "only {results} of {count} requests were valid");
}
