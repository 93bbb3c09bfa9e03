//! The answer to a completion, whole or in chunks, of the events that the engine sends. Computes nothing.

use serde_json::{Map, Value, json};

use super::request::Checked;
use crate::continuation::Finish;
use crate::engine::{Entry, Event, Token};
use crate::error::ApiError;
use crate::models::Model;
use crate::shared::Shared;

/// An answer in the making.
pub(crate) struct Answer {
    shared: Shared,
    checked: Checked,
    id: String,
    created: u64,
    choices: Vec<Choice>,
    /// By prompt: whether its scores are still to come.
    unscored: Vec<bool>,
    /// Tokens written.
    written: usize,
}

/// One text.
#[derive(Default)]
struct Choice {
    text: String,
    logprobs: Logprobs,
    finish: Option<Finish>,
}

/// The probabilities of a text's tokens, in the API's form.
#[derive(Clone, Default)]
struct Logprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f64>>,
    top_logprobs: Vec<Option<Map<String, Value>>>,
    text_offset: Vec<usize>,
    /// Characters before the next token.
    offset: usize,
}

impl Logprobs {
    /// Adds a token; the first of a prompt has no probability.
    fn push(&mut self, model: &Model, token: u32, entry: Option<&Entry>) {
        let name = |token: u32| model.tokenizer.decode(&[token]);
        let text = name(token);
        let mut top = Map::new();
        for (token, log_prob) in entry.iter().flat_map(|entry| &entry.top) {
            // Tokens that are no text of their own share a name; the most likely has it.
            top.entry(name(*token as u32)).or_insert_with(|| json!(log_prob));
        }
        self.text_offset.push(self.offset);
        self.offset += text.chars().count();
        self.tokens.push(text);
        self.token_logprobs.push(entry.map(|entry| entry.log_prob));
        self.top_logprobs.push(entry.map(|_| top));
    }

    fn value(&self) -> Value {
        json!({
            "tokens": self.tokens, "token_logprobs": self.token_logprobs,
            "top_logprobs": self.top_logprobs, "text_offset": self.text_offset,
        })
    }

    /// What was added, to be sent; the next tokens follow it.
    fn take(&mut self) -> Value {
        let value = self.value();
        *self = Self { offset: self.offset, ..Self::default() };
        value
    }
}

impl Answer {
    pub(crate) fn new(shared: Shared, checked: Checked, id: String, created: u64) -> Self {
        let scores = checked.echo && checked.logprobs.is_some();
        let n = checked.prompts.len() * checked.n;
        let choices = (0..n).map(|_| Choice::default()).collect();
        let unscored = vec![scores; checked.prompts.len()];
        let mut answer = Self { shared, checked, id, created, choices, unscored, written: 0 };
        if answer.checked.echo {
            for choice in 0..n {
                answer.choices[choice].text = answer.prompt_text(choice);
            }
        }
        answer
    }

    fn model(&self) -> &Model {
        &self.shared.models[self.checked.named.model]
    }

    fn prompt_text(&self, choice: usize) -> String {
        self.model().tokenizer.decode(&self.checked.prompts[choice / self.checked.n].ids)
    }

    /// Takes an event over.
    pub(crate) fn take(&mut self, event: Event) -> Result<(), ApiError> {
        match event {
            Event::Failed(error) => return Err(error),
            Event::Scored { number, entries } => self.score(number, &entries),
            Event::Token { choice, token } => self.write(choice, *token),
            Event::Thinking { .. } | Event::Step(..) | Event::Fitted(_) => {}
        }
        Ok(())
    }

    /// The probabilities of a prompt's tokens, before those of each of its texts.
    fn score(&mut self, number: usize, entries: &[Entry]) {
        let n = self.checked.n;
        let ids = self.checked.prompts[number].ids.clone();
        let mut logprobs = Logprobs::default();
        // The first has no probability in the API's form, though the model predicts it where a document begins before it.
        let predicted = &entries[entries.len() - ids.len().saturating_sub(1)..];
        for (id, entry) in ids.iter().zip([None].into_iter().chain(predicted.iter().map(Some))) {
            logprobs.push(self.model(), *id, entry);
        }
        for choice in number * n..(number + 1) * n {
            self.choices[choice].logprobs = logprobs.clone();
        }
        self.unscored[number] = false;
    }

    fn write(&mut self, choice: usize, token: Token) {
        self.written += 1;
        let mut logprobs = std::mem::take(&mut self.choices[choice].logprobs);
        if let Some(entry) = &token.entry {
            logprobs.push(self.model(), entry.token as u32, Some(entry));
        }
        let choice = &mut self.choices[choice];
        choice.logprobs = logprobs;
        choice.text.push_str(&token.text);
        choice.finish = token.finish;
    }

    /// The whole answer.
    pub(crate) fn whole(&self) -> Result<Value, ApiError> {
        self.check_complete()?;
        let choices: Vec<Value> = (0..self.choices.len())
            .map(|index| {
                let choice = &self.choices[index];
                let finish = choice.finish.unwrap_or(Finish::Length);
                let logprobs = self.checked.logprobs.map(|_| choice.logprobs.value());
                self.choice(index, &choice.text, logprobs, Some(finish))
            })
            .collect();
        let mut answer = self.envelope(choices);
        answer["usage"] = self.usage();
        Ok(answer)
    }

    /// An engine that ended before the texts did has failed.
    fn check_complete(&self) -> Result<(), ApiError> {
        let writes = self.checked.limits.max_tokens > 0;
        let ended = self.choices.iter().all(|choice| !writes || choice.finish.is_some());
        match ended && !self.unscored.contains(&true) {
            true => Ok(()),
            false => Err(ApiError::internal()),
        }
    }

    /// The chunks before the first token: an echoed prompt whose scores are not asked for.
    pub(crate) fn begin(&mut self) -> Vec<Value> {
        if !self.checked.echo || self.checked.logprobs.is_some() {
            return Vec::new();
        }
        (0..self.choices.len()).map(|choice| self.flush(choice)).collect()
    }

    /// The chunks that an event adds.
    pub(crate) fn chunk(&mut self, event: Event) -> Result<Vec<Value>, ApiError> {
        let n = self.checked.n;
        let changed = match &event {
            Event::Scored { number, .. } => number * n..(number + 1) * n,
            Event::Token { choice, .. } => *choice..choice + 1,
            _ => 0..0,
        };
        self.take(event)?;
        Ok(changed.map(|choice| self.flush(choice)).collect())
    }

    /// The chunks after the last event.
    pub(crate) fn end(&mut self, with_usage: bool) -> Result<Vec<Value>, ApiError> {
        self.check_complete()?;
        let mut chunks = Vec::new();
        if self.checked.limits.max_tokens == 0 {
            for choice in 0..self.choices.len() {
                self.choices[choice].finish = Some(Finish::Length);
                chunks.push(self.flush(choice));
            }
        }
        if with_usage {
            let mut usage = self.envelope(Vec::new());
            usage["usage"] = self.usage();
            chunks.push(usage);
        }
        Ok(chunks)
    }

    /// What a text has that was not sent.
    fn flush(&mut self, index: usize) -> Value {
        let has_logprobs = self.checked.logprobs.is_some();
        let choice = &mut self.choices[index];
        let text = std::mem::take(&mut choice.text);
        let logprobs = has_logprobs.then(|| choice.logprobs.take());
        let finish = choice.finish;
        self.envelope(vec![self.choice(index, &text, logprobs, finish)])
    }

    fn choice(
        &self,
        index: usize,
        text: &str,
        logprobs: Option<Value>,
        finish: Option<Finish>,
    ) -> Value {
        json!({
            "index": index, "text": text, "logprobs": logprobs,
            "finish_reason": finish.map(Finish::name),
        })
    }

    fn envelope(&self, choices: Vec<Value>) -> Value {
        let protocol = self.model().protocol(self.checked.named.stride);
        let mut answer = json!({
            "id": self.id, "object": "text_completion", "created": self.created,
            "model": self.checked.model, "choices": choices,
        });
        if self.checked.echo && self.checked.logprobs.is_some() {
            answer["scoring"] = protocol.to_string().into();
        }
        answer
    }

    fn usage(&self) -> Value {
        let prompt: usize = self.checked.prompts.iter().map(|prompt| prompt.ids.len()).sum();
        json!({
            "prompt_tokens": prompt, "completion_tokens": self.written,
            "total_tokens": prompt + self.written,
        })
    }
}
