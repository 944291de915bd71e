//! Requests that a client can send: a method and a path, with the facts that the reader of the service
//! reads from them.
//!
//! A part of a [`Space`](super::compare::Space) has one value of each fact, independent of the other
//! facts. The facts of a real request follow from its method, path and body together. A finding has
//! to name a flow that a client can send.

use crate::name::Path;

use super::Action;
use super::compiled::Policy;
use super::facts::{Body, RequestFacts, Seen};
use super::regions::{Point, Request};
use super::service::Head;
use super::words::Words;

/// Methods to try at the path of a flow itself.
const METHODS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];

impl Policy {
    /// Returns flows that a client can send and that resemble a flow: each with the facts that the
    /// policy reads from its method and path; facts that only a body has are copied. The caller has to
    /// check that the policy decides them like the given flow. A tunnel is returned unchanged.
    pub(super) fn requests_like<'p>(
        &'p self,
        point: &'p Point,
    ) -> impl Iterator<Item = Point> + 'p {
        let request = point.request.as_ref();
        let heads = request.map_or_else(Vec::new, |request| self.heads(point, request));
        let requests = heads.into_iter().filter_map(|(method, url)| {
            let path = Path::parse(url.as_bytes()).ok()?;
            self.with_head(point, &method, path)
        });
        let tunnel = request.is_none().then(|| point.clone());
        tunnel.into_iter().chain(requests)
    }

    /// Returns heads of requests like a request.
    fn heads(&self, point: &Point, request: &Request) -> Vec<Head> {
        let own = request.path.as_str();
        let mut heads: Vec<Head> = vec![(request.method.clone(), own.to_owned())];
        heads.extend(METHODS.map(|method| (method.into(), own.to_owned())));
        let Some(service) = self.reader_of(&point.target, &request.path) else {
            return heads;
        };
        let below = request.path.path().trim_matches('/');
        let services = &self.catalogue.services;
        for facts in [request.facts.clone(), with_longer_names(&request.facts)] {
            for other in [below, "x"].into_iter().filter(|it| !it.is_empty()) {
                heads.extend(services.heads(service, &facts, other));
            }
        }
        // Plain paths first: `/x/info/refs;x` is a push for some servers only.
        heads.sort_by_key(|(_, url)| url.contains(';'));
        heads
    }

    /// Returns a flow with another head; `None` for a tunnel.
    pub(super) fn with_head(&self, point: &Point, method: &str, path: Path) -> Option<Point> {
        let mut found = point.clone();
        let request = found.request.as_mut()?;
        let read = self.read(&point.target, method, &path);
        request.facts = completed(read, &request.facts, method);
        request.method = method.into();
        request.path = path;
        Some(found)
    }
}

/// Returns facts with names that end in a letter: the shortest name that `acme/*` matches is `acme/`,
/// which is no name of a repository.
fn with_longer_names(facts: &RequestFacts) -> RequestFacts {
    let longer = |name: &Option<Box<str>>| name.as_ref().map(|name| format!("{name}x").into());
    RequestFacts {
        repository: longer(&facts.repository),
        package: longer(&facts.package),
        operation: facts.operation.clone(),
        ..RequestFacts::default()
    }
}

/// Returns the facts of a head, with the wanted facts that its body may have.
fn completed(read: RequestFacts, wanted: &RequestFacts, method: &str) -> RequestFacts {
    let mut facts = read;
    let body = facts.body;
    if let (Some(here), Some(operation)) = (&facts.operation, &wanted.operation) {
        let includes = |words: &Words| words.includes(here, operation);
        if body.is_some() && facts.words.as_deref().is_some_and(includes) {
            facts.operation = Some(operation.clone());
        }
    }
    if matches!(body, Some(Body::GitPush | Body::GraphQl)) {
        facts.reference.clone_from(&wanted.reference);
    }
    match (&mut facts.mcp, &wanted.mcp) {
        (Some(here), Some(call)) if here.server == call.server => here.clone_from(call),
        // A message to a server that is not listed is found in the body.
        (None, Some(call)) if call.server.is_none() && method == "POST" => {
            facts.mcp = Some(call.clone());
            facts.action = wanted.action;
        }
        _ => {}
    }
    let by_body = wanted.action.or(Some(Action::Read));
    facts.action = facts.action.or(by_body);
    facts.credentials.clone_from(&wanted.credentials);
    (facts.seen, facts.body) = (Seen::Whole, None);
    facts
}
