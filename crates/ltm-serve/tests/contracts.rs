//! What clients of completions APIs rely on, on a small model over bytes.

mod common;

use common::{Reply, Served, get, post};
use ltm_eval::ltm_vi::Protocol;
use serde_json::{Value, json};

fn completion(served: &Served, request: Value) -> Value {
    let reply = post(served, "/v1/completions", &request.to_string());
    assert_eq!(reply.status, 200, "{request}: {}", reply.text());
    reply.json()
}

fn text(answer: &Value) -> &str {
    answer["choices"][0]["text"].as_str().expect("a text")
}

#[test]
fn a_completion_has_the_api_s_form() {
    let served = common::served();
    let answer = completion(&served, json!({"model": "latents", "prompt": "a dog", "seed": 1}));
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["model"], "latents");
    let [choice] = &answer["choices"].as_array().expect("choices")[..] else { panic!("{answer}") };
    assert_eq!(choice["index"], 0);
    assert!(["stop", "length"].contains(&choice["finish_reason"].as_str().expect("a reason")));
    assert!(choice["logprobs"].is_null());
    let usage = &answer["usage"];
    let of = |key: &str| usage[key].as_u64().expect("a count");
    assert_eq!(of("prompt_tokens"), 5);
    assert!(of("completion_tokens") <= 16);
    assert_eq!(of("total_tokens"), of("prompt_tokens") + of("completion_tokens"));
}

#[test]
fn a_prompt_is_text_or_ids_and_there_may_be_several() {
    let served = common::served();
    let of = |prompt: Value| {
        let request = json!({"model": "latents", "prompt": prompt, "seed": 3, "max_tokens": 4});
        let answer = completion(&served, request);
        let choices = answer["choices"].as_array().expect("choices").clone();
        choices
            .iter()
            .map(|choice| choice["text"].as_str().expect("text").to_owned())
            .collect::<Vec<_>>()
    };
    let (ab, cd) = (of(json!("ab")), of(json!("cd")));
    assert_eq!(of(json!([97, 98])), ab);
    assert_eq!(of(json!(["ab", "cd"])), [ab.clone(), cd.clone()].concat());
    assert_eq!(of(json!([[97, 98], [99, 100]])), [ab, cd].concat());
    // A document may begin with its separator, of itself.
    assert_eq!(of(json!("<|endoftext|>ab")), of(json!("ab")));
    assert_eq!(of(json!("")).len(), 1);
}

#[test]
fn a_seed_gives_the_same_text_in_any_company() {
    let served = common::served();
    let request = |seed: u64, n: usize| json!({"model": "latents", "prompt": "a", "seed": seed, "n": n, "max_tokens": 30});
    let alone = completion(&served, request(5, 1));
    let served = &served;
    let others = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (4..10).map(|seed| scope.spawn(move || completion(served, request(5, seed)))).collect();
        threads.into_iter().map(|thread| thread.join().expect("answered")).collect::<Vec<_>>()
    });
    let mut second = Vec::new();
    for other in others {
        assert_eq!(text(&other), text(&alone));
        second.push(other["choices"][1]["text"].clone());
    }
    assert!(second.iter().all(|text| *text == second[0] && *text != alone["choices"][0]["text"]));
    let unseeded = |_| {
        let request = json!({"model": "latents", "prompt": "a", "max_tokens": 30});
        text(&completion(served, request)).to_owned()
    };
    let texts: std::collections::BTreeSet<String> = (0..4).map(unseeded).collect();
    assert!(texts.len() > 1, "{texts:?}");
}

#[test]
fn a_stream_is_the_whole_answer_in_pieces() {
    let served = common::served();
    for (model, n, echo) in [("latents", 2, false), ("latents", 1, true), ("plain", 1, true)] {
        for logprobs in [None, Some(2)] {
            let request = json!({
                "model": model, "prompt": "a dog", "seed": 7, "n": n, "max_tokens": 12,
                "echo": echo, "logprobs": logprobs,
            });
            let whole = completion(&served, request.clone());
            let mut streamed = request;
            streamed["stream"] = true.into();
            streamed["stream_options"] = json!({"include_usage": true});
            let reply = post(&served, "/v1/completions", &streamed.to_string());
            assert_eq!(reply.header("content-type"), Some("text/event-stream"));
            let chunks = reply.events();
            let (usage, chunks) = chunks.split_last().expect("chunks");
            assert_eq!((&usage["choices"], &usage["usage"]), (&json!([]), &whole["usage"]));
            for (index, choice) in whole["choices"].as_array().expect("choices").iter().enumerate()
            {
                let own = || {
                    let all = chunks.iter().map(|chunk| &chunk["choices"][0]);
                    all.filter(|choice| choice["index"] == index)
                };
                let text: String =
                    own().map(|piece| piece["text"].as_str().expect("text")).collect();
                assert_eq!(text, choice["text"]);
                let reasons: Vec<_> = own()
                    .map(|piece| &piece["finish_reason"])
                    .filter(|reason| !reason.is_null())
                    .collect();
                assert_eq!(reasons, [&choice["finish_reason"]]);
                if logprobs.is_some() {
                    for field in ["tokens", "token_logprobs", "text_offset", "top_logprobs"] {
                        let parts = own()
                            .flat_map(|piece| piece["logprobs"][field].as_array().expect("a list"));
                        let all: Vec<_> = parts.cloned().collect();
                        assert_eq!(json!(all), choice["logprobs"][field], "{field}");
                    }
                }
            }
            // Fast steps travel as comments, which clients ignore.
            assert_eq!(reply.text().contains(": thinking 1/"), model == "latents");
            assert!(reply.text().trim_end().ends_with("data: [DONE]"));
        }
    }
}

#[test]
fn stop_strings_end_a_text_and_are_not_in_it() {
    let served = common::served();
    let request =
        json!({"model": "latents", "prompt": "a", "seed": 2, "max_tokens": 40, "temperature": 1.5});
    let whole = text(&completion(&served, request.clone())).to_owned();
    let stop: String = whole.chars().skip(5).take(2).collect();
    for stop in [json!(stop), json!(["never there", stop])] {
        let mut request = request.clone();
        request["stop"] = stop.clone();
        let answer = completion(&served, request);
        let expected = &whole
            [..whole.find(stop.as_str().unwrap_or(stop[1].as_str().unwrap_or(""))).expect("there")];
        assert_eq!(text(&answer), expected);
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    }
}

/// An evaluation slices the prompt's probabilities out of an answer to `echo` with one token, by position.
#[test]
fn echoed_prompts_are_scored_token_by_token() {
    let served = common::served();
    for (model, protocol) in [
        ("latents", Protocol::Prequential { stride: 32, samples: 8 }),
        ("latents@prequential-3", Protocol::Prequential { stride: 3, samples: 8 }),
        ("plain", Protocol::Autoregressive),
    ] {
        let prompt = "the dog ran";
        let request = json!({
            "model": model, "prompt": prompt, "max_tokens": 1, "logprobs": 3, "echo": true,
            "temperature": 0, "seed": 1234,
        });
        let answer = completion(&served, request);
        assert_eq!(answer["scoring"], protocol.to_string());
        let logprobs = &answer["choices"][0]["logprobs"];
        let list = |field: &str| logprobs[field].as_array().expect("a list").clone();
        let (tokens, found, top) = (list("tokens"), list("token_logprobs"), list("top_logprobs"));
        assert_eq!(
            [tokens.len(), found.len(), top.len(), list("text_offset").len()],
            [prompt.len() + 1; 4]
        );
        assert!(found[0].is_null() && top[0].is_null());
        for (token, (found, top)) in tokens.iter().zip(found.iter().zip(&top)).skip(1) {
            let best =
                top.as_object().expect("tokens").values().map(|x| x.as_f64().expect("a number"));
            let best = best.fold(f64::NEG_INFINITY, f64::max);
            let found = found.as_f64().expect("a number");
            assert!(found <= best && found < 0.0, "{token}");
            if let Some(repeated) = top.get(token.as_str().expect("a text")) {
                assert_eq!(repeated.as_f64(), Some(found), "the same number, to the bit");
            }
        }
        let sum: f64 = found.iter().filter_map(Value::as_f64).take(prompt.len() - 1).sum();
        let expected = common::nats(model.split('@').next().expect("a name"), prompt, protocol);
        // The first token has no probability in this form.
        let first = common::first_log_prob(&served, model, prompt);
        assert!((sum + first + expected).abs() <= 1e-4, "{model}: {sum} {first} {expected}");
    }
}

#[test]
fn no_tokens_are_an_answer_too() {
    let served = common::served();
    let none = completion(&served, json!({"model": "plain", "prompt": "ab", "max_tokens": 0}));
    assert_eq!((text(&none), &none["choices"][0]["finish_reason"]), ("", &json!("length")));
    let request =
        json!({"model": "plain", "prompt": "ab", "max_tokens": 0, "echo": true, "logprobs": 1});
    let scored = completion(&served, request);
    assert_eq!(text(&scored), "ab");
    assert_eq!(
        scored["choices"][0]["logprobs"]["token_logprobs"].as_array().expect("a list").len(),
        2
    );
}

#[test]
fn what_is_asked_for_in_vain_is_named() {
    let served = common::served();
    let long = "x".repeat(common::CONTEXT);
    for (request, status, param, code) in [
        (json!({"model": "none", "prompt": "a"}), 404, json!("model"), json!("model_not_found")),
        (
            json!({"model": "latents@prequential-0", "prompt": "a"}),
            400,
            json!("model"),
            json!(null),
        ),
        (
            json!({"model": "latents", "prompt": long}),
            400,
            json!("prompt"),
            json!("context_length_exceeded"),
        ),
        (json!({"model": "latents", "prompt": [300]}), 400, json!("prompt"), json!(null)),
        (json!({"model": "latents", "prompt": []}), 200, json!(null), json!(null)),
        (json!({"model": "latents", "prompt": {"a": 1}}), 400, json!(null), json!(null)),
        (
            json!({"model": "latents", "prompt": "a", "temperature": -1}),
            400,
            json!("temperature"),
            json!(null),
        ),
        (json!({"model": "latents", "prompt": "a", "top_p": 0}), 400, json!("top_p"), json!(null)),
        (json!({"model": "latents", "prompt": "a", "n": 0}), 400, json!("n"), json!(null)),
        (json!({"model": "latents", "prompt": "a", "n": 129}), 400, json!("n"), json!(null)),
        (
            json!({"model": "latents", "prompt": "a", "logprobs": 21}),
            400,
            json!("logprobs"),
            json!(null),
        ),
        (
            json!({"model": "latents", "prompt": "a", "best_of": 2}),
            400,
            json!("best_of"),
            json!("unsupported_parameter"),
        ),
        (json!({"model": "latents", "prompt": "a", "best_of": 1}), 200, json!(null), json!(null)),
        (
            json!({"model": "latents", "prompt": "a", "suffix": "b"}),
            400,
            json!("suffix"),
            json!("unsupported_parameter"),
        ),
        (
            json!({"model": "latents", "prompt": "a", "logit_bias": {"1": 1}}),
            400,
            json!("logit_bias"),
            json!("unsupported_parameter"),
        ),
        (
            json!({"model": "latents", "prompt": "a", "presence_penalty": 0.5}),
            400,
            json!("presence_penalty"),
            json!("unsupported_parameter"),
        ),
        (
            json!({"model": "latents", "prompt": "a", "stream_options": {}}),
            400,
            json!("stream_options"),
            json!(null),
        ),
        (json!({"model": "latents", "prompt": "a", "mystery": 1}), 400, json!(null), json!(null)),
        (json!({"prompt": "a"}), 400, json!(null), json!(null)),
    ] {
        let reply = post(&served, "/v1/completions", &request.to_string());
        assert_eq!(reply.status, status, "{request}: {}", reply.text());
        if status != 200 {
            let error = &reply.json()["error"];
            assert_eq!((&error["param"], &error["code"]), (&param, &code), "{request}: {error}");
            assert!(error["message"].as_str().is_some_and(|message| message.len() > 10), "{error}");
        }
    }
}

#[test]
fn tokens_and_models_are_as_clients_ask() {
    let served = common::served();
    let models = get(&served, "/v1/models").json();
    assert_eq!(models["data"][0]["id"], "latents");
    assert_eq!(models["data"][0]["scoring"], "prequential:32:8");
    assert_eq!(models["data"][1]["scoring"], "autoregressive");
    let one = get(&served, "/v1/models/latents@prequential-16").json();
    assert_eq!(one["scoring"], "prequential:16:8");
    assert_eq!(get(&served, "/v1/models/none").status, 404);
    let info = get(&served, "/tokenizer_info").json();
    let end = info["eos_token"].as_str().expect("a token");
    let tokenize =
        |request: Value| post(&served, "/tokenize", &request.to_string()).json()["tokens"].clone();
    assert_eq!(tokenize(json!({"model": "latents", "prompt": end})), json!([info["eos_token_id"]]));
    assert_eq!(tokenize(json!({"model": "latents", "prompt": "ab"})), json!([97, 98]));
    // Both models have one tokenizer, so a name is not needed.
    assert_eq!(tokenize(json!({"prompt": "ab"})), json!([97, 98]));
    let special = json!({"model": "latents", "prompt": "ab", "add_special_tokens": true});
    assert_eq!(tokenize(special), json!([info["bos_token_id"], 97, 98]));
    let request = json!({"model": "latents", "tokens": [97, 98, info["eos_token_id"]]});
    let back = post(&served, "/detokenize", &request.to_string()).json();
    assert_eq!(back["prompt"], format!("ab{end}"));
    let past = json!({"model": "latents", "tokens": [97, 4000]});
    assert_eq!(post(&served, "/detokenize", &past.to_string()).status, 400);
    assert_eq!(get(&served, "/health").json(), json!({"status": "ok"}));
    let metrics = get(&served, "/metrics").text();
    assert!(metrics.contains("ltm_responses_total{status=\"200\"}"), "{metrics}");
}

#[test]
fn thoughts_are_fitted_and_changed() {
    let served = common::served();
    let ask = |request: Value| -> Reply { post(&served, "/v1/thoughts", &request.to_string()) };
    let plain = ask(json!({"model": "latents", "text": "a dog", "seed": 7})).json();
    let steps = plain["steps"].as_array().expect("steps");
    assert_eq!(steps.len() as u64, steps[0]["of"].as_u64().expect("a count"));
    let shape = &plain["shape"];
    let n = shape[0].as_u64().expect("latents") * shape[1].as_u64().expect("width");
    assert_eq!(plain["mu"].as_array().expect("means").len() as u64, n);
    let kl = plain["kl"].as_f64().expect("a number");
    let layers =
        plain["kl_per_layer"].as_array().expect("numbers").iter().filter_map(Value::as_f64);
    assert!(kl > 0.0 && (layers.sum::<f64>() - kl).abs() < 1e-9, "{plain}");
    assert!((kl - common::kl(&plain)).abs() < 1e-5 * kl, "of the posterior that is given");
    let all: Vec<Value> = (0..4).map(|latent| json!({"latent": latent, "scale": -40})).collect();
    let changed =
        ask(json!({"model": "latents", "text": "a dog", "seed": 7, "interventions": all})).json();
    assert_eq!(changed["mu"], plain["mu"]);
    assert_ne!(changed["decoded"], plain["decoded"]);
    let streamed =
        ask(json!({"model": "latents", "text": "a dog", "seed": 7, "steps": 3, "stream": true}));
    let text = streamed.text();
    assert_eq!(text.matches("event: step").count(), 3);
    assert_eq!(text.matches("event: fitted").count(), 1);
    for (request, status) in [
        (json!({"model": "plain", "text": "a"}), 400),
        (json!({"model": "latents", "text": ""}), 400),
        (json!({"model": "latents", "text": "x".repeat(200)}), 400),
        (json!({"model": "latents", "text": "a", "steps": 100_000}), 400),
        (
            json!({"model": "latents", "text": "a", "interventions": [{"latent": 9, "scale": 1}]}),
            400,
        ),
    ] {
        let reply = ask(request.clone());
        assert_eq!(reply.status, status, "{request}: {}", reply.text());
    }
}
