//! Reduces lists of tools to the callable ones.

use std::ops::Range;

use serde_json::value::RawValue;

use super::super::json::{self, Object};
use super::events;

/// Returns a server's response to `tools/list` with only the allowed tools; every byte outside the
/// list is unchanged. `body` is JSON (one response or a batch), or whole events of a stream
/// ([`whole_events`](super::whole_events)). `None` if no change is needed.
///
/// The reduced list only helps the agent: the gate judges each call when it is made.
pub fn allowed_tools(body: &[u8], allow: &dyn Fn(&str) -> bool) -> Option<Vec<u8>> {
    if body.trim_ascii_start().starts_with(b"{") || body.trim_ascii_start().starts_with(b"[") {
        return answer(body, allow);
    }
    let mut changed = false;
    let mut written = Vec::with_capacity(body.len());
    for event in events::events(body) {
        let data = events::data(event).and_then(|data| answer(&data, allow));
        match data {
            Some(data) => {
                changed = true;
                events::with_data(event, &data, &mut written);
            }
            None => written.extend_from_slice(event),
        }
    }
    changed.then_some(written)
}

/// Rewrites one response, or a batch of responses.
fn answer(body: &[u8], allow: &dyn Fn(&str) -> bool) -> Option<Vec<u8>> {
    let text = str::from_utf8(body).ok()?;
    let mut cuts = Vec::new();
    match json::elements(text) {
        Some(elements) => {
            for element in elements {
                cut(text, element.get(), allow, &mut cuts);
            }
        }
        None => cut(text, text, allow, &mut cuts),
    }
    if cuts.is_empty() {
        return None;
    }
    let mut written = String::with_capacity(text.len());
    let mut at = 0;
    for (range, list) in cuts {
        written.push_str(text.get(at..range.start)?);
        written.push_str(&list);
        at = range.end;
    }
    written.push_str(text.get(at..)?);
    Some(written.into_bytes())
}

/// Finds the lists of one response that have to be rewritten, with their new text.
fn cut(
    text: &str,
    answer: &str,
    allow: &dyn Fn(&str) -> bool,
    cuts: &mut Vec<(Range<usize>, String)>,
) {
    let Some(answer) = Object::parse(answer) else {
        return;
    };
    let results = answer.members().filter(|(key, _)| *key == "result");
    let results = results.filter_map(|(_, result)| Object::parse(result.get()));
    for result in results {
        for (_, tools) in result.members().filter(|(key, _)| *key == "tools") {
            if let (Some(range), Some(list)) = (place(text, tools), kept(tools, allow)) {
                cuts.push((range, list));
            }
        }
    }
}

/// Returns a list with only the allowed tools; `None` if all are allowed. A tool with an ambiguous
/// name is not allowed.
fn kept(tools: &RawValue, allow: &dyn Fn(&str) -> bool) -> Option<String> {
    let tools = json::elements(tools.get())?;
    let allowed = |tool: &&&RawValue| {
        let name = Object::unambiguous(tool.get()).and_then(|tool| tool.text("name"));
        name.is_some_and(|name| allow(&name))
    };
    let kept: Vec<&str> = tools
        .iter()
        .filter(allowed)
        .map(|tool| tool.get())
        .collect();
    (kept.len() < tools.len()).then(|| format!("[{}]", kept.join(",")))
}

/// Returns the position in `text` of a value that was borrowed from it.
fn place(text: &str, value: &RawValue) -> Option<Range<usize>> {
    let start = value
        .get()
        .as_ptr()
        .addr()
        .checked_sub(text.as_ptr().addr())?;
    let end = start.checked_add(value.get().len())?;
    (text.get(start..end)? == value.get()).then_some(start..end)
}
