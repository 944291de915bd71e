//! The response to a refused message: an error that the agent can read.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::json::{self, Object};
use super::MAX_MESSAGES;

/// Maximum length of an id that the response repeats, in bytes; a longer id is left out.
const MAX_ID_SIZE: usize = 256;

/// Returns the JSON-RPC error (section 5.1 of its specification) that refuses a request, with the
/// request's id; for a batch an array of errors. `None` if no response is expected: for a
/// notification or a response. An unreadable request gets an error without id.
pub fn refusal(request: &[u8], code: i64, message: &str, data: Option<&Value>) -> Option<Vec<u8>> {
    let error = Error {
        code,
        message,
        data,
    };
    let text = str::from_utf8(request).unwrap_or_default();
    let elements = json::elements(text).filter(|elements| !elements.is_empty());
    let Some(elements) = elements else {
        let answer = Answer::to(text, &error)?;
        return serde_json::to_vec(&answer).ok();
    };
    let answers: Vec<_> = elements
        .into_iter()
        .take(MAX_MESSAGES)
        .filter_map(|element| Answer::to(element.get(), &error))
        .collect();
    if answers.is_empty() {
        return None;
    }
    serde_json::to_vec(&answers).ok()
}

#[derive(Serialize)]
struct Error<'a> {
    code: i64,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Value>,
}

#[derive(Serialize)]
struct Answer<'a> {
    jsonrpc: &'static str,
    id: Option<&'a RawValue>,
    error: &'a Error<'a>,
}

impl<'a> Answer<'a> {
    /// Returns the response to one message, if the message expects one.
    fn to(text: &'a str, error: &'a Error<'a>) -> Option<Self> {
        let object = Object::parse(text);
        let id = match &object {
            None => None,
            Some(object) if object.get("method").is_none() && object.get("id").is_some() => {
                return None;
            }
            Some(object) => Some(object.get("id")?),
        };
        let plain = |id: &&RawValue| {
            !id.get().starts_with(['{', '[', 't', 'f']) && id.get().len() <= MAX_ID_SIZE
        };
        Some(Self {
            jsonrpc: "2.0",
            id: id.filter(plain),
            error,
        })
    }
}
