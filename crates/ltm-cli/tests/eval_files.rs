//! `ltm eval` on files: each format by the protocols of a corpus, and malformed parts refused or counted.

mod command;

use std::fs;
use std::path::{Path, PathBuf};

use command::{bad, good, json};
use serde_json::Value;

/// A folder for a test's files.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Writes a file and returns its path.
    fn write(&self, name: &str, content: &[u8]) -> String {
        fs::write(self.0.path().join(name), content).expect("writable");
        self.path(name)
    }

    /// Trains a tiny model of bytes for two steps and returns its run.
    fn run(&self, name: &str, more: &[&str]) -> String {
        let book = self.write("book.txt", "a small dog saw a cat. ".repeat(60).as_bytes());
        let (data, run) = (self.path("data"), self.path(name));
        if !Path::new(&data).exists() {
            good(&["data", "prepare", &book, "--tokenizer", "bytes", "--out", &data]);
        }
        let config: PathBuf =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../ltm-train/tests/tiny.toml");
        let (config, data) = (config.display().to_string(), format!("data.path={data}"));
        let dir = format!("run.dir={run}");
        let sets = ["--set", &data, "--set", &dir, "--set", "train.steps=2"];
        good(&[&["train", &config, "--no-samples"][..], &sets, more].concat());
        run
    }
}

/// Two documents of 12 and 30 bytes, so 44 tokens with their separators.
const SHORT: &str = "a small dog.";
const LONG: &str = "a cat saw the dog and the cat.";

#[test]
fn every_format_gives_the_same_documents_to_every_protocol() {
    let folder = Folder::new();
    let run = folder.run("run", &[]);
    let text = folder.write("a.txt", format!("{SHORT}\n<|endoftext|>\n{LONG}\n").as_bytes());
    let lines = [SHORT, LONG].map(|text| format!("{{\"body\": \"{text}\"}}\n")).concat();
    let lines = folder.write("a.jsonl", lines.as_bytes());
    let table = folder.write("a.csv", format!("id,text\n1,{SHORT}\n2,{LONG}\n").as_bytes());
    let plain = folder.write("plain", format!("{SHORT}\n<|endoftext|>\n{LONG}").as_bytes());
    let protocols = ["elbo:2", "iwae:2", "reconstruction", "prequential:24:2"];
    let protocols: Vec<&str> = protocols.iter().flat_map(|p| ["--protocol", p]).collect();
    let of = |file: &str, more: &[&str]| json(&[&["eval", &run, file], more, &protocols].concat());

    let from_lines = of(&lines, &["--key", "body"]);
    for protocol in ["elbo:2", "iwae:2", "reconstruction", "prequential:24:2"] {
        assert_eq!(from_lines[protocol]["tokens"], 44, "{from_lines}");
    }
    assert_eq!(from_lines["file"]["skipped"], 0);
    let same = |other: Value| {
        for (protocol, numbers) in from_lines.as_object().expect("an object") {
            assert!(protocol == "file" || other[protocol] == *numbers, "{protocol}: {other}");
        }
    };
    same(of(&table, &[]));
    same(of(&plain, &["--format", "text"]));
    // The last line's end belongs to the document.
    assert_eq!(of(&text, &[])["elbo:2"]["tokens"], 45);
    let (said, _) = good(&["eval", &run, &text]);
    assert!(said.contains("iwae, 8 fresh samples") && said.contains("a.txt"), "{said}");
}

#[test]
fn news_records_are_title_and_description() {
    let folder = Folder::new();
    let run = folder.run("run", &["--set", "data.rows=\"documents\""]);
    let news = "\"3\",\"A dog\",\"It saw a cat.\"\n".repeat(5);
    let news = folder.write("news.csv", news.as_bytes());
    let scores = json(&["eval", &run, &news, "--protocol", "elbo:2"]);
    assert_eq!(scores["elbo:2"]["sequences"], 5, "{scores}");
    // Two rows are drawn from the whole file, so all of it is read.
    let broken = folder.write("broken.jsonl", b"{\"text\": \"a dog\"}\n{\"text\": \"a cat\"}\n{\n");
    let args = ["eval", &run, &broken, "--protocol", "elbo:2", "--sequences", "2"];
    bad(&args, 1, &["broken.jsonl", "line 3"]);
    let scores = json(&[&args[..], &["--skip-malformed"]].concat());
    assert_eq!(scores["elbo:2"]["sequences"], 2, "{scores}");
}

#[test]
fn malformed_lines_are_refused_by_name_or_counted() {
    let folder = Folder::new();
    let run = folder.run("run", &[]);
    let lines = "{\"text\": \"a dog\"}\nnonsense\n{\"body\": \"a cat\"}\n{\"text\": \"a cat\"}\n";
    let lines = folder.write("a.jsonl", lines.as_bytes());
    let args = ["eval", &run, &lines, "--protocol", "elbo:2"];
    bad(&args, 1, &["a.jsonl", "line 2"]);
    let skipping = [&args[..], &["--skip-malformed"]].concat();
    let (said, named) = good(&skipping);
    assert!(said.contains("malformed records skipped   2"), "{said}");
    for part in ["line 2", "line 3", "`text`", "2 malformed records in total"] {
        assert!(named.contains(part), "`{part}` is not in\n{named}");
    }
    let scores = json(&skipping);
    assert_eq!(scores["file"]["skipped"], 2, "{scores}");
    assert_eq!(scores["elbo:2"]["tokens"], 12, "{scores}");
    let bytes = folder.write("b.txt", b"a dog \xff");
    bad(&["eval", &run, &bytes], 1, &["b.txt", "byte 6", "UTF-8"]);
    bad(&["eval", &run, &folder.write("c.txt", b"")], 1, &["c.txt", "empty"]);
    bad(&["eval", &run, &folder.path("no.txt")], 1, &["no.txt"]);
}

#[test]
fn options_that_do_not_apply_are_refused() {
    let folder = Folder::new();
    let run = folder.run("run", &[]);
    let text = folder.write("a.txt", SHORT.as_bytes());
    bad(&["eval", &run, &text, "--split", "train"], 2, &["--split", "corpus folders"]);
    bad(&["eval", &run, "--format", "csv"], 2, &["--format", "name a file"]);
    good(&["eval", &run, &folder.path("data"), "--split", "train", "--protocol", "elbo:2"]);
}

#[test]
fn lambada_asks_for_the_last_word() {
    let folder = Folder::new();
    let passages: String = ["a small dog saw a", "the cat saw the", "it was"]
        .iter()
        .map(|context| format!("{{\"text\": \"{context} dog\"}}\n"))
        .collect();
    let long = format!("{{\"text\": \"{} dog\"}}\n", "a small dog.".repeat(20));
    let file = folder.write("lambada-tiny.jsonl", (passages + &long).as_bytes());
    for (n_latents, protocol) in
        [("4", "last-word predictive, 3 samples"), ("0", "last-word autoregressive")]
    {
        let set = format!("model.n_latents={n_latents}");
        let run = folder.run(&format!("run-{n_latents}"), &["--set", &set]);
        let args = ["eval", &run, &file, "--samples", "3"];
        let scores = json(&args);
        assert_eq!(scores["lambada"]["protocol"], protocol, "{scores}");
        for (key, number) in [("passages", 4), ("cut", 1), ("word_tokens", 16)] {
            assert_eq!(scores["lambada"][key], number, "{key}: {scores}");
        }
        let number = |key: &str| scores["lambada"][key].as_f64().expect("a number");
        // Two steps teach little: four bytes cost about 4·log(257) = 22 nats.
        let nats = number("nats_per_word");
        assert!((10.0..30.0).contains(&nats), "{scores}");
        assert!((number("word_perplexity") / nats.exp() - 1.0).abs() < 1e-9, "{scores}");
        assert!((0.0..=1.0).contains(&number("accuracy")), "{scores}");
        let (said, _) = good(&args);
        assert!(
            said.contains(protocol)
                && said.contains("truncated passages          1, to their last 96"),
            "{said}"
        );
        assert_eq!(scores, json(&args), "the numbers are a function of what is given");
        let first = json(&[&args[..], &["--sequences", "2"]].concat());
        assert_eq!(first["lambada"]["passages"], 2, "{first}");
    }
    let run = folder.path("run-4");
    let words = "{\"text\": \"a dog\"}\n\n{\"text\": \"word\"}\n[]\n";
    let words = folder.write("words.txt", words.as_bytes());
    let args = ["eval", &run, &words, "--format", "lambada"];
    bad(&args, 1, &["words.txt", "line 3", "`word`"]);
    let (said, named) = good(&[&args[..], &["--skip-malformed"]].concat());
    assert!(said.contains("malformed records skipped   2"), "{said}");
    assert!(named.contains("line 3") && named.contains("line 4"), "{named}");
    bad(&["eval", &run, &file, "--protocol", "elbo"], 2, &["--protocol", "--format jsonl"]);
    bad(&["eval", &run, &file, "--per-document", "x.jsonl"], 2, &["--per-document"]);
    good(&["eval", &run, &file, "--protocol", "elbo:2", "--format", "jsonl"]);
    bad(&["eval", &run, "--samples", "3"], 2, &["--protocol elbo:8"]);
    bad(
        &[&args[..4], &["lambada", "--skip-malformed", "--samples", "0"]].concat(),
        2,
        &["samples"],
    );
}
