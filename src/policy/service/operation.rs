//! One operation of a service.

use std::sync::Arc;

use crate::name::Path;

use super::super::{Action, Body};
use super::fields::Fields;
use super::pattern::Pattern;
use super::query::Conditions;

/// What some requests do, in the word of their service.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) name: Arc<str>,
    /// `None` where only the body tells.
    pub(super) action: Option<Action>,
    /// As on the wire; `GET` stands for `HEAD` as well.
    pub(super) methods: Box<[Box<str>]>,
    pub(super) paths: Box<[Pattern]>,
    pub(super) query: Conditions,
    pub(super) body: Option<Body>,
}

impl Operation {
    /// What a request names, where it is this operation.
    pub(super) fn matches<'a>(&self, method: &str, path: &'a Path) -> Option<Fields<'a>> {
        let asked = if method == "HEAD" { "GET" } else { method };
        if !self.methods.iter().any(|known| **known == *asked) {
            return None;
        }
        let mut fields = self
            .paths
            .iter()
            .find_map(|pattern| pattern.matches(as_read(asked, path.path())))?;
        self.query.hold(path.query(), &mut fields)?;
        Some(fields)
    }
}

/// The path as most servers take it: they redirect a GET with a slash at the end to the one
/// without, or the other way round. For other methods only the exact path is the operation.
fn as_read<'a>(method: &str, path: &'a str) -> &'a str {
    match path.strip_suffix('/') {
        Some(front) if method == "GET" && !front.is_empty() => front,
        _ => path,
    }
}
