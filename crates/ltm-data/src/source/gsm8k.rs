//! GSM8K (Cobbe et al. 2021): word problems as JSON objects, each a document of question and worked answer.

use std::borrow::Cow;

/// The beginning of a document: a question, up to where its answer is to be written.
pub fn gsm8k_question(question: &str) -> String {
    format!("Question: {}\nAnswer:", question.trim())
}

/// A document: a question and its answer, without the annotations `<<…>>` of a calculator.
///
/// ```
/// use ltm_data::gsm8k_document;
///
/// let text = gsm8k_document("How many in 2 dozen?", "2*12=<<2*12=24>>24\n#### 24");
/// assert_eq!(text, "Question: How many in 2 dozen?\nAnswer: 2*12=24\n#### 24");
/// ```
pub fn gsm8k_document(question: &str, answer: &str) -> String {
    format!("{} {}", gsm8k_question(question), without_annotations(answer.trim()))
}

fn without_annotations(answer: &str) -> Cow<'_, str> {
    let mut parts = answer.split("<<");
    let before = parts.next().unwrap_or("");
    let after = |part| -> Option<&str> { Some(str::split_once(part, ">>")?.1) };
    let mut text = Cow::Borrowed(before);
    for part in parts {
        let text = text.to_mut();
        match after(part) {
            Some(rest) => text.push_str(rest),
            // Not closed: text like any other.
            None => text.extend(["<<", part]),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::read_all;
    use super::super::{Format, Malformed, ReadOptions};
    use super::*;

    #[test]
    fn annotations_are_removed_and_other_brackets_kept() {
        for (answer, expected) in [
            ("plain", "plain"),
            ("6/2=<<6/2=3>>3 and <<3+1=4>>4", "6/2=3 and 4"),
            ("a<<b", "a<<b"),
            ("<<x>>", ""),
            ("1 > 0 >> 2", "1 > 0 >> 2"),
        ] {
            assert_eq!(without_annotations(answer), expected);
        }
    }

    #[test]
    fn each_problem_is_a_document() {
        let content = br##"{"question": " How many? ", "answer": "1+1=<<1+1=2>>2\n#### 2"}
{"question": "No answer"}
"##;
        let format = Some(Format::Gsm8k);
        let read = |malformed| {
            let options = ReadOptions { format, malformed, ..ReadOptions::default() };
            read_all("a.jsonl", content, options)
        };
        let document = "Question: How many?\nAnswer: 1+1=2\n#### 2".to_owned();
        assert_eq!(read(Malformed::Skip).expect("skipped"), (vec![document], 1));
        let error = read(Malformed::Refuse).expect_err("no answer").to_string();
        assert!(error.contains("line 2") && error.contains("`answer`"), "{error}");
    }
}
