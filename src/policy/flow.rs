//! A flow in the form that rules match.

use super::Action;
use super::category::{Categories, Category};
use super::facts::RequestFacts;
use super::query::{Attempt, Who};
use super::servers::ServerId;
use super::within::Within;

/// A flow in the form that rules match.
#[derive(Clone, Debug)]
pub(super) struct Flow<'a> {
    pub(super) who: &'a Who,
    pub(super) attempt: Attempt<'a>,
    pub(super) port: u16,
    /// The category of the destination.
    pub(super) category: Category,
    /// The categories under every reading of the path.
    pub(super) categories: Categories,
    /// The request facts, as far as they were read; `None` in a tunnel.
    pub(super) request_facts: Option<&'a RequestFacts>,
    pub(super) action: Option<Action>,
    /// The listed MCP server that receives the message.
    pub(super) server: Option<ServerId>,
    /// The listed MCP server whose endpoint some server reads in the path, though it is spelled
    /// differently. Only a deny or ask matches by it.
    pub(super) server_alike: Option<ServerId>,
    /// The first listed MCP server at the target.
    pub(super) site: Option<ServerId>,
    /// The recipient of a message of MCP; `None` for any other request.
    pub(super) mcp: Option<Recipient>,
    /// Whether TLS is intercepted here, so that each request inside is judged.
    pub(super) inspected: bool,
    /// The ports of the destination; empty: the default.
    pub(super) destination_ports: &'a [u16],
    /// Whether the tier lets an allow with `does` match an opaque tunnel.
    pub(super) opaque: bool,
}

/// The recipient of a message of MCP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Recipient {
    /// A listed server.
    Listed,
    /// A host whose category is `mcp`.
    Known,
    /// Any other host.
    Unlisted,
}

impl Flow<'_> {
    /// Whether some facts are in a body that was not read yet.
    pub(super) fn unread(&self) -> bool {
        self.request_facts.is_some_and(RequestFacts::is_unread)
    }

    /// Whether a flow is within the limits of its session. As for an allow of a tier: an action
    /// that cannot be seen passes if the tier lets opaque flows pass.
    pub(super) fn is_within(&self, within: &Within) -> bool {
        within.allows(self.category, |action| match self.attempt {
            Attempt::Connect => self.opaque || self.inspected,
            Attempt::Request { .. } => self.action.map_or(self.unread(), |seen| seen == action),
        })
    }
}
