//! The ids of an agent in one session: the agent chooses another id when its user clears, resumes
//! or forks a conversation.
//!
//! The ids are labels: they match the agent's own telemetry, and grant nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use uuid::Uuid;

use super::caller::Trust;

/// Sessions with ids, at most.
const MAX_SESSIONS: usize = 4096;
/// Ids of one agent, at most; the oldest is dropped first.
const MAX_IDS: usize = 64;

/// The id of the gate's session for an agent that no launcher started: the agent's own, where it is a
/// UUID, else a UUID made of it (version 8, RFC 9562 section 5.8).
pub fn session_of_agent(id: &str) -> String {
    if Uuid::try_parse(id).is_ok() {
        return id.to_owned();
    }
    let hash = digest(&SHA256, id.as_bytes());
    let bytes = hash.as_ref().first_chunk::<16>().copied();
    let uuid = uuid::Builder::from_custom_bytes(bytes.unwrap_or_default());
    uuid.into_uuid().to_string()
}

/// The ids of each session's agent.
#[derive(Debug, Default)]
pub(super) struct AgentIds {
    agents: Mutex<HashMap<Arc<str>, Agent>>,
}

#[derive(Debug, Default)]
struct Agent {
    /// The ids, the newest last.
    ids: VecDeque<(Arc<str>, Trust)>,
    /// Whether the agent's own process reported an id: then reports of other processes are ignored.
    is_verified: bool,
    /// Whether the agent is to choose its id and has not reported it yet.
    awaits: bool,
}

impl AgentIds {
    /// Sets the id of the agent, from a report of that `trust`.
    pub(super) fn succeed(&self, session: &Arc<str>, id: &str, trust: Trust) {
        let mut agents = self.lock();
        let Some(agent) = agent_of(&mut agents, session) else {
            return;
        };
        if agent.is_verified && trust != Trust::Verified {
            return;
        }
        agent.is_verified |= trust == Trust::Verified;
        agent.awaits = false;
        agent.add(id, trust);
    }

    /// Marks the agent as about to choose its id.
    pub(super) fn await_one(&self, session: &Arc<str>) {
        if let Some(agent) = agent_of(&mut self.lock(), session) {
            agent.awaits = true;
        }
    }

    /// Whether `id` is or was an id of the agent.
    pub(super) fn has(&self, session: &str, id: &str) -> bool {
        let agents = self.lock();
        agents.get(session).is_some_and(|agent| agent.has(id))
    }

    /// Like [`AgentIds::has`]; if the agent is to choose its id, accepts `id` as the choice.
    pub(super) fn takes(&self, session: &str, id: &str) -> bool {
        let mut agents = self.lock();
        let Some(agent) = agents.get_mut(session) else {
            return false;
        };
        if std::mem::take(&mut agent.awaits) {
            agent.add(id, Trust::Asserted);
        }
        agent.has(id)
    }

    /// The present id of the agent, and the trust in the report.
    pub(super) fn current(&self, session: &str) -> Option<(Arc<str>, Trust)> {
        self.lock().get(session)?.ids.back().cloned()
    }

    pub(super) fn forget(&self, session: &str) {
        self.lock().remove(session);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Agent>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The agent of a session; `None` if the table is full.
fn agent_of<'a>(
    agents: &'a mut HashMap<Arc<str>, Agent>,
    session: &Arc<str>,
) -> Option<&'a mut Agent> {
    if agents.len() >= MAX_SESSIONS && !agents.contains_key(session) {
        return None;
    }
    Some(agents.entry(session.clone()).or_default())
}

impl Agent {
    fn add(&mut self, id: &str, trust: Trust) {
        self.ids
            .retain(|(known, _)| !known.eq_ignore_ascii_case(id));
        if self.ids.len() >= MAX_IDS {
            self.ids.pop_front();
        }
        self.ids.push_back((id.to_ascii_lowercase().into(), trust));
    }

    fn has(&self, id: &str) -> bool {
        let mut ids = self.ids.iter();
        ids.any(|(known, _)| known.eq_ignore_ascii_case(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: &str = "0195f3c2-7e1a-7bbb-8ccc-0123456789ab";

    fn current(ids: &AgentIds) -> Option<String> {
        ids.current(SESSION).map(|(id, _)| id.to_string())
    }

    #[test]
    fn a_session_has_a_uuid_whatever_its_agent_calls_itself() {
        assert_eq!(session_of_agent(SESSION), SESSION);
        let made = session_of_agent("ses_dd44de10bffeLQBRerDbtN3TXo");
        assert!(Uuid::try_parse(&made).is_ok(), "{made}");
        assert_eq!(made, session_of_agent("ses_dd44de10bffeLQBRerDbtN3TXo"));
        assert_ne!(made, session_of_agent("ses_dd44de10bffeLQBRerDbtN3TXp"));
    }

    #[test]
    fn an_agent_goes_by_its_last_id_and_keeps_the_earlier_ones() {
        let ids = AgentIds::default();
        for id in ["a", "b", "A"] {
            ids.succeed(&SESSION.into(), id, Trust::Asserted);
        }
        assert_eq!(current(&ids).as_deref(), Some("a"));
        assert!(ids.has(SESSION, "B") && ids.has(SESSION, "a") && !ids.has(SESSION, "c"));
        ids.forget(SESSION);
        assert_eq!(current(&ids), None);
    }

    #[test]
    fn a_command_does_not_rename_an_agent_that_speaks_for_itself() {
        let ids = AgentIds::default();
        ids.succeed(&SESSION.into(), "own", Trust::Verified);
        ids.succeed(&SESSION.into(), "made-up", Trust::Asserted);
        assert_eq!(current(&ids).as_deref(), Some("own"));
        assert!(!ids.has(SESSION, "made-up"));
    }

    #[test]
    fn the_id_of_a_resumed_agent_is_the_first_that_it_names() {
        let ids = AgentIds::default();
        assert!(!ids.takes(SESSION, "a"));
        ids.await_one(&SESSION.into());
        assert!(ids.takes(SESSION, "a") && ids.takes(SESSION, "a"));
        assert!(!ids.takes(SESSION, "b"));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let ids = AgentIds::default();
        for at in 0..MAX_IDS * 2 {
            ids.succeed(&SESSION.into(), &at.to_string(), Trust::Asserted);
        }
        assert_eq!(ids.lock()[SESSION].ids.len(), MAX_IDS);
        for at in 0..MAX_SESSIONS * 2 {
            ids.succeed(&at.to_string().into(), "a", Trust::Asserted);
        }
        assert_eq!(ids.lock().len(), MAX_SESSIONS);
    }
}
