//! A tokenizer of one's own, and a corpus in memory from an iterator: `cargo run -p ltm-data --example own_tokenizer`.

use std::sync::Arc;

use ltm_data::{BatchOptions, Batches, Corpus, Order, Result, Rows, Tokenizer};

/// Moves of a board game in coordinates such as `e2e4`: one id per square, then the separator.
#[derive(Debug)]
struct Squares;

impl Tokenizer for Squares {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let coordinates: Vec<u8> = text.bytes().filter(u8::is_ascii_alphanumeric).collect();
        let square = |pair: &[u8]| {
            let (column, row) = (pair[0].wrapping_sub(b'a'), pair[1].wrapping_sub(b'1'));
            let word = || String::from_utf8_lossy(pair).into_owned();
            let known = column < 8 && row < 8;
            known
                .then(|| u32::from(8 * column + row))
                .ok_or_else(|| ltm_data::Error::Word { word: word() })
        };
        coordinates.chunks_exact(2).map(square).collect()
    }

    fn decode(&self, tokens: &[u32]) -> String {
        let column = |id: u32| char::from(b'a' + (id / 8) as u8);
        let show = |&id: &u32| {
            if id < 64 { format!("{}{}", column(id), id % 8 + 1) } else { "\n".into() }
        };
        tokens.iter().map(show).collect()
    }

    fn vocab_size(&self) -> usize {
        65
    }

    fn separator(&self) -> u32 {
        64
    }

    fn fingerprint(&self) -> String {
        "squares, version 1".into()
    }
}

fn main() -> Result<()> {
    let games = ["e2e4 e7e5 g1f3 b8c6", "d2d4 d7d5 c2c4"];
    // Any iterator will do: lines of a socket, rows of a database, moves of a program that plays against itself.
    let corpus = Corpus::from_documents(Arc::new(Squares), games.iter().cycle().take(100))?;
    println!("{} tokens, fingerprint {:?}", corpus.len(), corpus.fingerprint()?.tokenizer);

    let options = BatchOptions {
        batch: 2,
        seq_len: 9,
        rows: Rows::Documents,
        order: Order::Shuffled { seed: 1 },
    };
    let batch = Batches::new(corpus, options)?.batch(0)?;
    for (row, targets) in batch.targets.chunks(9).enumerate() {
        let moves: Vec<u32> = targets.iter().filter_map(|&id| u32::try_from(id).ok()).collect();
        println!("row {row}: {}", Squares.decode(&moves).trim_end());
    }
    Ok(())
}

#[test]
fn runs() {
    main().expect("a good example");
    assert!(Squares.encode("e2e4 z9z9").expect_err("no square").to_string().contains("z9"));
}
