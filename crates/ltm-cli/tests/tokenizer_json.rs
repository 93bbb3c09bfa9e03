//! The command with a `tokenizer.json` of a vocabulary as large as that of chat models: from text to generated text, in
//! folders that are moved, and with files that are changed.

mod command;

use std::fs;
use std::path::{Path, PathBuf};

use command::{bad, good, json};

/// More than Qwen's and Llama's vocabularies have.
const WORDS: usize = 151_000;

/// A `tokenizer.json` of the words `w0`, `w1` and so on, and `<|endoftext|>`.
fn tokenizer_json() -> String {
    let words: Vec<String> = (0..WORDS).map(|i| format!("\"w{i}\":{i}")).collect();
    format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {{"type": "WhitespaceSplit"}}, "post_processor": null,
        "decoder": null, "model": {{"type": "WordLevel", "unk_token": "none",
        "vocab": {{{},"<|endoftext|>":{WORDS}}}}}}}"#,
        words.join(",")
    )
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// A toy whose context is a few tokens: its embeddings alone are large.
fn train(run: &Path, sets: &[String]) -> Vec<String> {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ltm-train/tests/tiny.toml");
    let toy = [
        "model.dim=8",
        "model.n_layers=1",
        "model.max_seq_len=8",
        "model.window=4",
        "model.n_latents=2",
        "train.steps=2",
        "train.seq_len=8",
        "train.micro_batches=1",
        "train.warmup=1",
        "train.checkpoint_every=2",
        "train.eval_every=2",
    ];
    let run = format!("run.dir={}", run.display());
    let sets = toy.map(String::from).into_iter().chain([run]).chain(sets.iter().cloned());
    let mut args = vec!["train".into(), text(&config).into(), "--no-samples".into()];
    args.extend(sets.flat_map(|set| ["--set".into(), set]));
    args
}

fn strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

#[test]
fn a_vocabulary_of_151_000_words_is_prepared_trained_scored_and_generated() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| -> PathBuf { temp.path().join(name) };
    let [file, book, data, run] = ["tokenizer.json", "book.txt", "a/data", "a/run"].map(at);
    fs::write(&file, tokenizer_json()).expect("writable");
    let words: Vec<String> = (0..40).map(|i| format!("w{}", i * 3774)).collect();
    fs::write(&book, words.join(" ") + "\n<|endoftext|>\nw1 w2 w150999\n").expect("writable");

    // Text to ids of 32 bits, with a copy of the tokenizer.
    let tokenizer = ["--tokenizer", text(&file)];
    let prepare = ["data", "prepare", text(&book), "--out", text(&data), "--val-fraction", "0.4"];
    let (stdout, _) = good(&[&prepare[..], &tokenizer].concat());
    assert!(stdout.contains("vocabulary 151001"), "{stdout}");
    assert_eq!(
        fs::read(data.join("tokenizer.json")).expect("a copy"),
        fs::read(&file).expect("it")
    );
    let (stdout, _) = good(&["data", "inspect", text(&data), "--verify", "--tokens", "3"]);
    assert!(stdout.contains("starts with:\nw0 w3774 w7548"), "{stdout}");

    // The original is not needed any more, nor the folders where they were.
    fs::remove_file(&file).expect("removable");
    let args = train(&run, &[format!("data.path={}", data.display())]);
    good(&strs(&args));
    fs::rename(at("a"), at("b")).expect("movable");
    let [data, run] = ["b/data", "b/run"].map(at);
    let scores = json(&["eval", text(&run), "--sequences", "2"]);
    let scores = scores.to_string();
    assert!(scores.contains("elbo"), "{scores}");
    let generated = json(&["generate", text(&run), "--prompt", "w1 w2", "--max-tokens", "3"]);
    let text_of = generated["text"].as_str().expect("text");
    assert!(text_of.starts_with("w1 w2"), "{generated}");
    assert!(text_of.split_whitespace().all(|word| word.starts_with(['w', '<'])), "{text_of}");
    bad(&["generate", text(&run), "--prompt", "w151000"], 1, &["tokenizer.json", "UNK"]);

    // Another tokenizer in its place is refused: in the corpus, and in the checkpoint.
    let changed = tokenizer_json().replace("\"w1\":1,\"w2\":2", "\"w2\":1,\"w1\":2");
    fs::write(data.join("tokenizer.json"), &changed).expect("writable");
    let parts = ["data/tokenizer.json: SHA-256: expected", "the file was changed"];
    bad(&["data", "inspect", text(&data)], 1, &parts);
    let checkpoint = run.join("checkpoints/step-2/tokenizer.json");
    fs::write(checkpoint, &changed).expect("writable");
    bad(&["generate", text(&run)], 1, &["step-2/tokenizer.json: SHA-256", "was changed"]);
}

#[test]
fn llm_c_shards_of_32_bits_are_trained_on_by_the_tokenizer_that_the_configuration_names() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| -> PathBuf { temp.path().join(name) };
    let (file, data, run) = (at("tokenizer.json"), at("data"), at("run"));
    fs::write(&file, tokenizer_json()).expect("writable");
    fs::create_dir(&data).expect("creatable");
    let mut shard = vec![0_u8; 1024];
    for (at, field) in [20240801_i32, 7, 64].into_iter().enumerate() {
        shard[4 * at..4 * at + 4].copy_from_slice(&field.to_le_bytes());
    }
    shard.extend((0..64_u32).flat_map(|i| (i * 2300).to_le_bytes()));
    fs::write(data.join("train.bin"), shard).expect("writable");

    let path = format!("data.path={}", data.display());
    bad(&strs(&train(&run, std::slice::from_ref(&path))), 2, &["data.path", "meta.json"]);
    let named = format!("data.tokenizer={}", file.display());
    let args = train(&run, &[path, named]);
    good(&strs(&args));
    // The run has a copy, and goes on with it when the file is gone.
    fs::remove_file(&file).expect("removable");
    good(&["eval", text(&run), "--sequences", "1", "--split", "train"]);
    let (text, _) = good(&["generate", text(&run), "--prompt", "w5", "--max-tokens", "2"]);
    assert!(text.starts_with("w5"), "{text}");
}

#[test]
fn a_bad_tokenizer_file_is_named_with_what_was_expected() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| -> PathBuf { temp.path().join(name) };
    let (book, out) = (at("book.txt"), at("out"));
    fs::write(&book, "w1 w2").expect("writable");
    let no_end = tokenizer_json().replace("<|endoftext|>", "<|finish|>");
    for (content, parts) in [
        ("{", ["t.json: content: expected a Hugging Face tokenizer.json", "EOF"]),
        ("{\"model\": 3}", ["t.json: content: expected a Hugging Face tokenizer.json", "Model"]),
        (&*no_end, ["t.json: vocabulary: expected a token that ends documents", "none among"]),
    ] {
        let file = at("t.json");
        fs::write(&file, content).expect("writable");
        let arguments = ["data", "prepare", text(&book), "--tokenizer", text(&file), "--out"];
        bad(&[&arguments[..], &[text(&out)]].concat(), 1, &parts);
        assert!(!out.exists());
    }
    let arguments = ["data", "prepare", text(&book), "--tokenizer", "no-such", "--out", text(&out)];
    bad(&arguments, 2, &["bytes, gpt2, words or the path of a tokenizer.json", "no-such"]);
    let file = at("t.json");
    let named = ["--tokenizer", text(&file), "--end-of-document", "<|finish|>"];
    let prepare = ["data", "prepare", text(&book), "--out", text(&out), "--val-fraction", "0"];
    let (stdout, _) = good(&[&prepare[..], &named].concat());
    assert!(stdout.contains("train: 3 tokens, 1 documents"), "{stdout}");
}
