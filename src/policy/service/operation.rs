//! One operation of a service.

use std::sync::Arc;

use super::super::{Action, Body};
use super::fields::Fields;
use super::pattern::{Pattern, Segments};
use super::query::Conditions;

/// One kind of request of a service.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) name: Arc<str>,
    /// `None`: the body has to be read.
    pub(super) action: Option<Action>,
    /// As sent; `GET` stands for `HEAD` as well.
    pub(super) methods: Box<[Box<str>]>,
    pub(super) paths: Box<[Pattern]>,
    pub(super) query: Conditions,
    pub(super) body: Option<Body>,
}

impl Operation {
    /// Returns the captured names, if the request is this operation.
    pub(super) fn matches<'a>(&self, request: &Request<'a>) -> Option<Fields<'a>> {
        if !self.methods.iter().any(|known| **known == *request.method) {
            return None;
        }
        let mut fields = self
            .paths
            .iter()
            .find_map(|pattern| pattern.matches(&request.path))?;
        self.query.hold(request.query, &mut fields)?;
        Some(fields)
    }
}

/// The head of a request in the form that operations match.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    method: &'a str,
    path: Segments<'a>,
    query: Option<&'a str>,
}

impl<'a> Request<'a> {
    /// `HEAD` counts as `GET`, and for both a slash at the end is ignored, because servers redirect
    /// one spelling to the other. For other methods only the exact path matches.
    pub(super) fn new(method: &'a str, path: &'a str, query: Option<&'a str>) -> Self {
        let method = if method == "HEAD" { "GET" } else { method };
        let path = match path.strip_suffix('/') {
            Some(front) if method == "GET" && !front.is_empty() => front,
            _ => path,
        };
        Self {
            method,
            path: Segments::of(path),
            query,
        }
    }
}
