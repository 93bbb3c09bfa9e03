//! The page that shows latents, and what it asks the server for.

mod common;

use common::{get, post};
use serde_json::{Value, json};

#[test]
fn the_page_is_there_and_gets_what_it_asks_for() {
    let served = common::served();
    let page = get(&served, "/");
    assert_eq!(page.status, 200);
    let html = page.text();
    assert!(html.starts_with("<!DOCTYPE html>") && html.contains("data-live=\"/v1/explorations\""));
    assert_eq!(get(&served, "/explorer/latents").text(), html);

    let fit = |request: Value| post(&served, "/v1/explorations", &request.to_string());
    let request = json!({"model": "latents", "text": "a dog", "seed": 2});
    let found = fit(request.clone()).json();
    assert_eq!(found["tokens"].as_array().map(Vec::len), Some(5));
    let mu: Vec<f32> = serde_json::from_value(found["mu"].clone()).expect("numbers");
    assert_eq!(mu.len(), 4 * 16);
    assert_eq!(fit(request).json(), found, "a seed gives the same");
    // It is the fit of the other route.
    let thoughts = json!({"model": "latents", "text": "a dog", "seed": 2}).to_string();
    let thoughts = post(&served, "/v1/thoughts", &thoughts).json();
    assert_eq!((&thoughts["mu"], &thoughts["kl"]), (&found["mu"], &found["ledger"]["cost"]));

    let decode = |request: Value| post(&served, "/v1/explorations/decode", &request.to_string());
    let answer = decode(json!({"model": "latents", "z": mu, "text": "a dog"})).json();
    assert_eq!(answer["text"], found["decoded"]);
    let sum: f64 = found["tokens"]
        .as_array()
        .expect("tokens")
        .iter()
        .filter_map(|token| token["with"]["nll"].as_f64())
        .sum();
    assert!((answer["nll"].as_f64().expect("scored") - sum).abs() < 1e-3, "{answer} {sum}");
    assert!(decode(json!({"model": "latents", "z": mu})).json()["nll"].is_null());
}

#[test]
fn what_cannot_be_shown_is_refused_and_harms_nothing() {
    let served = common::served();
    for (path, request, status) in [
        ("/v1/explorations", json!({"model": "latents", "text": ""}), 400),
        ("/v1/explorations", json!({"model": "latents", "text": "x".repeat(1000)}), 400),
        ("/v1/explorations", json!({"model": "no", "text": "x"}), 404),
        ("/v1/explorations", json!({"model": "latents"}), 400),
        ("/v1/explorations/decode", json!({"model": "latents", "z": [0.0]}), 400),
        ("/v1/explorations/decode", json!({"model": "latents", "z": []}), 400),
    ] {
        let reply = post(&served, path, &request.to_string());
        assert_eq!(reply.status, status, "{request}: {}", reply.text());
        assert!(reply.json()["error"]["message"].is_string());
    }
    assert_eq!(get(&served, "/explorer/no").status, 404);
    assert_eq!(get(&served, "/").status, 200);
}
