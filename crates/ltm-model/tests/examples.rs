//! The examples run to their end.
#![expect(dead_code, reason = "the examples' own `main`")]

#[path = "../examples/decode.rs"]
mod decode;
#[path = "../examples/logit_lens.rs"]
mod logit_lens;
#[path = "../examples/own_weights.rs"]
mod own_weights;

use ltm_model::param_table;

#[test]
fn two_prompts_are_continued() {
    let texts = decode::decode(None).unwrap();
    assert_eq!(texts.map(|text| text.len()), [3 + 8, 5 + 8]);
}

#[test]
fn the_lens_shows_each_layer() {
    let (config, weights) = logit_lens::random().unwrap();
    let lens = logit_lens::lens(config, &weights, "a text").unwrap();
    assert_eq!(lens.len(), 3);
    // The output matrix is the embedding, and the norm of a byte's row is most like that row.
    assert_eq!(lens[0], b"a text");
    assert!(lens.iter().all(|bytes| bytes.len() == 6));
}

#[test]
fn foreign_weights_are_read_under_our_names() {
    let (config, weights) = own_weights::import().unwrap();
    weights.check(&config).unwrap();
    for (spec, values) in param_table(&config).iter().zip(&weights.params) {
        let rows = values.chunks(spec.len() / spec.shape[0]);
        for (row, values) in rows.enumerate() {
            // In heads of 8 rows, ours 0, 1, 2, … are theirs 0, 4, 1, ….
            let head = row / 8 * 8;
            let expected =
                match spec.name.ends_with(".wq.weight") || spec.name.ends_with(".wk.weight") {
                    true => head + row % 8 / 2 + row % 2 * 4,
                    false => row,
                };
            assert!(values.iter().all(|x| *x == expected as f32), "row {row} of `{}`", spec.name);
        }
    }
}
