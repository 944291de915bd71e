//! The form that requests a token from an image registry (distribution, docs/spec/auth/oauth.md).

use crate::policy::{Action, RequestFacts};

use super::{Fields, essence, form, is_plain, with_action};

/// Maximum size of one value, in bytes; refresh tokens are signed documents of some kilobytes.
const MAX_VALUE_SIZE: usize = 8 * 1024;
/// Maximum number of repositories for one token.
const MAX_SCOPES: usize = 100;
/// The keys of the form. Only `scope` may occur twice.
const KEYS: [&str; 8] = [
    "access_type",
    "client_id",
    "grant_type",
    "password",
    "refresh_token",
    "scope",
    "service",
    "username",
];

/// Reads a form. The request is a read if every scope is for a pull, or if there is no scope; any
/// other form is for a push.
pub(super) fn read(head: &RequestFacts, fields: &Fields<'_>, body: &[u8]) -> RequestFacts {
    let kind = essence(fields.content_type);
    let is_form = kind.as_deref() == Some("application/x-www-form-urlencoded");
    let pulled = (is_form && is_plain(fields))
        .then(|| pulled(body))
        .flatten();
    let Some(repositories) = pulled else {
        return unread(head);
    };
    let repository = match repositories.as_slice() {
        [one] => Some(one.as_str().into()),
        _ => None,
    };
    RequestFacts {
        repository,
        ..with_action(head, Some("pull-token"), Action::Read)
    }
}

/// Returns the facts of a form that cannot be read.
pub(super) fn unread(head: &RequestFacts) -> RequestFacts {
    with_action(head, Some("push-token"), Action::Write)
}

/// Returns the repositories that a form asks to pull from; `None` if it asks for anything else.
fn pulled(body: &[u8]) -> Option<Vec<String>> {
    let pairs = form::pairs(str::from_utf8(body).ok()?)?;
    let sound = |(key, value): &(String, String)| {
        let alike = pairs.iter().filter(|(other, _)| other == key).count();
        KEYS.contains(&&**key) && value.len() <= MAX_VALUE_SIZE && (alike == 1 || key == "scope")
    };
    if !pairs.iter().all(sound) {
        return None;
    }
    let scopes = pairs.iter().filter(|(key, _)| key == "scope");
    let scopes: Vec<&str> = scopes.flat_map(|(_, value)| value.split(' ')).collect();
    if scopes.len() > MAX_SCOPES {
        return None;
    }
    scopes.into_iter().map(repository).collect()
}

/// Returns `NAME` of `repository:NAME:pull`.
fn repository(scope: &str) -> Option<String> {
    let name = scope.strip_prefix("repository:")?.strip_suffix(":pull")?;
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/._-".contains(&byte);
    (!name.is_empty() && name.bytes().all(plain)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::tests::body;
    use super::*;
    use crate::policy::Body;

    fn told(form: &str) -> String {
        let fields = Fields {
            content_type: Some(b"application/x-www-form-urlencoded"),
            ..Fields::default()
        };
        let head = RequestFacts {
            repository: None,
            ..body(Body::OciToken)
        };
        let request_facts = read(&head, &fields, form.as_bytes());
        let repository = request_facts.repository.unwrap_or_default();
        format!("{} {repository}", request_facts.operation.unwrap())
    }

    #[test]
    fn a_token_for_pulls_reads() {
        for (form, expected) in [
            (
                "grant_type=password&service=registry.example&client_id=docker&username=ana\
                 &password=x&access_type=offline&scope=repository%3Alibrary%2Fbusybox%3Apull",
                "pull-token library/busybox",
            ),
            (
                "grant_type=refresh_token&refresh_token=a.b.c&service=r&client_id=c",
                "pull-token ",
            ),
            ("scope=repository:a/b:pull+repository:c:pull", "pull-token "),
            (
                "scope=repository:a/b:pull&scope=repository:c:pull",
                "pull-token ",
            ),
        ] {
            assert_eq!(told(form), expected, "{form}");
        }
    }

    #[test]
    fn a_token_for_anything_else_writes() {
        for form in [
            "scope=repository:a:push",
            "scope=repository:a:pull,push",
            "scope=repository:a:pull&scope=repository:a:push",
            "scope=repository:a:pull+repository:a:push",
            "scope=repository:a:pull&SCOPE=repository:a:push",
            "scope=repository:a:pull&data=secret",
            "scope=repository:a:pull&username=a&username=b",
            "scope=repository:a:push:pull",
            "scope=repository:A:pull",
            "scope=registry:catalog:*",
            "scope=",
            "scope=repository:a:pull;scope=repository:a:push",
            "{\"scope\":\"repository:a:pull\"}",
            "%",
        ] {
            assert_eq!(told(form), "push-token ", "{form}");
        }
        let long = format!("password={}", "a".repeat(MAX_VALUE_SIZE + 1));
        assert_eq!(told(&long), "push-token ");
        let head = body(Body::OciToken);
        let json = Fields {
            content_type: Some(b"application/json"),
            ..Fields::default()
        };
        let request_facts = read(&head, &json, b"scope=repository:a:pull");
        assert_eq!(request_facts.action, Some(Action::Write));
    }
}
