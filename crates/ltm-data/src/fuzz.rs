//! Fuzzing of the readers of all formats, of shards and of tokenizers: random sequences of pieces that matter to a format,
//! compared with a plain implementation or another library, and damaged files, which must be errors.
//!
//! Short by default and with fixed seeds. `LTM_FUZZ_SECONDS=3600` continues with new seeds for an hour in each test; a
//! failure prints the `LTM_FUZZ_SEED` that reproduces it.

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use super::source::{Event, find, read};
use super::tokenizer::named;
use super::*;
use crate::{Error, Result};

/// Runs `check` on values of `strategy`, once, or for `LTM_FUZZ_SECONDS`.
fn fuzz<S: Strategy>(
    strategy: S,
    check: impl Fn(S::Value) -> std::result::Result<(), TestCaseError>,
) {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let (seconds, seed) = (number("LTM_FUZZ_SECONDS"), number("LTM_FUZZ_SEED"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
    let first = seed.unwrap_or(if seconds.is_some() { now } else { 1 });
    let started = Instant::now();
    for round in 0.. {
        let seed = first.wrapping_add(round);
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let result = TestRunner::new_with_rng(config, rng).run(&strategy, &check);
        if let Err(failure) = result {
            panic!("repeat with LTM_FUZZ_SEED={seed}\n{failure}");
        }
        if started.elapsed() >= Duration::from_secs(seconds.unwrap_or(0)) {
            break;
        }
    }
}

/// Files of any of these pieces in any order.
fn pieces(from: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    let long = (0..4_u8).prop_map(|extra| vec![b'a'; (64 << 10) - 2 + usize::from(extra)]);
    let piece = prop_oneof![
        40 => select(from).prop_map(<[u8]>::to_vec),
        2 => any::<[u8; 3]>().prop_map(|bytes| bytes.to_vec()),
        1 => long,
    ];
    let bom = prop_oneof![4 => Just(&b""[..]), 1 => Just(&b"\xef\xbb\xbf"[..])];
    (bom, vec(piece, 1..40)).prop_map(|(bom, pieces)| [bom.to_vec(), pieces.concat()].concat())
}

/// All documents of a file, blank ones too, and the errors of what is skipped.
fn all(
    dir: &tempfile::TempDir,
    name: &str,
    content: &[u8],
    malformed: Malformed,
) -> Result<(Vec<String>, Vec<String>)> {
    let path = dir.path().join(name);
    fs::write(&path, content).expect("writable");
    let key = name.ends_with("parquet").then(|| "body".to_owned());
    let options = ReadOptions { malformed, key, ..ReadOptions::default() };
    let (mut documents, mut skipped) = (vec![String::new()], Vec::new());
    let mut on_event = |event: Event<'_>| {
        match event {
            Event::Text(text, at) => {
                assert!(at <= content.len() as u64, "byte {at} of {}", content.len());
                documents.last_mut().expect("never empty").push_str(text);
            }
            Event::EndOfDocument => documents.push(String::new()),
            Event::TextColumns(_) => {}
        }
        Ok(ControlFlow::Continue(()))
    };
    let sources = find(&[path], options.format, &mut |_| ())?;
    read(&sources[0], &options, &mut on_event, &mut |error| skipped.push(error.to_string()))?;
    assert_eq!(documents.pop().expect("never empty"), "", "the last document ends");
    Ok((documents, skipped))
}

/// Whether a file is refused before its format counts: it is empty, binary or starts like another kind of file.
fn other_kind(dir: &tempfile::TempDir, content: &[u8]) -> bool {
    let path: PathBuf = dir.path().join("kind.txt");
    fs::write(&path, content).expect("writable");
    let Ok(sources) = find(&[path], None, &mut |_| ()) else { return true };
    content.is_empty() || sources[0].format == Format::Parquet
}

fn named_in(error: &Error, name: &str) -> std::result::Result<(), TestCaseError> {
    prop_assert!(error.to_string().contains(name), "{error}");
    Ok(())
}

/// The lines of a file with their ends, without a byte order mark.
fn lines(content: &[u8]) -> Vec<&[u8]> {
    ltm_files::without_bom(content).split_inclusive(|byte| *byte == b'\n').collect()
}

#[test]
fn text_has_the_documents_of_a_plain_reader() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let strategy = pieces(&[
        b"<|endoftext|>",
        b"\n",
        b"\r\n",
        b"\r",
        b"a",
        b"\xc3\xa9",
        b"\xe6\x9d\xb1",
        b"\xff",
        b"\xe6\x9d",
        b" ",
        b"<|endoftext|>\n",
        b"\n<|endoftext|>\r\n",
    ]);
    fuzz(strategy, |content| {
        if other_kind(&dir, &content) {
            return Ok(());
        }
        let good = |line: &&[u8]| std::str::from_utf8(line).is_ok();
        let mut expected = vec![String::new()];
        let mut end = ""; // of the last line
        for line in lines(&content).into_iter().filter(good) {
            let line = std::str::from_utf8(line).expect("good");
            if line.trim_end_matches(['\r', '\n']) == "<|endoftext|>" {
                expected.push(String::new());
                end = "";
                continue;
            }
            let body = line.strip_suffix('\n').unwrap_or(line);
            let body = body.strip_suffix('\r').filter(|_| line.ends_with('\n')).unwrap_or(body);
            *expected.last_mut().expect("one") += &format!("{end}{body}");
            end = &line[body.len()..];
        }
        *expected.last_mut().expect("one") += end;
        let bad = lines(&content).iter().filter(|line| !good(line)).count();
        let (found, skipped) = all(&dir, "a.txt", &content, Malformed::Skip).expect("skipped");
        prop_assert_eq!((found, skipped.len()), (expected.clone(), bad));
        match all(&dir, "a.txt", &content, Malformed::Refuse) {
            Ok((found, _)) => prop_assert_eq!((found, 0), (expected, bad)),
            Err(error) => {
                prop_assert!(bad > 0, "{}", error);
                let at = std::str::from_utf8(&content).expect_err("bad").valid_up_to();
                named_in(&error, &format!("a.txt: byte {at}:"))?;
            }
        }
        Ok(())
    });
}

#[test]
fn json_lines_are_those_that_a_json_library_takes() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let strategy = pieces(&[
        b"{\"text\": \"a\"}",
        b"{\"text\": \"\\n\\u00e9\", \"n\": [1, {}]}\n",
        b"\n",
        b"\r\n",
        b"{",
        b"}",
        b"\"",
        b"\"text\":",
        b"{\"text\": 1}\n",
        b"\\",
        b"[]",
        b"\xff",
        b" ",
        b"{\"id\": 0}\n",
    ]);
    fuzz(strategy, |content| {
        if other_kind(&dir, &content) {
            return Ok(());
        }
        let text = |line: &[u8]| {
            if line.trim_ascii().is_empty() {
                return Some(String::new());
            }
            let value: serde_json::Value = serde_json::from_slice(line).ok()?;
            Some(value.as_object()?.get("text")?.as_str()?.to_owned())
        };
        let texts: Vec<Option<String>> = lines(&content).into_iter().map(text).collect();
        let bad = texts.iter().position(Option::is_none);
        let (found, skipped) = all(&dir, "a.jsonl", &content, Malformed::Skip).expect("skipped");
        prop_assert_eq!(skipped.len(), texts.iter().filter(|text| text.is_none()).count());
        prop_assert_eq!(found, texts.into_iter().flatten().collect::<Vec<_>>());
        match (all(&dir, "a.jsonl", &content, Malformed::Refuse), bad) {
            (Err(error), Some(bad)) => named_in(&error, &format!("a.jsonl: line {}:", bad + 1))?,
            (result, bad) => {
                prop_assert!(result.is_ok() && bad.is_none(), "{:?} {:?}", result, bad)
            }
        }
        Ok(())
    });
}

#[test]
fn json_arrays_are_read_as_written_and_damaged_ones_do_not_panic() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let damage = proptest::option::of((any::<proptest::sample::Index>(), any::<u8>()));
    fuzz((vec(any::<String>(), 0..8), any::<bool>(), damage), |(texts, pretty, damage)| {
        let values: Vec<_> =
            texts.iter().map(|text| serde_json::json!({ "n": [1, {}], "text": text })).collect();
        let json =
            if pretty { serde_json::to_vec_pretty(&values) } else { serde_json::to_vec(&values) };
        let mut json = json.expect("plain data");
        let damaged = damage.is_some();
        if let Some((at, byte)) = damage {
            let at = at.index(json.len());
            json[at] = byte;
        }
        for malformed in [Malformed::Refuse, Malformed::Skip] {
            match all(&dir, "a.json", &json, malformed) {
                Ok((found, _)) => prop_assert!(damaged || found == texts, "{:?}", found),
                Err(error) => {
                    prop_assert!(damaged, "{}", error);
                    named_in(&error, "a.json")?;
                }
            }
        }
        Ok(())
    });
}

#[test]
fn tables_are_read_as_another_library_reads_them_or_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let strategy = pieces(&[
        b"\"",
        b"\"\"",
        b",",
        b"\t",
        b"\n",
        b"\r\n",
        b"\r",
        b"a",
        b"text",
        b"\\\"",
        b"\"b\"",
        b" ",
        b"\xc3\xa9",
        b"\"x,\ny\"",
        b"\xff",
    ]);
    fuzz((strategy, any::<bool>()), |(content, tabs)| {
        let (name, delimiter) = if tabs { ("a.tsv", b'\t') } else { ("a.csv", b',') };
        let content = [&b"text"[..], &[delimiter], b"n\n", &content].concat();
        if other_kind(&dir, &content) {
            return Ok(());
        }
        // In any case: no panic, and nothing is skipped without being reported.
        let _ = all(&dir, name, &content, Malformed::Skip).expect("the header is good");
        let found = match all(&dir, name, &content, Malformed::Refuse) {
            Ok((found, skipped)) => {
                prop_assert!(skipped.is_empty());
                found
            }
            Err(error) => return named_in(&error, &format!("{name}: line ")),
        };
        let mut reader = csv::ReaderBuilder::new();
        reader.delimiter(delimiter).flexible(true);
        let expected = reader
            .from_reader(&content[..])
            .records()
            .map(|record| record.map(|record| record[0].to_owned()))
            .collect::<std::result::Result<Vec<_>, _>>();
        prop_assert_eq!(found, expected.expect("more lenient than this crate"));
        Ok(())
    });
}

#[test]
fn written_tables_are_read_back() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let row = (any::<String>(), "[a-z\",\t\r\n\\\\ ]{0,9}");
    fuzz((vec(row, 0..8), any::<bool>(), any::<bool>()), |(rows, tabs, crlf)| {
        let (name, delimiter) = if tabs { ("a.tsv", b'\t') } else { ("a.csv", b',') };
        let terminator = if crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
        let mut writer = csv::WriterBuilder::new()
            .delimiter(delimiter)
            .terminator(terminator)
            .from_writer(Vec::new());
        writer.write_record(["n", "text"]).expect("in memory");
        for (n, text) in &rows {
            writer.write_record([n, text]).expect("in memory");
        }
        let content = writer.into_inner().expect("in memory");
        let (found, _) = all(&dir, name, &content, Malformed::Refuse).expect("well written");
        prop_assert_eq!(found, rows.into_iter().map(|(_, text)| text).collect::<Vec<_>>());
        Ok(())
    });
}

#[test]
fn shards_hold_what_their_bytes_and_sidecar_agree_on() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let magic = select(vec![20240520, 20240801, 0]);
    let header = proptest::option::of((magic, 0..9_i32, -2..40_i32, any::<bool>()));
    let sidecar = proptest::option::of((0..40_u64, any::<bool>()));
    fuzz((header, vec(any::<u8>(), 0..64), sidecar), |(header, payload, sidecar)| {
        let mut content = Vec::new();
        if let Some((magic, version, count, cut)) = header {
            let mut fields = [0_i32; 256];
            fields[..3].copy_from_slice(&[magic, version, count]);
            content.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
            content.truncate(if cut { 20 } else { content.len() });
        }
        content.extend(&payload);
        fs::write(dir.path().join("train-000.bin"), &content).expect("writable");
        let path = dir.path().join(meta::META_FILE);
        let meta = sidecar.map_or(r#"{"tokenizer": {"name": "bytes"}}"#.into(), |(tokens, good)| {
            let key = if good { "tokens" } else { "token" };
            format!(
                r#"{{"tokenizer": {{"name": "bytes"}}, "train": {{"documents": 1, "tokens": {tokens},
                "bytes": 1, "shards": [{{"file": "train-000.bin", "{key}": {tokens}}}]}}}}"#
            )
        });
        fs::write(path, meta).expect("writable");
        let corpus = match Corpus::open(dir.path(), Split::Train, None) {
            Ok(corpus) => corpus,
            Err(error) => return named_in(&error, &dir.path().display().to_string()),
        };
        prop_assert!(sidecar.is_none_or(|(tokens, good)| good && tokens == corpus.len()));
        // A version of 7 is one of 32-bit ids.
        let width = if matches!(header, Some((20240801, 7, _, _))) { 4 } else { 2 };
        let header_bytes = content.len() - width * corpus.len() as usize;
        prop_assert!(header_bytes == 0 || header_bytes == 1024);
        let expected: Vec<u32> = content[header_bytes..]
            .chunks_exact(width)
            .map(|id| id.iter().rev().fold(0, |id, byte| (id << 8) | u32::from(*byte)))
            .collect();
        match corpus.tokens(0..corpus.len()) {
            Ok(found) => prop_assert_eq!(found, expected),
            Err(error) => {
                prop_assert!(expected.iter().any(|id| *id > 256), "{}", error);
                named_in(&error, "train-000.bin")?;
            }
        }
        Ok(())
    });
}

#[test]
fn tokenizers_give_back_the_text() {
    let words = storyworld::vocabulary();
    let run = (select(vec![" ", "\n", "\t ", "\r\n", "\u{2003}"]), 1..3000_usize)
        .prop_map(|(space, count)| space.repeat(count));
    let text = prop_oneof![4 => any::<String>(), 1 => run, 2 => "[a-z']{0,8} ?"];
    fuzz((vec(text, 0..6), vec(select(words), 0..20)), |(texts, words)| {
        let bytes = |tokenizer: &SharedTokenizer, ids: &[u32]| -> usize {
            let before = [tokenizer.separator()].into_iter().chain(ids.iter().copied());
            before.zip(ids).map(|(before, id)| tokenizer.text_bytes(before, *id)).sum()
        };
        let text = texts.concat();
        for tokenizer in ["bytes", "gpt2"].map(|name| named(name).expect("in this build")) {
            let ids = tokenizer.encode(&text).expect("any text");
            prop_assert!(!ids.contains(&tokenizer.separator()));
            prop_assert_eq!(bytes(&tokenizer, &ids), text.len());
            prop_assert_eq!(tokenizer.decode(&ids), text.as_str());
        }
        let tokenizer = storyworld::tokenizer();
        let ids = tokenizer.encode(&words.join(" ")).expect("its own words");
        let text = tokenizer.decode(&ids);
        prop_assert_eq!(tokenizer.encode(&text).expect("its own words"), ids.as_slice());
        prop_assert_eq!(bytes(&tokenizer, &ids), text.len());
        // Any other text is an error or ids of the vocabulary.
        if let Ok(ids) = tokenizer.encode(&texts.concat()) {
            prop_assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
        }
        Ok(())
    });
}

#[cfg(feature = "parquet")]
#[test]
fn damaged_parquet_files_are_errors_that_name_the_file() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let good = super::source::parquet_file(
        &[Some("one"), Some("two"), None, Some("three")],
        parquet::basic::Compression::SNAPPY,
    );
    let damage = (any::<proptest::sample::Index>(), any::<u8>());
    fuzz((vec(damage, 0..4), any::<bool>()), |(damage, cut)| {
        let mut content = good.clone();
        for (at, byte) in &damage {
            let at = at.index(content.len());
            content[at] = *byte;
        }
        if let (true, Some((at, _))) = (cut, damage.first()) {
            content.truncate(at.index(content.len()));
        }
        for malformed in [Malformed::Refuse, Malformed::Skip] {
            if let Err(error) = all(&dir, "a.parquet", &content, malformed) {
                named_in(&error, "a.parquet")?;
            }
        }
        Ok(())
    });
}

#[cfg(feature = "tokenizer-json")]
#[test]
fn damaged_tokenizer_files_are_errors_that_name_the_file_or_tokenizers() {
    use std::path::Path;

    let good = super::tokenizer::json_tests::byte_level(
        &[("t", "h"), ("th", "e"), ("Ġ", "the")],
        &["<|endoftext|>", "<|im_end|>"],
    );
    let damage = (any::<proptest::sample::Index>(), select(b"[]{},:\"0179aeln \\\xff".to_vec()));
    fuzz((vec(damage, 0..4), any::<bool>(), any::<String>()), |(damage, cut, text)| {
        let mut content = good.clone();
        for (at, byte) in &damage {
            let at = at.index(content.len());
            content[at] = *byte;
        }
        if let (true, Some((at, _))) = (cut, damage.first()) {
            content.truncate(at.index(content.len()));
        }
        let path = Path::new("a/tokenizer.json");
        match TokenizerJson::from_bytes(content, path, None) {
            Ok(tokenizer) => {
                let ids = tokenizer.encode(&text).unwrap_or_default();
                prop_assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
                prop_assert!(!ids.contains(&tokenizer.separator()));
                let decoded = tokenizer.decode(&ids);
                prop_assert!(!damage.is_empty() || decoded == text, "{decoded}");
            }
            Err(error) => {
                prop_assert!(!damage.is_empty(), "{error}");
                named_in(&error, "a/tokenizer.json")?;
            }
        }
        Ok(())
    });
}
