//! The command from outside: texts written to a file and measured, and word problems answered.

mod command;

use std::fs;
use std::path::{Path, PathBuf};

use command::{bad, good, json, ltm};
use serde_json::Value;

fn lines(file: &str) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// A folder for a test's files.
struct Folder(tempfile::TempDir);

impl Folder {
    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Writes a file of these lines and returns its path.
    fn write(&self, name: &str, lines: &[&str]) -> String {
        fs::write(self.path(name), lines.join("\n")).expect("writable");
        self.path(name)
    }
}

/// A folder, and a tiny model of bytes in it that was trained on these lines for so many steps.
fn trained(lines: &[&str], steps: usize) -> (Folder, String) {
    let folder = Folder(tempfile::tempdir().expect("a temporary folder"));
    let book = folder.write("book.txt", lines);
    let (data, run) = (folder.path("data"), folder.path("run"));
    good(&["data", "prepare", &book, "--tokenizer", "bytes", "--out", &data]);
    let config: PathBuf =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../ltm-train/tests/tiny.toml");
    let mut sets = vec![format!("data.path={data}"), format!("run.dir={run}")];
    for key in ["steps", "checkpoint_every", "eval_every"] {
        sets.push(format!("train.{key}={steps}"));
    }
    sets.extend(["train.lr=2e-2", "train.lr_min=5e-3"].map(String::from));
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    good(&[&["train", &config.display().to_string(), "--no-samples"][..], &sets].concat());
    (folder, run)
}

#[test]
fn texts_go_to_a_file_and_are_measured_beside_others() {
    let (folder, run) = trained(&["a small dog saw a cat. "; 60], 2);
    let out = folder.path("samples.jsonl");
    let base = ["generate", &run, "--count", "4", "--max-tokens", "20", "--prompt", "a s"];
    let with = |more: &[&'static str], out: &'static str| -> (String, Vec<String>) {
        let file = folder.path(out);
        let args = [&base[..], &["--out", &file], more].concat();
        (file.clone(), args.into_iter().map(String::from).collect())
    };
    let (table, _) = good(&[&base[..], &["--out", &out]].concat());
    for part in ["unit: words", "samples", "distinct-3", "self-BLEU-4", "rep-4", "entropy"] {
        assert!(table.contains(part), "`{part}` is not in\n{table}");
    }
    let written = lines(&out);
    assert_eq!(written.len(), 4);
    for (line, seed) in written.iter().zip(0..) {
        assert!(line["text"].as_str().is_some_and(|text| text.starts_with("a s")), "{line}");
        assert_eq!(line["seed"], seed, "{line}");
    }
    assert!(written.iter().any(|line| line["text"] != written[0]["text"]), "{written:?}");
    // Fitted again on the way, texts have the same first tokens and then go their own way.
    let (file, refitted) = with(&["--refit", "8", "--no-stop"], "refitted.jsonl");
    good(&refitted.iter().map(String::as_str).collect::<Vec<_>>());
    let (plain, unfitted) = with(&["--no-stop"], "plain.jsonl");
    good(&unfitted.iter().map(String::as_str).collect::<Vec<_>>());
    let texts = |file: &str| -> Vec<String> {
        let text = |line: &Value| line["text"].as_str().expect("text").to_string();
        lines(file).iter().map(text).collect()
    };
    let (refitted, plain) = (texts(&file), texts(&plain));
    assert_ne!(refitted, plain);
    for (refitted, plain) in refitted.iter().zip(&plain) {
        let same = refitted.bytes().zip(plain.bytes()).take_while(|(a, b)| a == b).count();
        // Three bytes of prompt and eight tokens, the last of which may begin a character.
        assert!(same >= 3 + 7 || refitted == plain, "{refitted:?} {plain:?}");
    }
    bad(&[&base[..], &["--refit", "0"]].concat(), 2, &["--refit"]);
    // The same arguments print the same texts, and the first of four is the one alone.
    let texts: Vec<&str> =
        written.iter().map(|line| line["text"].as_str().expect("text")).collect();
    assert_eq!(good(&base).0, texts.join("\n<|endoftext|>\n") + "\n");
    let objects: String = written.iter().map(|line| format!("{line}\n")).collect();
    assert_eq!(good(&[&base[..], &["--json"]].concat()).0, objects);
    let one = base.map(|arg| if arg == "4" { "1" } else { arg });
    assert_eq!(good(&one).0, format!("{}\n", written[0]["text"].as_str().expect("text")));

    // In tokens, beside a reference that is cut to the longest text: bytes of two letters.
    let reference =
        folder.write("other.jsonl", &["{\"text\": \"abababababababababababababab\"}"; 5]);
    let (_, args) = with(&["--units", "tokens"], "second.jsonl");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let found = json(&[&args[..], &["--reference", &reference]].concat());
    assert_eq!((&found["units"], &found["samples"]["texts"]), (&"tokens".into(), &4.into()));
    let reference = &found["reference"];
    assert_eq!(reference["longest"], found["samples"]["longest"], "{found}");
    assert_eq!((&reference["texts"], &reference["self_bleu"]), (&4.into(), &1.0.into()));
    assert_eq!(
        reference["distinct"][0],
        2.0 / (4.0 * reference["longest"].as_f64().expect("a number"))
    );

    bad(&[&base[..], &["--out", &out]].concat(), 1, &["samples.jsonl", "exists"]);
    assert_eq!(lines(&out), written);
    bad(&[&base[..], &["--reference", "/no/such.txt"]].concat(), 1, &["/no/such.txt"]);
    bad(&[&base[..], &["--json", "--reference", "x.txt"]].concat(), 2, &["--out"]);
}

#[test]
fn texts_are_written_again_and_scored() {
    let (folder, run) = trained(&["a small dog saw a cat. "; 60], 2);
    let base =
        ["generate", &run, "--count", "3", "--max-tokens", "12", "--prompt", "a s", "--json"];
    let of = |more: &[&str]| -> Vec<Value> {
        let (out, _) = good(&[&base[..], more].concat());
        out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let (plain, best, last) =
        (of(&[]), of(&["--rethink", "2"]), of(&["--rethink", "2", "--rethink-keep", "last"]));
    assert!(plain[0].get("rounds").is_none(), "{plain:?}");
    for ((plain, best), last) in plain.iter().zip(&best).zip(&last) {
        let rounds = best["rounds"].as_array().expect("a list");
        assert_eq!((rounds.len(), &rounds[0]["text"]), (3, &plain["text"]));
        let kept = best["round"].as_u64().expect("a number") as usize;
        assert_eq!(best["text"], rounds[kept]["text"]);
        let score = |round: &Value| round["score"]["nats_per_token"].as_f64().expect("a score");
        assert!(rounds.iter().all(|round| score(round) >= score(&rounds[kept])), "{best}");
        assert_eq!(rounds[0]["score"]["protocol"], "elbo:8");
        assert_eq!((&last["rounds"], &last["round"]), (&best["rounds"], &2.into()));
        assert_eq!(last["text"], rounds[2]["text"]);
    }
    // Measured by round, and in words.
    let out = folder.path("rounds.jsonl");
    let measured = [&base[..], &["--rethink", "1", "--refit", "4", "--out", &out]].concat();
    let (found, said) = good(&measured);
    assert!(said.contains("elbo:8 by round, nats per token"), "{said}");
    let found: Value = serde_json::from_str(&found).expect("JSON");
    let kept = |round: &Value| round["kept"].as_u64().expect("a number");
    let rounds = found["rounds"].as_array().expect("a list");
    assert_eq!((rounds.len(), rounds.iter().map(kept).sum::<u64>()), (2, 3));
    assert_eq!(
        (found.get("stories"), lines(&out)[0]["rounds"].as_array().map(Vec::len)),
        (None, Some(2))
    );
    let out = folder.path("table.jsonl");
    let table = [&base[..8], &["--rethink", "1", "--out", &out]].concat();
    assert!(good(&table).0.contains("texts kept"), "a table of rounds");

    let langevin = ["--set", "infer.method=langevin", "--rethink", "1"];
    bad(&[&base[..], &langevin].concat(), 2, &["--rethink", "`rethink.keep` must be last"]);
    let last = of(&[&langevin[..], &["--rethink-keep", "last"]].concat());
    assert_eq!((&last[0]["round"], &last[0]["rounds"][0]["score"]), (&1.into(), &Value::Null));
    bad(&[&base[..], &["--rethink", "0"]].concat(), 2, &["--rethink"]);
    bad(&[&base[..], &["--rethink-keep", "last"]].concat(), 2, &["--rethink"]);
    let test = folder.write("test.jsonl", &[FIRST]);
    let asked = ["eval", &run, &test, "--max-tokens", "6", "--samples", "2", "--rethink", "1"];
    let found = json(&asked);
    assert_eq!((&found["gsm8k"]["rethink"], &found["gsm8k"]["answers"]), (&1.into(), &2.into()));
    assert!(good(&asked).0.contains("the best of 2 texts"), "in the table");
    bad(&["eval", &run, "--rethink", "1"], 2, &["--rethink", "GSM8K only"]);
}

#[test]
fn stories_are_checked_and_models_without_latents_refuse_to_rethink() {
    let folder = Folder(tempfile::tempdir().expect("a temporary folder"));
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/thoughts.toml");
    let config = config.display().to_string();
    let train = |run: &str, latents: &str| {
        let sets = [
            format!("run.dir={run}"),
            format!("model.n_latents={latents}"),
            "model.encoder_width=0".into(),
            "infer.start=prior".into(),
            "train.prefix_weight=0".into(),
            "data.documents=64".into(),
            "data.val_documents=8".into(),
            "train.steps=2".into(),
            "train.warmup=1".into(),
            "train.checkpoint_every=2".into(),
            "train.eval_sequences=4".into(),
        ];
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        good(&[&["train", &config, "--no-samples"][..], &sets].concat());
    };
    let (run, none) = (folder.path("run"), folder.path("none"));
    train(&run, "2");
    let out = folder.path("stories.jsonl");
    let prompt = ["--prompt", "one sunny morning , tom went to the river with a red dog ."];
    let measured = ["--count", "2", "--max-tokens", "20", "--rethink", "1", "--out", &out];
    let found = json(&[&["generate", &run][..], &prompt, &measured].concat());
    let stories = &found["stories"];
    assert_eq!((&stories["stories"], &stories["reach"]), (&2.into(), &4.into()), "{found}");
    assert!(stories["sentences"]["mean"].as_f64().is_some_and(|share| share > 0.0), "{found}");
    assert_eq!(found["rounds"][1]["stories"]["stories"], 2);
    let table = folder.path("table.jsonl");
    let (table, _) =
        good(&["generate", &run, "--count", "2", "--max-tokens", "20", "--out", &table]);
    for part in ["consistent stories", "within 4 words", "all facts"] {
        assert!(table.contains(part), "`{part}` is not in\n{table}");
    }
    train(&none, "0");
    bad(&["generate", &none, "--rethink", "1"], 2, &["--rethink", "without latents"]);
}

#[test]
fn prompts_come_from_files_and_pipes() {
    let (folder, run) = trained(&["a small dog saw a cat. "; 60], 2);
    let base = ["generate", &run, "--max-tokens", "6", "--json"];
    let of = |more: &[&str]| -> Value {
        serde_json::from_str(&good(&[&base[..], more].concat()).0).expect("JSON")
    };
    let typed = of(&["--prompt", "a small"]);
    assert_eq!((&typed["prompt"], &typed["tokens"]), (&"a small".into(), &6.into()));
    for content in ["a small", "a small\n", "a small\r\n", "\u{feff}a small"] {
        let file = folder.write("prompt.txt", &[content]);
        assert_eq!(of(&["--prompt-file", &file]), typed, "{content:?}");
        for dash in [["--prompt", "-"], ["--prompt-file", "-"]] {
            let mut piped = ltm(&[&base[..], &dash].concat());
            let input = fs::File::open(&file).expect("readable");
            let out = piped.stdin(input).output().expect("the command starts");
            assert_eq!(serde_json::from_slice::<Value>(&out.stdout).expect("JSON"), typed);
        }
    }
    // Nothing to read is no prompt; a line break of its own stays.
    assert_eq!(of(&["--prompt", "-"])["prompt"], "");
    let file = folder.write("lines.txt", &["a\n\n"]);
    assert_eq!(of(&["--prompt-file", &file])["prompt"], "a\n");
    let file = folder.path("binary.txt");
    fs::write(&file, b"ab\xffc").expect("writable");
    bad(
        &[&base[..], &["--prompt-file", &file]].concat(),
        1,
        &["binary.txt", "UTF-8", "position 2"],
    );
    let missing = folder.path("missing.txt");
    bad(&[&base[..], &["--prompt-file", &missing]].concat(), 1, &["missing.txt", "os error 2"]);
    bad(&[&base[..], &["--prompt", "a", "--prompt-file", &file]].concat(), 2, &["--prompt-file"]);
}

#[test]
fn texts_go_past_the_context_and_say_why_they_end() {
    let (_folder, run) = trained(&["a small dog saw a cat. "; 60], 2);
    let of = |more: &[&str]| -> (Value, String) {
        let (out, said) = good(&[&["generate", &run, "--json"], more].concat());
        (serde_json::from_str(&out).expect("JSON"), said)
    };
    // The context holds 96 bytes.
    let long = "a small dog saw a cat. ".repeat(9);
    let (text, said) = of(&["--prompt", &long, "--max-tokens", "150", "--no-stop"]);
    assert_eq!((&text["tokens"], &text["finish_reason"]), (&150.into(), &"length".into()));
    assert!(text["text"].as_str().is_some_and(|text| text.starts_with(&long)), "{text}");
    for part in ["208 tokens", "the last 96", "the context of 96 tokens was full"] {
        assert!(said.contains(part), "`{part}` is not in\n{said}");
    }
    assert!(!said.contains("not at the end of a document"), "asked for: {said}");
    let (text, said) = of(&["--prompt", "a s", "--max-tokens", "2"]);
    assert_eq!(text["finish_reason"], "length");
    assert!(said.contains("1 of 1 texts ended at --max-tokens 2"), "{said}");
    assert!(!said.contains("was full"), "{said}");

    let fit = |set: &str| of(&["--prompt", "a small dog", "--max-tokens", "20", "--set", set]).0;
    assert_eq!(fit("infer.steps=16"), fit("infer.steps=16"));
    assert_ne!(fit("infer.steps=1")["text"], fit("infer.steps=64")["text"]);
    bad(&["generate", &run, "--set", "model.dim=8"], 2, &["--set", "model"]);
    bad(&["generate", &run, "--set", "infer.stepps=8"], 2, &["infer.stepps", "steps"]);
}

#[test]
fn a_seed_changes_the_noise_of_an_evaluation() {
    let (_folder, run) = trained(&["a small dog saw a cat. "; 60], 2);
    let of = |more: &[&str]| {
        let args = ["eval", &run, "--protocol", "elbo:1", "--protocol", "reconstruction"];
        json(&[&args[..], &["--sequences", "2"], more].concat())
    };
    let (first, second) = (of(&["--seed", "1"]), of(&["--seed", "2"]));
    assert_ne!(first["elbo:1"]["nats_per_token"], second["elbo:1"]["nats_per_token"]);
    assert_eq!(first, of(&["--seed", "1"]));
    assert_eq!(first, of(&[]), "the run's own seed is 1");
}

const FIRST: &str = r#"{"question": "1+1?", "answer": "It is 2.\n#### 2"}"#;
const SECOND: &str = r#"{"question": "Three times 400?", "answer": "3*400=1200\n#### 1,200"}"#;

#[test]
fn word_problems_are_answered_and_counted() {
    let (folder, run) = trained(&["a small dog saw a cat. "; 60], 2);
    let (test, train) = (
        folder.write("test.jsonl", &[FIRST, SECOND]),
        folder.write("train.jsonl", &[SECOND, FIRST]),
    );
    let out = folder.path("answers.jsonl");
    let shots = ["--shots", "1", "--train-file", &train, "--max-tokens", "8", "--samples", "3"];
    let base = [&["eval", &run, &test][..], &shots].concat();
    let found = json(&[&base[..], &["--samples-out", &out]].concat());
    let gsm8k = &found["gsm8k"];
    for (key, value) in
        [("questions", 2), ("samples", 3), ("shots", 1), ("answers", 6), ("too_long", 0)]
    {
        assert_eq!(gsm8k[key], value, "{key} of {found}");
    }
    assert_eq!((&gsm8k["pass"][0]["k"], &gsm8k["pass"][1]["k"]), (&1.into(), &3.into()));
    let written = lines(&out);
    assert_eq!((written.len(), &written[1]["number"]), (2, &"1200".into()));
    let extracted = |line: &Value| {
        line["numbers"].as_array().expect("a list").iter().filter(|n| !n.is_null()).count()
    };
    assert_eq!(gsm8k["extracted"], written.iter().map(extracted).sum::<usize>());
    assert_eq!((&written[0]["shots"], &written[0]["room"]), (&1.into(), &8.into()));

    // Ninety-six tokens hold no second example and a whole answer; a long question leaves no room at all.
    let long = format!(r##"{{"question": "{}?", "answer": "It is #### 1"}}"##, "1+".repeat(60));
    let test = folder.write("long.jsonl", &[FIRST, &long, "{\"question\": 3}"]);
    let args = ["eval", &run, &test, "--format", "gsm8k", "--shots", "2", "--train-file", &train];
    bad(&args, 1, &["long.jsonl", "line 3", "`question`"]);
    let args = [&args[..], &["--skip-malformed", "--max-tokens", "16", "--samples", "2"]].concat();
    let (table, stderr) = good(&args);
    for part in [
        "2 shots",
        "pass@1",
        "pass@2",
        "of 2 questions",
        "fewer shots than requested",
        "1 questions, counted as wrong",
        "malformed records skipped   1",
    ] {
        assert!(table.contains(part), "`{part}` is not in\n{table}");
    }
    assert!(stderr.contains("line 3"), "{stderr}");

    // By a protocol, the texts of questions and answers are scored.
    let test = folder.write("short.jsonl", &[FIRST, SECOND]);
    let found = json(&["eval", &run, &test, "--protocol", "elbo:2"]);
    assert_eq!(found["elbo:2"]["bytes"], 94, "{found}");

    bad(&[&base[..], &["--pass", "4"]].concat(), 2, &["pass", "1 to 3"]);
    bad(&["eval", &run, &test, "--shots", "1"], 2, &["shots", "--train-file"]);
    let none = ["--skip-malformed", "--shots", "0", "--samples", "1", "--max-tokens", "8"];
    good(&[&["eval", &run, &test, "--format", "gsm8k"][..], &none].concat());
    bad(&["eval", &run, "--shots", "1", "--train-file", &train], 2, &["GSM8K"]);
    bad(&[&base[..], &["--samples-out", &out]].concat(), 1, &["answers.jsonl", "exists"]);
}

#[test]
fn what_was_learned_by_heart_counts_as_right() {
    let lines = ["Question: 1+1?\nAnswer: #### 2\n<|endoftext|>"; 400];
    let (folder, run) = trained(&lines, 60);
    let right = r#"{"question": "1+1?", "answer": "It is 2.\n#### 2.00"}"#;
    let test = folder.write("test.jsonl", &[right, &right.replace("2.00", "3")]);
    let args = ["eval", &run, &test, "--temperature", "0", "--samples", "2", "--max-tokens", "12"];
    let found = &json(&args)["gsm8k"];
    assert_eq!((&found["answers"], &found["extracted"]), (&4.into(), &4.into()), "{found}");
    for pass in found["pass"].as_array().expect("a list") {
        // One question of two: the deviations are a half each.
        assert_eq!((&pass["mean"], &pass["standard_error"]), (&0.5.into(), &0.5.into()), "{found}");
    }
}
