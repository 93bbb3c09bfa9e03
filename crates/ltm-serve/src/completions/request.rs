//! What a completion may ask for, and its check. Every refusal names the field.

use ltm_eval::ltm_model::SampleConfig;
use serde::Deserialize;
use serde_json::Value;

use crate::continuation::Limits;
use crate::error::ApiError;
use crate::models::{self, Model, Named};
use crate::tokens::{check_ids, encode};

/// Tokens to write where the request does not specify them, as the API defines it.
const MAX_TOKENS: usize = 16;
/// The most tokens, texts, most likely tokens and stop strings of a request.
const MOST_TOKENS: u64 = 1 << 16;
const MOST_TEXTS: usize = 128;
const MOST_TOP: u64 = 20;
const MOST_STOPS: usize = 16;

/// The body of a request. Unknown fields are refused by name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    model: String,
    prompt: Prompt,
    max_tokens: Option<u64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    n: Option<u64>,
    seed: Option<i64>,
    stop: Option<Stop>,
    logprobs: Option<u64>,
    #[serde(default)]
    echo: Option<bool>,
    #[serde(default)]
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    /// Ignored: whom the answer is for.
    #[serde(rename = "user")]
    _user: Option<String>,
    // What this server does not have: refused unless it asks for nothing.
    suffix: Option<Value>,
    best_of: Option<Value>,
    presence_penalty: Option<Value>,
    frequency_penalty: Option<Value>,
    logit_bias: Option<Value>,
}

/// One or more prompts.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "`prompt`: expected a string, a list of strings, a list of token ids, or a list of these"
)]
enum Prompt {
    Text(String),
    Ids(Vec<u32>),
    Texts(Vec<String>),
    ListsOfIds(Vec<Vec<u32>>),
}

/// One or more stop strings.
#[derive(Deserialize)]
#[serde(untagged, expecting = "`stop`: expected a string or a list of strings")]
enum Stop {
    One(String),
    Many(Vec<String>),
}

/// Options of a stream.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// A request that can be done.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) named: Named,
    /// The model's name as the request has it.
    pub(crate) model: String,
    pub(crate) prompts: Vec<CheckedPrompt>,
    pub(crate) sample: SampleConfig,
    /// Texts per prompt.
    pub(crate) n: usize,
    pub(crate) seed: Option<u64>,
    pub(crate) limits: Limits,
    /// Most likely tokens to report; `None` for no probabilities.
    pub(crate) logprobs: Option<usize>,
    pub(crate) echo: bool,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
}

/// A prompt in tokens.
#[derive(Debug)]
pub(crate) struct CheckedPrompt {
    /// As it was given.
    pub(crate) ids: Vec<u32>,
    /// What the model reads: after the token that documents begin with.
    pub(crate) document: Vec<i32>,
}

impl Request {
    pub(crate) fn check(self, models: &[Model]) -> Result<Checked, ApiError> {
        self.check_supported()?;
        let named = models::find(models, &self.model)?;
        let model = &models[named.model];
        let max_tokens = within("max_tokens", self.max_tokens, MAX_TOKENS as u64, 0..=MOST_TOKENS)?;
        let n = within("n", self.n, 1, 1..=MOST_TEXTS as u64)? as usize;
        let temperature = self.temperature.unwrap_or(1.0);
        let top_p = self.top_p.unwrap_or(1.0);
        let sample = SampleConfig { temperature, top_k: 0, top_p };
        if !(0.0..=100.0).contains(&temperature) {
            return Err(ApiError::field("temperature", "0 to 100", temperature));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(ApiError::field("top_p", "more than 0 and at most 1", top_p));
        }
        let logprobs = match self.logprobs {
            Some(top) => Some(within("logprobs", Some(top), 0, 0..=MOST_TOP)? as usize),
            None => None,
        };
        let stream = self.stream.unwrap_or(false);
        if self.stream_options.is_some() && !stream {
            return Err(ApiError::field("stream_options", "none without `stream`", "some"));
        }
        let prompts = self.prompt.check(model)?;
        if prompts.len() * n > MOST_TEXTS {
            let expected = format!("at most {MOST_TEXTS} texts, prompts times `n`");
            return Err(ApiError::field("prompt", expected, prompts.len() * n));
        }
        Ok(Checked {
            named,
            model: self.model,
            prompts,
            sample,
            n,
            seed: self.seed.map(|seed| seed as u64),
            limits: Limits { max_tokens: max_tokens as usize, stop: stops(self.stop)? },
            logprobs,
            echo: self.echo.unwrap_or(false),
            stream,
            include_usage: self.stream_options.is_some_and(|options| options.include_usage),
        })
    }

    /// Refuses what this server does not have by its name, unless it is set to what changes nothing.
    fn check_supported(&self) -> Result<(), ApiError> {
        let zero = Value::from(0);
        for (name, value, nothing) in [
            ("suffix", &self.suffix, Value::from("")),
            ("best_of", &self.best_of, Value::from(1)),
            ("presence_penalty", &self.presence_penalty, zero.clone()),
            ("frequency_penalty", &self.frequency_penalty, zero),
            ("logit_bias", &self.logit_bias, Value::Object(Default::default())),
        ] {
            let is_nothing = |value: &Value| {
                *value == nothing
                    || (value.as_f64().is_some() && value.as_f64() == nothing.as_f64())
            };
            if value.as_ref().is_some_and(|value| !is_nothing(value)) {
                return Err(ApiError::unsupported(name));
            }
        }
        Ok(())
    }
}

impl Prompt {
    fn check(self, model: &Model) -> Result<Vec<CheckedPrompt>, ApiError> {
        let tokenizer = &model.tokenizer;
        let texts = |texts: &[String]| {
            texts.iter().map(|text| encode(&**tokenizer, text)).collect::<Result<Vec<_>, _>>()
        };
        let all = match self {
            Self::Text(text) => texts(&[text])?,
            Self::Texts(all) => texts(&all)?,
            // An empty list is one prompt without tokens.
            Self::Ids(ids) => vec![ids],
            Self::ListsOfIds(all) => all,
        };
        if all.is_empty() {
            return Err(ApiError::field("prompt", "at least one", "none"));
        }
        all.into_iter()
            .map(|ids| {
                check_ids("prompt", tokenizer, &ids)?;
                let document = model.document(&ids);
                let context = model.config.model.max_seq_len;
                match document.len() > context {
                    true => Err(ApiError::too_long(document.len(), context)),
                    false => Ok(CheckedPrompt { ids, document }),
                }
            })
            .collect()
    }
}

/// A number in its range, or its default.
fn within(
    field: &'static str,
    found: Option<u64>,
    default: u64,
    range: std::ops::RangeInclusive<u64>,
) -> Result<u64, ApiError> {
    let found = found.unwrap_or(default);
    match range.contains(&found) {
        true => Ok(found),
        false => {
            Err(ApiError::field(field, format!("{} to {}", range.start(), range.end()), found))
        }
    }
}

fn stops(stop: Option<Stop>) -> Result<Vec<String>, ApiError> {
    let stops = match stop {
        None => Vec::new(),
        Some(Stop::One(stop)) => vec![stop],
        Some(Stop::Many(stops)) => stops,
    };
    if stops.len() > MOST_STOPS {
        return Err(ApiError::field("stop", format!("at most {MOST_STOPS} strings"), stops.len()));
    }
    // Some clients send an empty string for none.
    Ok(stops.into_iter().filter(|stop| !stop.is_empty()).collect())
}
