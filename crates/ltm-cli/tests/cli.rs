//! The command from outside: a run from first to last, and bad input refused.

mod command;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use command::{bad, json, ltm};

/// Standard output of a call that must succeed.
fn good(args: &[&str]) -> String {
    command::good(args).0
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn tiny() -> String {
    root().join("crates/ltm-train/tests/tiny.toml").display().to_string()
}

/// Arguments that train the tiny configuration into `dir`.
fn train_args<'a>(config: &'a str, dir: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["train", config, "--no-samples", "--set", dir][..], more].concat()
}

fn set_dir(dir: &Path) -> String {
    format!("run.dir={}", dir.display())
}

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

#[test]
fn a_run_from_first_to_last() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let (config, dir) = (tiny(), temp.path().join("run"));
    let run = dir.display().to_string();
    let set = set_dir(&dir);
    let text = good(&["train", &config, "--set", &set]);
    for part in [
        "true entropy",
        "elbo",
        "unconditional sample",
        "prompt:",
        "~contradicted~: facts",
        "step-6",
        "val.svg",
    ] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
    let shown = good(&["config", "show", &config]);
    assert!(shown.contains("counted") && shown.contains("by the paper's formula"), "{shown}");
    for file in ["config.toml", "metrics.jsonl", "latest", "plots/train.svg", "plots/val.svg"] {
        assert!(!read(dir.join(file)).is_empty(), "{file}");
    }
    assert!(dir.join("checkpoints/step-4").exists() && !dir.join("checkpoints/step-2").exists());
    let events = |entry: fs::DirEntry| entry.file_name().to_string_lossy().contains("tfevents");
    assert!(fs::read_dir(&dir).expect("listable").flatten().any(events));

    let scores = good(&["eval", &run, "--protocol", "elbo:2", "--protocol", "iwae:2"]);
    assert!(scores.contains("elbo, 2 fresh") && scores.contains("iwae, 2 fresh"), "{scores}");
    for protocol in ["reconstruction", "elbo-fitted-noise"] {
        let json = json(&["eval", &run, "--protocol", protocol, "--sequences", "3"]);
        assert_eq!(json[protocol]["sequences"], 3, "{json}");
    }
    check_numbers(&run, temp.path());
    let prompt = "on a sunny morning, tom went";
    let text = good(&["generate", &run, "--prompt", prompt, "--max-tokens", "5"]);
    assert!(text.starts_with(prompt), "{text}");
    assert_eq!(text, good(&["generate", &run, "--prompt", prompt, "--max-tokens", "5"]));
    good(&["generate", &dir.join("checkpoints/step-4").display().to_string(), "--count", "2"]);

    let saved = temp.path().join("z.safetensors").display().to_string();
    let table = good(&["think", &run, "--text", prompt, "--save", &saved]);
    assert!(table.contains("KL 1") && table.contains('•'), "{table}");
    assert!(table.contains("the latents cost") && table.contains("at the prior"), "{table}");
    assert!(read(&saved).len() > 3 * 4 * 4 * 16);
    bad(
        &["think", &run, "--text", prompt, "--save", &saved],
        1,
        &["z.safetensors", "the file exists"],
    );

    // A second run must not touch the first, and its end is not its beginning.
    bad(&train_args(&config, &set, &[]), 1, &["--resume"]);
    assert!(good(&train_args(&config, &set, &["--resume"])).contains("true entropy"));
}

/// What `eval` tells beside nats per token: as JSON, and sequence by sequence.
fn check_numbers(run: &str, temp: &Path) {
    let file = temp.join("sequences.jsonl").display().to_string();
    let protocols = ["elbo:2", "prequential:24:2", "prequential-overlap:48:2"];
    let asked = protocols.iter().flat_map(|name| ["--protocol", name]);
    let args: Vec<&str> = ["eval", run, "--per-document", &file].into_iter().chain(asked).collect();
    let json = json(&args);
    bad(&args, 1, &["sequences.jsonl: the file exists"]);
    #[cfg(unix)]
    bad(&["eval", run, "--per-document", "/dev/stdout"], 1, &["/dev/stdout: the file exists"]);
    let text = String::from_utf8(read(&file)).expect("UTF-8");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for name in protocols {
        let numbers = &json[name];
        let number = |key: &str| numbers[key].as_f64().unwrap_or_else(|| panic!("{key}: {json}"));
        let sum = |of: &dyn Fn(&serde_json::Value) -> Option<f64>| -> f64 {
            let scored = lines.iter().filter(|line| line["scores"][name].is_object());
            scored.map(|line| of(line).expect("a number")).sum()
        };
        let nats = sum(&|line| line["scores"][name]["nats"].as_f64());
        // The same sums in double precision.
        assert!((nats / number("tokens") - number("nats_per_token")).abs() < 1e-9, "{json}");
        let bits = nats / std::f64::consts::LN_2 / number("bytes");
        assert!((bits - number("bits_per_byte")).abs() < 1e-9, "{json}");
        assert_eq!(sum(&|line| line["bytes"].as_f64()), number("bytes"));
        assert!(number("mean_sequence_perplexity") > 1.0 && number("sampling_error") > 0.0);
        assert!(sum(&|line| line["scores"][name]["sampling_error"].as_f64()) > 0.0);
    }
    let kl = json["latents"]["kl_per_latent_nats_per_sequence"].as_array().expect("an array");
    assert_eq!(kl.len(), 4, "{json}");
    // Rows of this run are stories.
    assert_eq!((&lines[1]["document"], &lines[1]["rows"]), (&1.into(), &1.into()));
    assert!(lines[0]["kl"].as_f64().is_some_and(|kl| kl > 0.0), "{}", lines[0]);
    for key in [
        "kl_per_layer_nats_per_sequence",
        "worth_nats_per_token",
        "worth_standard_error",
        "bound_above_prior_nats_per_token",
        "bound_above_prior_standard_error",
        "mean_signal_variance",
        "mean_noise_variance",
        "mean_signal_share",
    ] {
        assert!(!json["latents"][key].is_null(), "{key}: {json}");
    }
    bad(&["eval", run, "--per-document", "/no/such/folder/x"], 1, &["/no/such/folder/x"]);
    let table = good(&["eval", run, "--set", "infer.noise=fixed", "--sequences", "2"]);
    for part in ["bits per byte", "as in the published code", "(optimistic)"] {
        assert!(table.contains(part), "`{part}` is not in\n{table}");
    }
    let fits = ["eval", run, "--protocol", "elbo:2", "--sequences", "2", "--convergence"];
    assert!(good(&fits).contains("fitted from   fast steps"), "{}", good(&fits));
    let found = command::json(&fits);
    let rows = found["convergence"].as_array().expect("one row per fit");
    assert_eq!((&rows[0]["start"], rows.len()), (&"prior".into(), 2), "{found}");
    assert!(rows[1]["scores"]["iwae:8"]["nats_per_token"].is_number(), "{found}");
    let fresh = good(&["eval", run, "--sequences", "2"]);
    assert!(fresh.contains("elbo-fitted-noise") && !fresh.contains("optimistic"), "{fresh}");
}

#[test]
fn configurations_are_shown_and_refused() {
    for (preset, parameters) in
        [("small", "38369280"), ("medium", "51005952"), ("large", "76279296"), ("", "")]
    {
        let name = if preset.is_empty() { "quickstart".into() } else { format!("ltm-{preset}") };
        let file = root().join(format!("configs/{name}.toml")).display().to_string();
        assert!(good(&["config", "show", &file]).contains(parameters));
        good(&["config", "check", &file]);
    }
    let config = tiny();
    for (set, parts) in [
        ("model.widnow=3", &["`model.widnow`", "`window`"][..]),
        ("model.n_heads=5", &["dim"]),
        ("model.n_latents=3", &["n_latents"]),
        ("model.window=0", &["window"]),
        ("data.path=/no/such/folder", &["/no/such/folder"]),
    ] {
        bad(&["train", &config, "--set", set], 2, parts);
        bad(&["config", "check", &config, "--set", set], 2, parts);
    }
    let nowhere = tempfile::tempdir().expect("a temporary folder");
    let dir = set_dir(&nowhere.path().join("run"));
    for (device, parts) in
        [("gpu", &["run.device", "`cuda:<ordinal>`"][..]), ("cuda:99", &["run.device"])]
    {
        bad(&train_args(&config, &dir, &["--device", device]), 1, &[parts, &[device]].concat());
    }
    assert_eq!(fs::read_dir(&nowhere).expect("listable").count(), 0, "nothing was written");
    bad(&["train", "/no/such.toml"], 1, &["/no/such.toml"]);
    bad(&["train"], 2, &["Usage"]);
    bad(&["eval", "x", "--protocol", "perplexity"], 2, &["perplexity", "elbo"]);
}

#[test]
fn products_in_16_bits_stay_within_the_limits_of_parity() {
    let fixture = root().join("crates/ltm-model/tests/fixtures/tiny.safetensors");
    let fixture = fixture.display().to_string();
    for precision in ["f32", "mixed"] {
        let text = good(&["parity", "--precision", precision, &fixture]);
        assert!(text.contains("150 quantities, 0 exceed their limit"), "{text}");
    }
}

#[test]
fn damaged_files_are_refused_by_name() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| temp.path().join(name).display().to_string();
    let config = tiny();
    let (run, set) = (path("run"), set_dir(&temp.path().join("run")));
    good(&train_args(&config, &set, &["--set", "train.steps=2"]));

    bad(&["data", "prepare", &path("no.txt"), "--out", &path("o")], 1, &["no.txt"]);
    fs::write(path("empty.txt"), "").expect("writable");
    bad(&["data", "prepare", &path("empty.txt"), "--out", &path("o")], 1, &["empty.txt", "empty"]);
    fs::write(path("bad.txt"), b"good \xff bad").expect("writable");
    bad(&["data", "prepare", &path("bad.txt"), "--out", &path("o")], 1, &["bad.txt", "UTF-8"]);
    bad(&["eval", &path("nowhere")], 1, &["nowhere"]);
    bad(&["generate", temp.path().to_str().expect("UTF-8")], 1, &["checkpoint"]);
    let long = "the ".repeat(200);
    let (_, said) = command::good(&["generate", &run, "--prompt", &long, "--max-tokens", "2"]);
    assert!(said.contains("201 tokens") && said.contains("last 96"), "{said}");
    bad(&["think", &run, "--text", &long], 2, &["--text", "200", "96"]);
    bad(&["generate", &run, "--prompt", "xylophone"], 1, &["xylophone"]);

    // Another model's configuration.
    let other = train_args(&config, &set, &["--resume", "--set", "model.dim=32"]);
    bad(&other, 1, &["model.dim = 16", "model.dim = 32"]);
    // Shards: cut, then with an id past the vocabulary.
    let shard = fs::read_dir(temp.path().join("run/data")).expect("listable").flatten();
    let shard = shard.map(|e| e.path()).find(|p| p.to_string_lossy().contains("val")).expect("one");
    let bytes = read(&shard);
    fs::write(&shard, &bytes[..bytes.len() - 1]).expect("writable");
    bad(&["eval", &run], 1, &["val"]);
    fs::write(&shard, vec![0xfe; bytes.len()]).expect("writable");
    bad(&["eval", &run], 1, &["val", "vocabulary"]);
    // A checkpoint that was cut.
    let model = temp.path().join("run/checkpoints/step-2/model.safetensors");
    let bytes = read(&model);
    fs::write(&model, &bytes[..bytes.len() / 2]).expect("writable");
    bad(&["generate", &run], 1, &["model.safetensors"]);
}

#[test]
fn a_loss_that_is_not_finite_ends_the_run_and_spares_the_checkpoint() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let (config, dir) = (tiny(), temp.path().join("run"));
    let set = set_dir(&dir);
    good(&train_args(&config, &set, &["--set", "train.steps=2"]));
    let model = dir.join("checkpoints/step-2/model.safetensors");
    let before = read(&model);
    let wild = ["--resume", "--set", "train.lr=1e38", "--set", "train.lr_min=1e38"];
    bad(&train_args(&config, &set, &wild), 1, &["step ", "not finite", "step-2"]);
    assert!(read(&model) == before);
}

/// A limit on the size of files stands in for a full disk: a write past it fails all the same.
#[cfg(unix)]
#[test]
fn a_full_disk_ends_the_run_and_spares_the_checkpoint() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let (config, dir) = (tiny(), temp.path().join("run"));
    let set = set_dir(&dir);
    good(&train_args(&config, &set, &["--set", "train.steps=2"]));
    let model = dir.join("checkpoints/step-2/model.safetensors");
    let before = read(&model);
    // 16 blocks of at most 1 KiB: room for the metrics, none for the weights.
    assert!(before.len() > 16 * 1024);
    let limited = "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\"";
    let mut full = Command::new("sh");
    full.args(["-c", limited, env!("CARGO_BIN_EXE_ltm")]);
    full.args(train_args(&config, &set, &["--resume", "--set", "train.steps=4"]));
    let out = full.stdin(Stdio::null()).output().expect("the shell starts");
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("step-4") && stderr.contains("model.safetensors"), "{stderr}");
    let left: Vec<_> = fs::read_dir(dir.join("checkpoints")).expect("listable").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(read(&model) == before);
    good(&train_args(&config, &set, &["--resume", "--set", "train.steps=4"]));
}

#[test]
fn the_published_gradient_and_the_baseline_train_too() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let config = tiny();
    let metrics = |name: &str, more: &[&str]| {
        let dir = temp.path().join(name);
        good(&train_args(&config, &set_dir(&dir), &[&["--set", "train.steps=2"], more].concat()));
        (dir.display().to_string(), read(dir.join("metrics.jsonl")))
    };
    let (_, last) = metrics("final", &[]);
    let (_, summed) = metrics("summed", &["--set", "train.slow_gradient=\"trajectory\""]);
    assert!(last != summed);
    let (run, _) = metrics("baseline", &["--set", "model.n_latents=0"]);
    assert!(good(&["eval", &run, "--protocol", "autoregressive"]).contains("autoregressive"));
    bad(&["eval", &run, "--protocol", "elbo"], 1, &["elbo", "autoregressive"]);
    good(&["generate", &run, "--prompt", "on a sunny morning", "--max-tokens", "3"]);
}

#[cfg(unix)]
#[test]
fn interrupted_it_saves_and_says_how_to_go_on() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let (config, dir) = (tiny(), temp.path().join("run"));
    let set = set_dir(&dir);
    let long = ["--set", "train.steps=1000000", "--set", "train.eval_every=0"];
    let mut run = ltm(&train_args(&config, &set, &long));
    let child = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    // The first line of metrics means that training is under way.
    let begun = || fs::metadata(dir.join("metrics.jsonl")).is_ok_and(|file| file.len() > 0);
    for _ in 0..600 {
        if begun() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(begun() && kill.expect("kill starts").success());
    let out = child.wait_with_output().expect("waited for");
    let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("--resume"), "{said}");
    let step = read(dir.join("latest"));
    let step = String::from_utf8_lossy(&step);
    let step: u64 = step.trim().rsplit('-').next().and_then(|n| n.parse().ok()).expect("a step");
    let more = format!("train.steps={}", step + 2);
    good(&train_args(&config, &set, &["--resume", "--set", &more, "--set", "train.eval_every=0"]));
    assert!(dir.join(format!("checkpoints/step-{}", step + 2)).exists());
}

#[cfg(unix)]
#[test]
fn interrupted_in_an_evaluation_it_saves_at_once_and_evaluates_when_resumed() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let (config, dir) = (tiny(), temp.path().join("run"));
    let set = set_dir(&dir);
    // The evaluation after the first step would take minutes.
    let long = ["train.eval_every=1", "train.steps=9", "data.val_documents=3000"];
    let long = long.map(|set| ["--set", set]).concat();
    let all = [&long[..], &["--set", "train.eval_sequences=0", "--set", "train.eval_samples=64"]];
    let mut run = ltm(&train_args(&config, &set, &all.concat()));
    let child = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let begun = || fs::metadata(dir.join("metrics.jsonl")).is_ok_and(|file| file.len() > 0);
    for _ in 0..2400 {
        if begun() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(begun() && kill.expect("kill starts").success());
    let out = child.wait_with_output().expect("waited for");
    assert_eq!(out.status.code(), Some(130), "{}", String::from_utf8_lossy(&out.stderr));
    let lines = || String::from_utf8(read(dir.join("metrics.jsonl"))).expect("text");
    assert_eq!((lines().lines().count(), lines().contains("eval")), (1, false), "{}", lines());
    assert!(dir.join("checkpoints/step-1").exists() && !dir.join("scores.jsonl").exists());
    let few = ["--set", "train.steps=1", "--set", "train.eval_sequences=2", "--resume"];
    good(&train_args(&config, &set, &[&long[..2], &long[4..], &few[..]].concat()));
    assert_eq!((lines().lines().count(), lines().contains("eval")), (2, true), "{}", lines());
    assert!(dir.join("scores.jsonl").exists());
}

#[test]
fn a_sweep_is_listed_run_resumed_and_reported() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let (file, dir) = (temp.path().join("sweep.toml"), temp.path().join("sweep"));
    let text = format!(
        "base = {:?}\ndir = {:?}\nprotocols = [\"elbo:2\"]\neval_sequences = 4\n[budget]\nsteps = 1\n\
         [[grid]]\n\"model.n_latents\" = [0, 4]\n",
        tiny(),
        dir.display()
    );
    fs::write(&file, &text).expect("writable");
    let sweep = file.display().to_string();
    let list = good(&["sweep", &sweep, "--list"]);
    assert!(list.contains("n_latents=4") && list.contains("FLOP") && !dir.exists(), "{list}");
    let table = good(&["sweep", &sweep]);
    assert!(table.contains("autoregressive") && table.contains("elbo:2"), "{table}");
    let lines = good(&["sweep", &sweep, "--json"]);
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert!(lines.contains("flops_per_token_formula"), "{lines}");
    bad(&["sweep", &sweep, "--set", "train.lr=4e-3"], 1, &["results.jsonl", "train.lr", "0.004"]);
    fs::write(&file, text + "\"model.n_latent\" = 2\n").expect("writable");
    bad(&["sweep", &sweep], 2, &["n_latent"]);
    let page = good(&["report", &dir.display().to_string()]);
    let html = read(page.trim());
    assert!(String::from_utf8_lossy(&html).contains("n_latents=4"));
    bad(&["report", &temp.path().display().to_string()], 1, &["results.jsonl"]);
}

#[test]
fn thoughts_are_probed() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let (config, dir) = (tiny(), temp.path().join("run"));
    let run = dir.display().to_string();
    good(&train_args(&config, &set_dir(&dir), &["--set", "train.steps=2"]));
    let table = good(&["probe", "layers", &run, "--sequences", "3"]);
    assert!(table.contains("accuracy, %") && table.contains("3 sequences"), "{table}");
    assert!(read(dir.join("plots/layers-nll.svg")).starts_with(b"<svg"));
    let lines = good(&["probe", "layers", &run, "--sequences", "3", "--json"]);
    let last: serde_json::Value =
        serde_json::from_str(lines.lines().last().expect("a line")).expect("JSON");
    assert_eq!((last["layers"].as_u64(), last["sequences"].as_u64()), (Some(2), Some(3)));
    let texts = ["--from", "on a sunny morning, tom went", "--to", "one snowy evening, mia ran"];
    let probe = |verb: &str, more: &[&str]| {
        let json: Vec<serde_json::Value> =
            good(&[&["probe", verb, &run, "--json"], &texts[..], more].concat())
                .lines()
                .map(|line| serde_json::from_str(line).expect("JSON"))
                .collect();
        json
    };
    let between = probe("between", &["--steps", "3"]);
    let swapped = probe("swap", &[]);
    assert_eq!((between.len(), swapped.len()), (3, 6));
    // Both begin and end with the same two thoughts.
    assert_eq!(between[0]["nll_from"], swapped[0]["nll_from"]);
    assert_eq!(between[2]["nll_to"], swapped[1]["nll_to"]);
    let bad_layer = [&["probe", "swap", &run, "--layer", "3"], &texts[..]].concat();
    bad(&bad_layer, 2, &["--layer", "1 to 2", "found 3"]);
}
