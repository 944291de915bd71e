//! Facts of a model request besides the conversation: the tools that run at the provider, and the
//! session. Messages of any size are skipped.

use std::borrow::Cow;

use serde_json::value::RawValue;
use uuid::Uuid;

use crate::name::Url;

use super::json::{self, Object};

/// Maximum number of names of a kind that are kept.
const MAX_NAMES: usize = 64;
/// Maximum length of a name that is kept, in characters.
const MAX_NAME_SIZE: usize = 64;
/// Types of tools that run at the client, or prefixes of them (`bash_20250124`).
const AT_CLIENT: &[&str] = &[
    "apply_patch",
    "bash_",
    "computer_",
    "custom",
    "function",
    "local_shell",
    "memory_",
    "text_editor_",
];
/// Keys of Gemini that are tools at the provider.
const GEMINI: &[&str] = &[
    "codeExecution",
    "code_execution",
    "fileSearch",
    "file_search",
    "googleSearch",
    "google_search",
    "urlContext",
    "url_context",
];
/// Stands for a name that cannot be read, or that is beyond the maximum.
const UNREADABLE: &str = "?";

/// The facts of a model request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Said {
    /// The types of the tools that run at the provider (`web_search_20250305`, `code_interpreter`,
    /// …), in order, each once. An unknown type counts as one of them; `?` stands for unreadable or
    /// too many tools.
    pub server_tools: Vec<Box<str>>,
    /// The hosts of the MCP servers that the provider is to call; `?` stands for unreadable or too
    /// many hosts.
    pub mcp_servers: Vec<Box<str>>,
    /// The agent's session, from `metadata.user_id`.
    pub session: Option<Box<str>>,
}

/// Reads the whole body of a model request: the shapes of Anthropic (also batches of requests),
/// `OpenAI` and Gemini. `None` if it is not a JSON object, or has thousands of keys. A repeated key
/// counts each time.
pub fn said(body: &[u8]) -> Option<Said> {
    let object = Object::parse(str::from_utf8(body).ok()?)?;
    let mut said = Said::default();
    said.request(&object);
    let batches = object.members().filter(|(key, _)| *key == "requests");
    for request in batches.flat_map(|(_, list)| objects(list)) {
        match request.and_then(|request| object_of(request.get("params")?)) {
            Some(parameters) => said.request(&parameters),
            None => note(&mut said.server_tools, UNREADABLE),
        }
    }
    Some(said)
}

impl Said {
    fn request(&mut self, object: &Object<'_>) {
        for (key, value) in object.members() {
            match key {
                "tools" => objects(value).for_each(|tool| self.tool(tool.as_ref())),
                "mcp_servers" => objects(value).for_each(|server| {
                    self.server(server.and_then(|server| server.text("url")));
                }),
                "container" if !json::is_null(value) => note(&mut self.server_tools, "container"),
                "web_search_options" => note(&mut self.server_tools, "web_search"),
                "metadata" => self.metadata(value),
                _ => {}
            }
        }
    }

    fn tool(&mut self, tool: Option<&Object<'_>>) {
        let Some(tool) = tool else {
            return note(&mut self.server_tools, UNREADABLE);
        };
        for (key, value) in tool.members() {
            match (key, json::text(value)) {
                ("type", Some(kind)) if !runs_at_client(&kind) => {
                    note(&mut self.server_tools, &kind);
                }
                ("server_url", url) => self.server(url),
                _ if GEMINI.contains(&key) => note(&mut self.server_tools, key),
                _ => {}
            }
        }
    }

    fn server(&mut self, url: Option<Cow<'_, str>>) {
        let url = url.and_then(|url| Url::parse(url.as_bytes()).ok());
        let host = url.map_or_else(|| UNREADABLE.to_owned(), |url| url.target.host.to_string());
        note(&mut self.mcp_servers, &host);
    }

    fn metadata(&mut self, value: &RawValue) {
        let user = object_of(value).and_then(|metadata| metadata.text("user_id"));
        let session = user.and_then(|user| session_of(&user));
        self.session = session.or_else(|| self.session.take());
    }
}

/// Returns the session in a `user_id`: `…_session_UUID`, or JSON with `session_id`.
fn session_of(user: &str) -> Option<Box<str>> {
    let id = match Object::unambiguous(user) {
        Some(object) => object.text("session_id")?,
        None => Cow::Borrowed(user.rsplit_once("_session_")?.1),
    };
    let id = Uuid::try_parse(&id).ok()?;
    Some(id.hyphenated().to_string().into())
}

fn runs_at_client(kind: &str) -> bool {
    AT_CLIENT.iter().any(|known| match known.strip_suffix('_') {
        Some(_) => kind.starts_with(known),
        None => kind == *known,
    })
}

/// Adds a name once, truncated if it is too long. All names beyond the maximum are one `?`.
fn note(into: &mut Vec<Box<str>>, name: &str) {
    let name: String = name
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_NAME_SIZE)
        .collect();
    let name = if into.len() < MAX_NAMES {
        &name
    } else {
        UNREADABLE
    };
    if !into.iter().any(|known| **known == *name) {
        into.push(name.into());
    }
}

fn object_of(value: &RawValue) -> Option<Object<'_>> {
    Object::parse(value.get())
}

/// Returns the objects in an array; `None` for an element that is not an object, for a value that
/// is not an array, and for an array of thousands.
fn objects(value: &RawValue) -> impl Iterator<Item = Option<Object<'_>>> {
    let elements = match json::elements(value.get()) {
        Some(elements) => elements,
        None if json::is_null(value) => Vec::new(),
        None => vec![value],
    };
    elements.into_iter().map(object_of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SESSION: &str = "0b5cc31d-6c5c-4c5b-9a5c-6a9d5b1c7a11";

    fn of(text: &str) -> Said {
        said(text.as_bytes()).unwrap()
    }

    fn tools(text: &str) -> Vec<Box<str>> {
        of(text).server_tools
    }

    #[test]
    fn tools_at_the_provider_are_named_and_those_at_the_client_are_not() {
        let text = r#"{"model":"m","messages":[{"role":"user","content":"tools"}],"tools":[
            {"name":"Bash","input_schema":{"type":"web_search_no"}},
            {"type":"custom","name":"x"},
            {"type":"bash_20250124","name":"bash"},
            {"type":"text_editor_20250728"},{"type":"computer_20250124"},{"type":"memory_20250818"},
            {"type":"web_search_20250305","name":"web_search"},
            {"type":"web_fetch_20250910"},{"type":"code_execution_20250825"},
            {"type":"something_new"}]}"#;
        let wanted = [
            "web_search_20250305",
            "web_fetch_20250910",
            "code_execution_20250825",
            "something_new",
        ];
        assert_eq!(tools(text), wanted.map(Box::from));
    }

    #[test]
    fn other_providers_are_read_as_well() {
        let text = r#"{"input":"x","tools":[{"type":"function","name":"f"},{"type":"web_search"},
            {"type":"file_search"},{"type":"code_interpreter","container":{"type":"auto"}},
            {"type":"mcp","server_url":"https://mcp.example.com/x"}]}"#;
        let wanted = ["web_search", "file_search", "code_interpreter", "mcp"];
        assert_eq!(tools(text), wanted.map(Box::from));
        assert_eq!(of(text).mcp_servers, ["mcp.example.com".into()]);
        assert_eq!(tools(r#"{"web_search_options":{}}"#), ["web_search".into()]);
        let gemini = r#"{"tools":[{"functionDeclarations":[]},{"googleSearch":{}}]}"#;
        assert_eq!(tools(gemini), ["googleSearch".into()]);
    }

    #[test]
    fn servers_that_the_provider_calls_are_named_by_host() {
        let text = r#"{"mcp_servers":[{"type":"url","url":"https://MCP.Example.com:8443/sse"},
            {"url":"https://a@b/"},{"name":"none"}],"container":"c"}"#;
        let said = of(text);
        assert_eq!(said.mcp_servers, ["mcp.example.com".into(), "?".into()]);
        assert_eq!(said.server_tools, ["container".into()]);
    }

    #[test]
    fn nothing_is_hidden_by_a_second_key_or_an_escape() {
        let text = r#"{"tools":[],"too\u006cs":[{"type":"custom","ty\u0070e":"web_\u0073earch"}],"tools":[]}"#;
        assert_eq!(tools(text), ["web_search".into()]);
        let batch =
            r#"{"requests":[{"custom_id":"1","params":{"tools":[{"type":"web_search"}]}}]}"#;
        assert_eq!(tools(batch), ["web_search".into()]);
    }

    #[test]
    fn a_crowd_hides_nothing() {
        let crowd = format!(
            r#"{{"tools":[{}{{"type":"web_search"}}]}}"#,
            "{},".repeat(5000)
        );
        assert_eq!(tools(&crowd), ["?".into()]);
        let kinds: Vec<_> = (0..MAX_NAMES)
            .map(|at| format!(r#"{{"type":"x{at}"}}"#))
            .collect();
        let kinds = kinds.join(",");
        let many = tools(&format!(
            r#"{{"tools":[{kinds},{{"type":"web_search"}},{{"type":"y"}}]}}"#
        ));
        assert_eq!(
            (many.len(), many.last().map(|last| &**last)),
            (MAX_NAMES + 1, Some("?"))
        );
        assert_eq!(tools(r#"{"tools":["web_search"]}"#), ["?".into()]);
        assert!(tools(r#"{"tools":null}"#).is_empty());
    }

    #[test]
    fn the_session_is_read_in_both_spellings() {
        let old = format!(r#"{{"metadata":{{"user_id":"user_ab_account__session_{SESSION}"}}}}"#);
        assert_eq!(of(&old).session.as_deref(), Some(SESSION));
        let new = serde_json::json!({ "device_id": "d", "session_id": SESSION }).to_string();
        let new = serde_json::json!({ "metadata": { "user_id": new } }).to_string();
        assert_eq!(of(&new).session.as_deref(), Some(SESSION));
        for other in ["x", "user_a_session_x", "{}", "{\\\"session_id\\\":1}"] {
            let text = format!(r#"{{"metadata":{{"user_id":"{other}"}}}}"#);
            assert_eq!(of(&text).session, None, "{other}");
        }
    }

    #[test]
    fn a_large_conversation_is_passed_over() {
        let text = format!(
            r#"{{"messages":[{}{{}}],"tools":[{{"type":"web_search"}}]}}"#,
            r#"{"role":"user","content":[{"type":"text","text":"a\"]}b"}]},"#.repeat(100_000)
        );
        assert_eq!(tools(&text), ["web_search".into()]);
        let deep = format!(
            "{{\"messages\":{}{}}}",
            "[".repeat(1 << 20),
            "]".repeat(1 << 20)
        );
        assert!(of(&deep).server_tools.is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = said(&bytes);
            let _ = session_of(&String::from_utf8_lossy(&bytes));
        }
    }
}
