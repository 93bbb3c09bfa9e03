//! Clients that are broken, slow, in a hurry or not meant to be served: each is refused, and nobody else notices.

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::{Reply, Served, connect, exchange, get, post, read, served, served_with};
use ltm_serve::Options;
use serde_json::json;

/// An answer to a request with these lines after the first.
fn with_headers(served: &Served, method: &str, path: &str, headers: &str) -> Option<Reply> {
    let request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
    exchange(served.address, request.as_bytes())
}

fn refused(reply: Option<Reply>, status: u16) {
    let reply = reply.expect("an answer");
    assert_eq!(reply.status, status, "{}", reply.text());
    let error = &reply.json()["error"];
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
    assert!(error["type"].is_string());
}

fn is_well(served: &Served) {
    let request = json!({"model": "latents", "prompt": "a dog", "seed": 1, "max_tokens": 3});
    assert_eq!(post(served, "/v1/completions", &request.to_string()).status, 200);
}

#[test]
fn other_hosts_and_their_pages_are_refused() {
    let served =
        served_with(Options { hosts: vec!["models.example".into()], ..Options::default() });
    for (headers, status) in [
        ("Host: localhost:1\r\n", 200),
        ("Host: [::1]:8080\r\n", 200),
        ("Host: Models.Example\r\n", 200),
        ("Host: evil.example\r\n", 403),
        ("Host: 127.0.0.1.evil.example\r\n", 403),
        ("Host: localhost\r\nHost: evil.example\r\n", 403),
        ("Host: \r\n", 403),
        ("", 403),
        ("Host: localhost\r\nOrigin: http://localhost:3000\r\n", 200),
        ("Host: localhost\r\nOrigin: https://evil.example\r\n", 403),
        ("Host: localhost\r\nOrigin: null\r\n", 403),
    ] {
        let reply = with_headers(&served, "GET", "/v1/models", headers).expect("an answer");
        assert_eq!(reply.status, status, "{headers}");
        assert_eq!(reply.header("access-control-allow-origin"), None);
        if status != 200 {
            refused(Some(reply), status);
        }
    }
}

#[test]
fn a_key_is_asked_for_where_there_is_one() {
    let served = served_with(Options { api_key: Some("secret".into()), ..Options::default() });
    for (header, status) in [
        ("", 401),
        ("Authorization: Bearer wrong!\r\n", 401),
        ("Authorization: secret\r\n", 401),
        ("Authorization: Bearer secret\r\n", 200),
    ] {
        let headers = format!("Host: localhost\r\n{header}");
        let reply = with_headers(&served, "GET", "/v1/models", &headers).expect("an answer");
        assert_eq!(reply.status, status, "{header}");
        assert!(!reply.text().contains("secret"));
    }
    assert_eq!(get(&served, "/health").status, 200);
}

#[test]
fn paths_lead_nowhere_else() {
    let served = served();
    for path in [
        "/../../etc/passwd",
        "/v1/models/..%2f..%2fetc%2fpasswd",
        "/v1/models/%00",
        "//v1",
        "/v1/completions/x",
    ] {
        refused(with_headers(&served, "GET", path, "Host: localhost\r\n"), 404);
    }
    refused(with_headers(&served, "GET", "/v1/completions", "Host: localhost\r\n"), 405);
    refused(with_headers(&served, "DELETE", "/v1/models", "Host: localhost\r\n"), 405);
    is_well(&served);
}

#[test]
fn bodies_and_heads_have_limits() {
    let served = served();
    let huge = format!("{{\"model\": \"latents\", \"prompt\": \"{}\"}}", "x".repeat(5 << 20));
    refused(Some(post(&served, "/v1/completions", &huge)), 413);
    let claimed = "Host: localhost\r\nContent-Length: 99999999999\r\n";
    refused(with_headers(&served, "POST", "/v1/completions", claimed), 413);
    for flood in [
        format!(
            "Host: localhost\r\n{}",
            (0..1000).map(|i| format!("X-{i}: 1\r\n")).collect::<String>()
        ),
        format!("Host: localhost\r\nX: {}\r\n", "y".repeat(1 << 20)),
    ] {
        let reply = with_headers(&served, "GET", "/v1/models", &flood);
        assert!(reply.is_none_or(|reply| reply.status == 431), "a flood of headers");
    }
    // Not JSON, not an object, too deep.
    for body in ["", "{", "[]", "null", "\u{1}", &"[".repeat(100_000)] {
        refused(Some(post(&served, "/v1/completions", body)), 400);
    }
    is_well(&served);
}

#[test]
fn slow_clients_lose_their_connection() {
    let reading = Duration::from_secs(1);
    let served = served_with(Options { reading, ..Options::default() });
    let begun = Instant::now();
    let mut slow_head = connect(served.address);
    slow_head.write_all(b"GET /v1/models HTTP/1.1\r\nHost: local").expect("sent");
    let mut slow_body = connect(served.address);
    let head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\nConnection: close\r\n\r\n{";
    slow_body.write_all(head).expect("sent");
    is_well(&served);
    assert!(read(&mut slow_head).is_none_or(|reply| reply.status == 408));
    refused(read(&mut slow_body), 408);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

/// The places of a client that has gone away are free again.
#[test]
fn texts_of_clients_that_left_end() {
    let served = served();
    let request = json!({"model": "plain", "prompt": "a", "max_tokens": 65536, "stream": true, "n": 4, "temperature": 3});
    for _ in 0..3 {
        let body = request.to_string();
        let mut stream = connect(served.address);
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).expect("sent");
        let mut some = [0; 256];
        stream.read_exact(&mut some).expect("it begins");
    }
    let writing = || {
        let metrics = get(&served, "/metrics").text();
        let line = metrics.lines().find(|line| line.starts_with("ltm_texts ")).expect("a gauge");
        line.rsplit(' ').next().and_then(|n| n.parse::<u32>().ok()).expect("a number")
    };
    let begun = Instant::now();
    while writing() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "texts of nobody are being written");
        std::thread::sleep(Duration::from_millis(20));
    }
    is_well(&served);
}

#[test]
fn a_full_queue_refuses_and_says_so() {
    let served = served_with(Options { queue: 2, ..Options::default() });
    let three = json!({"model": "latents", "prompt": ["a", "b", "c"], "max_tokens": 1});
    let reply = post(&served, "/v1/completions", &three.to_string());
    assert_eq!(reply.header("retry-after"), Some("1"));
    refused(Some(reply), 429);
    is_well(&served);
}

/// Once the end was asked for, texts go on and nothing new begins.
#[test]
fn what_was_begun_ends_before_the_server() {
    let served = served();
    let body = json!({"model": "plain", "prompt": "a", "max_tokens": 300, "temperature": 2, "stream": true}).to_string();
    let mut stream = connect(served.address);
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).expect("sent");
    let mut begun = [0; 64];
    stream.read_exact(&mut begun).expect("it begins");
    let address = served.address;
    drop(served);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("UTF-8");
    assert!(rest.contains("\"finish_reason\":\"") && rest.contains("[DONE]"), "{rest}");
    assert!(std::net::TcpStream::connect(address).is_err(), "it has ended");
}
