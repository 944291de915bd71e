//! The first reader: a program of the operator that reads each new request before a person does.
//!
//! The program gets the request as JSON on its standard input, as reviewers get it. It writes
//! `{"deny": "why"}` to deny the request, and `{}` to pass the request on to the reviewers. It cannot
//! allow. If the program fails, writes something else, takes longer than 10 s, or another user could
//! change it, the request is passed on.
//!
//! While the program reads, no reviewer can settle the request. At most [`MAX_READERS`] run at once: a
//! request that waits for longer than [`TURN_TIMEOUT`] is passed on unread.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use uuid::Uuid;

use crate::gate::{Gate, Snapshot};
use crate::policy::Asking;
use crate::record::Asker;

use super::settle::Verdicts;
use super::{Principal, Request};

/// First readers that run at once, at most.
const MAX_READERS: usize = 4;
/// How long a request waits for its first reader to start.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// Characters of the reason of a denial, at most.
const MAX_NOTE: usize = 160;

/// The permits of first readers.
#[derive(Debug)]
pub(super) struct Readers(Semaphore);

impl Default for Readers {
    fn default() -> Self {
        Self(Semaphore::new(MAX_READERS))
    }
}

/// The answer of a first reader.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reading {
    /// The reason of a denial; `None`: the reader passes the request on.
    deny: Option<String>,
}

impl Gate {
    /// Lets the first reader of the tier read a new request, if the tier has one.
    pub(super) fn read_first(self: &Arc<Self>, request: &Request) {
        let snapshot = self.snapshot.load_full();
        let Some(words) = asking(&snapshot, request).and_then(|it| it.first_reader.clone()) else {
            return;
        };
        let (gate, id) = (self.clone(), request.id);
        self.attendants.spawn(async move {
            let read = gate.read_request(id, &snapshot, &words);
            gate.draining.run_until_cancelled(read).await;
        });
    }

    async fn read_request(&self, id: Uuid, snapshot: &Snapshot, words: &[String]) {
        let Ok(turn) = self.turn(id, self.clock.now()) else {
            return;
        };
        let permit = timeout(TURN_TIMEOUT, self.requests.readers.0.acquire()).await;
        let Ok(Ok(_permit)) = permit else {
            tracing::warn!(request = %id, "a request is passed on unread: too many first readers run");
            return;
        };
        let tier = turn.request.facts.tier.clone().unwrap_or_default();
        let why = format!("the first reader of tier `{tier}`");
        let facts = serde_json::to_vec(&turn.request.view()).unwrap_or_default();
        let programs = &snapshot.programs;
        let Some(written) = programs.ask(words, &why, &self.clock, facts).await else {
            return;
        };
        let reading: Reading = serde_json::from_slice(&written).unwrap_or_else(|error| {
            tracing::warn!(request = %id, "{why} wrote no answer: {error}");
            Reading::default()
        });
        let (Some(deny), Some(asking)) = (reading.deny, asking(snapshot, &turn.request)) else {
            return;
        };
        let verdicts = Verdicts {
            principal: &Principal {
                is_first_reader: true,
                ..Principal::default()
            },
            asker: &Asker::default(),
            note: Some(note(&deny)).filter(|note| !note.is_empty()),
        };
        if let Err(error) = self.deny(turn, &verdicts, asking.max_approval).await {
            tracing::warn!(request = %id, "{why} denied it, and the denial does not count: {error}");
        }
    }
}

/// Whether the tier of a request has a first reader.
pub(super) fn has_first_reader(snapshot: &Snapshot, request: &Request) -> bool {
    asking(snapshot, request).is_some_and(|it| it.first_reader.is_some())
}

/// The text of a denial: one line of bounded length.
fn note(text: &str) -> Box<str> {
    let letters = text.chars().filter(|letter| !letter.is_control());
    letters.take(MAX_NOTE).collect()
}

/// How the tier of a request asks.
fn asking<'s>(snapshot: &'s Snapshot, request: &Request) -> Option<&'s Asking> {
    let tier = snapshot.policy.tier(request.facts.tier.as_deref()?)?;
    Some(snapshot.policy.asking(tier))
}
