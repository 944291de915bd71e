//! The facts of a flow with the text of their `decision` line, from which the `close` line is made.

use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::encode::Shared;
use super::line::{FlowFacts, Timings};

/// The facts of a flow, and the text of those that its `decision` line has already.
///
/// Nearly all fields of the `close` line repeat the `decision` line. Their text is kept and copied,
/// as long as no fact has changed. Any mutable access discards the text, except by the methods below:
/// they set the facts of the dial and of the answer, which are not part of it.
#[derive(Debug)]
pub struct FlowRecord {
    facts: Box<FlowFacts>,
    shared: Option<Shared>,
}

impl FlowRecord {
    /// Sets the dialled address and the parent proxy of the connection.
    pub fn set_dialled(&mut self, address: IpAddr, parent: Option<Arc<str>>) {
        self.facts.peer_address = Some(address);
        self.facts.parent_proxy = parent;
    }

    /// Sets the status of the response.
    pub fn set_status(&mut self, status: u16) {
        self.facts.status = Some(status);
    }

    /// The timings of the stages, to set.
    pub fn timings_mut(&mut self) -> &mut Timings {
        &mut self.facts.ms
    }

    /// Discards the kept text: a flow that may last for days does not hold its memory.
    pub fn discard_text(&mut self) {
        self.shared = None;
    }

    pub(super) fn shared(&self) -> Option<&Shared> {
        self.shared.as_ref()
    }

    pub(super) fn keep(&mut self, shared: Shared) {
        self.shared = Some(shared);
    }
}

impl From<Box<FlowFacts>> for FlowRecord {
    fn from(facts: Box<FlowFacts>) -> Self {
        Self {
            facts,
            shared: None,
        }
    }
}

impl From<FlowFacts> for FlowRecord {
    fn from(facts: FlowFacts) -> Self {
        Box::new(facts).into()
    }
}

impl Deref for FlowRecord {
    type Target = FlowFacts;

    fn deref(&self) -> &FlowFacts {
        &self.facts
    }
}

impl DerefMut for FlowRecord {
    fn deref_mut(&mut self) -> &mut FlowFacts {
        self.shared = None;
        &mut self.facts
    }
}
