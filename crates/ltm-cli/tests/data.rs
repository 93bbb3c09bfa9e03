//! `ltm data` on files of all kinds: what is read, what is refused, and what is said about it.

mod command;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use command::{bad, good, ltm};
use tempfile::TempDir;

/// A folder with these files.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for (name, content) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("inside")).expect("creatable");
        fs::write(path, content).expect("writable");
    }
    dir
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Token ids of the training shard in `dir/out`.
fn ids(dir: &Path) -> Vec<u16> {
    let bytes = fs::read(dir.join("out/train-000.bin")).expect("a shard");
    bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
}

/// The arguments of `data prepare` of a file or folder into `dir/out`, all into the training split.
fn prepare<'a>(input: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let fixed = ["data", "prepare", input, "--tokenizer", "bytes", "--val-fraction", "0"];
    [&fixed[..], &["--out", out], more].concat()
}

#[test]
fn names_in_upper_case_and_contents_decide_on_formats() {
    for (name, content, expected, note) in [
        ("A.JSONL", &b"{\"text\": \"a\"}\n"[..], &[97, 256][..], ""),
        ("a.json", b"[{\"text\": \"a\"},\n{\"text\": \"b\"}]", &[97, 256, 98, 256], ""),
        (
            "t.tsv",
            b"text\tlabel\nhi\t1\n",
            &[104, 105, 256],
            "t.tsv: column `text` is read as text",
        ),
        (
            "n.csv",
            b"1,a,b\n",
            &[97, 32, 98, 256],
            "n.csv: columns title and description are read as text",
        ),
        (
            "data",
            b"{\"text\": \"a\"}\n",
            &[97, 256],
            "data: read as jsonl, detected from its content",
        ),
        ("notes.md", b"a", &[97, 256], "notes.md: read as text, detected from its content"),
        ("bom.txt", b"\xef\xbb\xbf<|endoftext|>\na", &[97, 256], ""),
    ] {
        let dir = folder(&[(name, content)]);
        let (input, out) = (dir.path().join(name), dir.path().join("out"));
        let (_, notes) = good(&prepare(text(&input), text(&out), &[]));
        assert_eq!(ids(dir.path()), expected, "{name}");
        assert!(notes.contains(note), "{notes}");
        assert!(!note.is_empty() || !notes.contains("read as"), "{notes}");
    }
}

#[test]
fn rare_tokens_are_written_in_shorter_ones_and_other_files_get_the_same_ids() {
    let problem = r##"{"question": "Two zebras?", "answer": "1+1=<<1+1=2>>2\n#### 2"}"##;
    let train =
        [problem; 5].join("\n") + "\n{\"question\": \"xylophone?\", \"answer\": \"#### 1\"}";
    let dir = folder(&[("train.jsonl", train.as_bytes()), ("test.jsonl", problem.as_bytes())]);
    let [train, test, out, other] =
        ["train.jsonl", "test.jsonl", "out", "other"].map(|name| dir.path().join(name));
    let fixed = ["data", "prepare", "--format", "gsm8k", "--val-fraction", "0"];
    let files = [text(&train), "--out", text(&out), "--min-count", "5"];
    let (stdout, _) = good(&[&fixed[..], &files].concat());
    assert!(stdout.contains("gpt2 with 2"), "{stdout}");
    let files = [text(&test), "--out", text(&other), "--tokenizer", text(&out)];
    good(&[&fixed[..], &files].concat());
    let (shown, _) = good(&["data", "inspect", text(&other)]);
    assert!(shown.contains("Question: Two zebras?\nAnswer: 1+1=2\n#### 2<|endoftext|>"), "{shown}");
    let of = |dir: &Path| fs::read(dir.join("train-000.bin")).expect("a shard");
    assert!(of(&out).starts_with(&of(&other)));
    bad(&[&fixed[..], &files, &["--min-count", "5"]].concat(), 2, &["--min-count", "gpt2"]);
    bad(&[&fixed[..], &files, &["--end-of-document", "x"]].concat(), 2, &["--end-of-document"]);
    bad(&[&fixed[..], &files, &["--key", "answer"]].concat(), 2, &["--key", "`question`"]);
    // What can be read only once, and a name that is also a folder's.
    let pipe = ["/dev/stdin", "--out", "x", "--min-count", "2"];
    bad(&[&fixed[..], &pipe].concat(), 2, &["--min-count", "twice", "/dev/stdin"]);
    let gpt2 = dir.path().join("gpt2");
    good(&[&fixed[..], &[text(&test), "--out", text(&gpt2), "--tokenizer", "bytes"]].concat());
    let args = [&fixed[..], &[text(&test), "--out", "x"]].concat();
    let named = ltm(&args).current_dir(dir.path()).output().expect("it starts");
    let found = String::from_utf8_lossy(&named.stdout).into_owned();
    assert!(found.contains("tokenizer gpt2, vocabulary 50258"), "{found}");
}

#[test]
fn files_of_a_folder_that_are_not_read_are_listed() {
    let dir = folder(&[("in/a.TXT", b"a"), ("in/b.CSV", b"text\nb\n"), ("in/c.pdf", b"%PDF")]);
    let (input, out) = (dir.path().join("in"), dir.path().join("out"));
    let (_, notes) = good(&prepare(text(&input), text(&out), &[]));
    assert_eq!(ids(dir.path()), [97, 256, 98, 256]);
    assert!(notes.contains("c.pdf: unknown file format"), "{notes}");
}

#[test]
fn malformed_files_are_refused_by_line() {
    for (name, content, parts) in [
        (
            "q.csv",
            &b"text\nfirst\n\"never closed\nthird\n"[..],
            &["q.csv: line 3", "closing quote"][..],
        ),
        ("w.csv", b"text,n\r\n\r\na,1\r\nb\r\n", &["w.csv: line 4", "2 columns"]),
        ("z.txt", b"\x1f\x8b\x08\0\0", &["z.txt", "gzip"]),
        ("e.txt", b"<|endoftext|>\n", &["e.txt", "some text", "only white space"]),
        ("p.parquet", b"PAR1\x15\0\0\0\xff\xff\xff\x7fPAR1", &["p.parquet"]),
    ] {
        let dir = folder(&[(name, content)]);
        let (input, out) = (dir.path().join(name), dir.path().join("out"));
        bad(&prepare(text(&input), text(&out), &[]), 1, parts);
        assert!(!out.join("train-000.bin").exists());
    }
}

#[test]
fn skipped_records_are_counted_once() {
    for (content, count) in [
        (&b"{\"text\": \"a\"}\n{\n"[..], "1 malformed record "),
        (b"{\n{\n{\"text\": \"a\"}\n", "2 malformed records "),
    ] {
        let dir = folder(&[("a.jsonl", content)]);
        let (input, out) = (dir.path().join("a.jsonl"), dir.path().join("out"));
        let (printed, notes) = good(&prepare(text(&input), text(&out), &["--skip-malformed"]));
        assert!(notes.contains(&format!("skipped: {count}in total")), "{notes}");
        assert!(!printed.contains("malformed"), "{printed}");
        let (printed, _) = good(&["data", "inspect", text(&out)]);
        assert!(printed.contains(&format!("skipped: {}", count.trim_end())), "{printed}");
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_is_read_and_both_splits_made() {
    let dir = folder(&[]);
    let out = dir.path().join("out");
    let mut child =
        ltm(&["data", "prepare", "/dev/stdin", "--tokenizer", "bytes", "--out", text(&out)])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the command starts");
    child.stdin.take().expect("piped").write_all(&b"a b ".repeat(100)).expect("read");
    assert!(child.wait().expect("ends").success());
    assert!((370..390).contains(&ids(dir.path()).len()));
    assert!(out.join("val-000.bin").exists());
    bad(&prepare("/dev/null", text(&dir.path().join("void")), &[]), 1, &["/dev/null", "a device"]);
}

/// Writers of one folder at the same time: one of them writes it all, and the others are refused.
#[test]
fn two_writers_never_mix_their_shards() {
    for round in 0..4 {
        let long = |word: &str| format!("{word} ").repeat(50_000);
        let dir = folder(&[("a.txt", long("one").as_bytes()), ("b.txt", long("two").as_bytes())]);
        let out = dir.path().join("out");
        let inputs = ["a.txt", "b.txt"].map(|name| dir.path().join(name));
        let children = inputs.each_ref().map(|input| {
            ltm(&prepare(text(input), text(&out), &["--shard-tokens", "20000"]))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("the command starts")
        });
        let ended = children.map(|mut child| child.wait().expect("ends").success());
        assert!(ended[0] != ended[1], "round {round}: {ended:?}");
        let names = fs::read_dir(&out).expect("listable").map(|e| e.expect("an entry").file_name());
        let bins = names.filter(|name| text(name.as_ref()).ends_with(".bin")).count();
        assert_eq!(bins, 11, "10 shards and a part, of one writer");
        let (_, said) = good(&["data", "inspect", text(&out), "--verify"]);
        assert!(!said.contains("error"), "{said}");
        let ids = ids(dir.path());
        assert!(ids[..3] == [111, 110, 101] || ids[..3] == [116, 119, 111], "{:?}", &ids[..3]);
    }
}

#[test]
fn a_damaged_validation_split_is_not_taken_for_a_missing_one() {
    let dir = folder(&[("a.txt", "a b ".repeat(100).as_bytes())]);
    let (input, out) = (dir.path().join("a.txt"), dir.path().join("out"));
    good(&["data", "prepare", text(&input), "--tokenizer", "bytes", "--out", text(&out)]);
    let shard = out.join("val-000.bin");
    let bytes = fs::read(&shard).expect("a shard");
    fs::write(&shard, &bytes[1..]).expect("writable");
    bad(&["data", "inspect", text(&out), "--verify"], 1, &["val-000.bin"]);
}

#[test]
fn help_names_shards_as_they_are_written() {
    let (help, _) = good(&["data", "prepare", "--help"]);
    assert!(help.contains("train-000.bin") && !help.contains("train_*"), "{help}");
}
