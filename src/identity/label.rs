//! The labels in a caller's username: `<user>.<session>.<channel>[.<traceparent>]`.
//!
//! Users may contain dots (`ana@acme.example`), so labels are split off from the right, and only if
//! each has exactly its own form; any other text is part of the user.

use std::sync::Arc;

use uuid::Uuid;

/// The labels of a caller; never a grant.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Labels {
    /// The session, a UUID in canonical form.
    pub session: Option<Arc<str>>,
    /// The channel: the part of the agent that makes the request.
    pub channel: Option<Arc<str>>,
    /// The trace (W3C Trace Context), 32 hex digits.
    pub trace_id: Option<Arc<str>>,
    /// The span, 16 hex digits.
    pub span_id: Option<Arc<str>>,
}

const CHANNELS: [&str; 6] = ["bash", "hook", "lsp", "main", "mcp", "plugin"];

/// Splits a username into the user and its labels. Without a session there are no labels.
pub(super) fn split(username: &str) -> (&str, Labels) {
    let (rest, trace) = match username
        .rsplit_once('.')
        .map(|(rest, last)| (rest, traceparent(last)))
    {
        Some((rest, Some(trace))) => (rest, Some(trace)),
        _ => (username, None),
    };
    let (rest, channel) = match rest.rsplit_once('.') {
        Some((before, last)) if CHANNELS.contains(&last) => (before, Some(last)),
        _ => (rest, None),
    };
    let (user, session) = rest.rsplit_once('.').unwrap_or(("", rest));
    match session_id(session) {
        Some(session) => {
            let (trace_id, span_id) = trace.unzip();
            (
                user,
                Labels {
                    session: Some(session),
                    channel: channel.map(Arc::from),
                    trace_id,
                    span_id,
                },
            )
        }
        None => (username, Labels::default()),
    }
}

fn session_id(text: &str) -> Option<Arc<str>> {
    (text.len() == 36)
        .then(|| Uuid::try_parse(text).ok())
        .flatten()
        .map(|uuid| uuid.hyphenated().to_string().into())
}

/// Parses `00-TRACE-SPAN-FLAGS` of W3C Trace Context; all-zero ids are invalid.
fn traceparent(text: &str) -> Option<(Arc<str>, Arc<str>)> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, len| {
        part.len() == len
            && part
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let id = |part: &str, len| hex(part, len) && part.bytes().any(|byte| byte != b'0');
    (parts.next().is_none() && version == "00" && id(trace, 32) && id(span, 16) && hex(flags, 2))
        .then(|| (trace.into(), span.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: &str = "0195f3c2-7e1a-7bbb-8ccc-0123456789ab";

    #[test]
    fn a_user_with_dots_keeps_them() {
        let (user, labels) = split("ana@acme.example");
        assert_eq!((user, labels), ("ana@acme.example", Labels::default()));
    }

    #[test]
    fn session_channel_and_trace_are_taken_off_from_the_right() {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let name = format!("ana@acme.example.{SESSION}.bash.{trace}");
        let (user, labels) = split(&name);
        assert_eq!(user, "ana@acme.example");
        assert_eq!(labels.session.as_deref(), Some(SESSION));
        assert_eq!(labels.channel.as_deref(), Some("bash"));
        assert_eq!(
            labels.trace_id.as_deref(),
            Some("4bf92f3577b34da6a3ce929d0e0e4736")
        );
        assert_eq!(labels.span_id.as_deref(), Some("00f067aa0ba902b7"));
    }

    #[test]
    fn a_session_alone_has_no_user() {
        let (user, labels) = split(SESSION);
        assert_eq!(user, "");
        assert_eq!(labels.session.as_deref(), Some(SESSION));
    }

    #[test]
    fn what_only_looks_like_a_label_belongs_to_the_user() {
        for name in [
            "ana.bash",
            "ana.not-a-uuid.bash",
            "x.00000000000000000000000000000000",
            "a.main",
        ] {
            assert_eq!(split(name), (name, Labels::default()), "{name}");
        }
    }

    #[test]
    fn a_session_is_written_in_one_form() {
        let upper = SESSION.to_ascii_uppercase();
        assert_eq!(split(&upper).1.session.as_deref(), Some(SESSION));
    }
}
