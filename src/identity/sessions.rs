//! The state of sessions at run time: revocations, and the work of live sessions.
//!
//! One state for the whole run: revocations outlast generations.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::vcs::Head;

use super::agent_ids::AgentIds;
use super::caller::{Caller, Trust};
use super::calls::{Attribution, Calls, FlowClues, Refused};
use super::grant::{Grant, Process, Work};
use super::kept::Kept;
use super::process::{AgentProcess, table};
use super::registered::{Registered, agent_above};

/// Revocations kept, at most: more than an operator revokes during the life of a token.
const MAX_REVOKED: usize = 100_000;
/// Of these, sessions that ended themselves, at most: the rest is reserved for the operator.
const MAX_ENDED: usize = MAX_REVOKED / 2;
/// Of these, children of one session, at most.
const MAX_ENDED_PER_PARENT: usize = 1_000;
/// Live sessions that are children of one session, and live sessions in all, at most.
const MAX_LIVE_PER_PARENT: usize = 1_000;
const MAX_LIVE: usize = 10_000;
/// Tokens of one session that end with it, at most.
const MAX_TOKENS: usize = 256;

/// The state of sessions at run time.
#[derive(Debug, Default)]
pub struct Sessions {
    known: Mutex<Known>,
    calls: Calls,
    /// The ids of agents.
    ids: AgentIds,
    /// Agents that no launcher started.
    registered: Registered,
    /// The agent that this process started.
    agent: Mutex<Option<Launched>>,
    /// Grows with every revocation: earlier verifications are repeated.
    epoch: AtomicU64,
    /// The file that keeps revocations across restarts.
    kept: Mutex<Kept>,
}

/// An agent that this process started.
#[derive(Debug)]
struct Launched {
    session: Arc<str>,
    process: AgentProcess,
    /// Whether a hook reported the start of its first session.
    has_started: bool,
    /// The process that started the hook of that report, with its start time, if it is a process
    /// below the launched one (a script, or Node's part of Codex and Gemini CLI).
    inner: Option<(u32, u64)>,
}

impl Launched {
    /// The process that starts the agent's commands.
    fn pid(&self) -> u32 {
        let inner = self.inner;
        let inner = inner.filter(|(pid, began)| table::began(*pid) == Some(*began));
        inner.map_or_else(|| self.process.pid(), |(pid, _)| pid)
    }
}

#[derive(Debug, Default)]
struct Known {
    /// The revoked names, each with the time after which it cannot be presented.
    revoked: HashMap<Arc<str>, Timestamp>,
    live: HashMap<Arc<str>, Live>,
}

/// A session that was started and has not ended.
#[derive(Clone, Debug)]
pub struct Live {
    /// The root session: the one it descends from, or itself.
    pub root: Option<Arc<str>>,
    /// Its present work: hooks report it later than the token.
    pub work: Arc<Work>,
    /// The checked-out branch and commit, if the gate can read them.
    pub head: Option<Arc<Head>>,
    /// The process of the agent, if it is on this host.
    pub pid: Option<u32>,
    /// The expiry of its token.
    pub expires: Timestamp,
    /// The grant of its first token.
    pub grant: Arc<Grant>,
    /// The ids of its tokens, the newest last.
    pub tokens: Vec<Arc<str>>,
}

/// A failed revocation.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// The file cannot be written: the revocation would be lost at the next start.
    #[error("the revocation cannot be kept: {0}")]
    File(#[from] io::Error),
    /// There are too many revocations.
    #[error("more than {MAX_REVOKED} revocations are in force")]
    Full,
    /// The name is no valid name.
    #[error("this names no session or token: at most 253 printable characters without blanks")]
    Name,
}

impl Sessions {
    /// Sets the file that keeps revocations.
    pub(super) fn keep_in(&self, file: Option<PathBuf>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.at(file);
    }

    /// The number of changes of the revocations: a verification at an earlier number is repeated.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Adds the revocations of a file.
    pub fn take_up(&self, revoked: &[(Arc<str>, Timestamp)], now: Timestamp) {
        let mut known = self.lock();
        let before = known.revoked.len();
        let live = revoked.iter().filter(|(_, until)| *until > now);
        for (name, until) in live.take(MAX_REVOKED) {
            let until = known.revoked.get(name).max(Some(until)).copied();
            known
                .revoked
                .insert(name.clone(), until.unwrap_or(Timestamp::MAX));
        }
        if known.revoked.len() != before {
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Revokes a token by its id, or a session and its children by the session's id, until `until`.
    /// In force at once; the caller ends the open flows.
    pub fn revoke(&self, name: &str, until: Timestamp, now: Timestamp) -> Result<(), RevokeError> {
        let sound = name.bytes().all(|byte| byte.is_ascii_graphic());
        if name.is_empty() || name.len() > 253 || !sound {
            return Err(RevokeError::Name);
        }
        {
            let mut known = self.lock();
            known.revoked.retain(|_, until| *until > now);
            if known.revoked.len() >= MAX_REVOKED && !known.revoked.contains_key(name) {
                return Err(RevokeError::Full);
            }
            known.revoked.insert(name.into(), until);
            known.live.remove(name);
        }
        self.epoch.fetch_add(1, Ordering::AcqRel);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.add(name, until, now)?;
        Ok(())
    }

    /// Whether a session may end itself: such ends must not use up the room for the operator's
    /// revocations.
    pub fn may_end(&self, grant: &Grant) -> bool {
        let known = self.lock();
        let Some(root) = grant.root.as_ref().filter(|_| !grant.is_root()) else {
            return known.revoked.len() < MAX_ENDED;
        };
        let of_root = |name: &&Arc<str>| name.split_once('/').is_some_and(|(it, _)| it == &**root);
        known.revoked.len() < MAX_ENDED
            && known.revoked.keys().filter(of_root).count() < MAX_ENDED_PER_PARENT
    }

    /// Whether a grant, its session or its root session was revoked.
    pub fn is_revoked(&self, grant: &Grant) -> bool {
        let known = self.lock();
        if known.revoked.is_empty() {
            return false;
        }
        let own = grant.own_name();
        let names = [
            Some(&grant.id),
            grant.session.as_ref(),
            grant.root.as_ref(),
            own.as_ref(),
        ];
        let mut names = names.into_iter().flatten();
        let mut line = grant.line.names.iter();
        names.any(|name| known.revoked.contains_key(name))
            || line.any(|name| known.has_revoked(name, grant.root.as_deref()))
    }

    /// Whether a live session of another root has this name.
    pub fn is_taken(&self, session: &str, root: &str, now: Timestamp) -> bool {
        let known = self.lock();
        let live = known.live.get(session).filter(|live| live.expires > now);
        live.is_some_and(|live| live.root.as_deref() != Some(root))
    }

    /// Stores a session that started, or its present work. The grant of its first token stays while
    /// that grant is valid.
    ///
    /// The expiry of a session with several tokens is the latest of them.
    pub fn enter(&self, session: &Arc<str>, mut live: Live, now: Timestamp) {
        let mut known = self.lock();
        if let Some(before) = known.live.get(session).filter(|it| it.root == live.root) {
            let mut tokens = before.tokens.clone();
            tokens.append(&mut live.tokens);
            live.tokens = tokens.split_off(tokens.len().saturating_sub(MAX_TOKENS));
            live.expires = live.expires.max(before.expires);
            live.pid = live.pid.or(before.pid);
            live.head = live.head.or_else(|| before.head.clone());
            if before.grant.expires.is_none_or(|until| until > now) {
                live.grant = before.grant.clone();
            }
        } else if live.root.as_ref() != Some(session) {
            let mut others = known.live.values();
            if others.by_ref().filter(|it| it.root == live.root).count() >= MAX_LIVE_PER_PARENT {
                return;
            }
        }
        if known.live.len() >= MAX_LIVE {
            known.live.retain(|_, live| live.expires > now);
        }
        if known.live.len() < MAX_LIVE || known.live.contains_key(session) {
            known.live.insert(session.clone(), live);
        }
    }

    /// Removes a session that ended.
    pub fn leave(&self, grant: &Grant) {
        let Some(session) = &grant.session else {
            return;
        };
        let live = self.live(session);
        if live.is_some_and(|live| live.root == grant.root) {
            self.forget(session);
        }
    }

    /// Removes a session by its name; returns its state.
    pub fn forget(&self, session: &str) -> Option<Live> {
        self.calls.forget(session);
        self.ids.forget(session);
        self.lock().live.remove(session)
    }

    /// Sets the present work of a session, as reported by its hooks.
    pub fn works(&self, session: &str, work: Arc<Work>) {
        if let Some(live) = self.lock().live.get_mut(session) {
            live.work = work;
        }
    }

    /// The tool calls of the sessions.
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Sets the agent process of a session that this process started.
    pub fn agent_is(&self, session: Arc<str>, agent: AgentProcess) {
        let mut known = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(Launched {
            session,
            process: agent,
            has_started: false,
            inner: None,
        });
    }

    /// Marks the first session of an agent that this process started as begun. `above` is the
    /// process that started the hook of an asserted report. Only the first asserted report counts, and
    /// the first one after the end of that process, because a script may start the agent again: it
    /// comes before any command of the agent runs. No asserted report counts after a verified
    /// one: otherwise a process that reported first could pass for the agent, and its children for
    /// the shells of calls.
    pub fn agent_starts(&self, session: &str, trust: Trust, above: Option<u32>) {
        let mut known = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(launched) = known.as_mut().filter(|it| *it.session == *session) else {
            return;
        };
        let has_ended = |(pid, began)| table::began(pid) != Some(began);
        if trust == Trust::Verified {
            launched.inner = None;
        } else if !launched.has_started || launched.inner.is_some_and(has_ended) {
            let above = above.filter(|pid| *pid != launched.process.pid());
            launched.inner = above.and_then(|pid| Some((pid, table::began(pid)?)));
        }
        launched.has_started = true;
    }

    /// The process that starts the agent's commands, if this process started the agent of the
    /// session.
    fn launched_pid(&self, session: &str) -> Option<u32> {
        let known = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        let launched = known.as_ref().filter(|it| *it.session == *session);
        launched.map(Launched::pid)
    }

    /// The agent process of the root session `root`, if this process started it.
    pub fn agent_of(&self, root: &str) -> Option<AgentProcess> {
        let known = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        let launched = known.as_ref().filter(|it| *it.session == *root)?;
        Some(launched.process.clone())
    }

    /// The tool call of a flow. Looks up the process of the agent.
    pub fn call_of(&self, clues: &FlowClues<'_>) -> Attribution {
        let caller = clues.caller;
        let Some(session) = caller.root.as_ref().or(caller.session.as_ref()) else {
            return Attribution::None;
        };
        let launched = self.launched_pid(session);
        let agent = launched.or_else(|| self.registered.process_of(session));
        self.calls.of(&FlowClues { agent, ..*clues })
    }

    /// Keeps a refusal of a process that a command of the agent left in the background. Drops it if
    /// the process started the agent. Reads `/proc`.
    pub fn refused_in_background(&self, root: &str, process: u32, refused: Refused) {
        let launched = self.launched_pid(root);
        let agent = launched.or_else(|| self.registered.process_of(root));
        if agent.is_some_and(|agent| !table::is_above(process, agent)) {
            self.calls.refused_in_background(root, refused);
        }
    }

    /// Registers the agent with this process id for `session`; `with_commands`: flows of the
    /// processes below the agent are its own. The calls of all sessions of one agent process are kept
    /// together. Reads `/proc`.
    pub fn register_agent(&self, session: &Arc<str>, agent: u32, with_commands: bool) {
        let before = self.registered.register(session, agent, with_commands);
        if let Some(before) = before {
            self.calls.share(session, &before);
        }
    }

    /// Whether a report comes from the agent of the session: the agent itself made it, or the agent's
    /// process started the hook (`above`). Otherwise it comes from another agent, which a command
    /// started. Also `true` if the agent's process is unknown.
    pub fn is_of_agent(&self, session: &str, trust: Trust, above: Option<u32>) -> bool {
        let launched = self.launched_pid(session);
        let agent = launched.or_else(|| self.registered.process_of(session));
        trust == Trust::Verified || agent.is_none_or(|agent| above == Some(agent))
    }

    /// The present session of the registered agent that started the hook with this process id. Reads
    /// `/proc`.
    pub fn session_above(&self, hook: u32) -> Option<Arc<str>> {
        self.registered.session_above(hook)
    }

    /// The process of the agent that started the hook with this process id. Reads `/proc`.
    pub fn agent_above(hook: u32) -> Option<u32> {
        agent_above(hook)
    }

    /// As [`Sessions::agent_above`], for the hook at the client's end of a connection.
    pub fn agent_above_client(client: SocketAddr, local: SocketAddr) -> Option<u32> {
        Registered::hook_at(client, local).and_then(agent_above)
    }

    /// Whether agents are registered by their processes.
    pub fn has_registered_agents(&self) -> bool {
        self.registered.any()
    }

    /// The session of a registered agent, and the process at the other end of a connection: the agent,
    /// or a process below it. Reads `/proc`.
    pub fn registered_agent(
        &self,
        client: SocketAddr,
        local: SocketAddr,
    ) -> Option<(Arc<str>, Process)> {
        self.registered.at(client, local)
    }

    /// Sets the present id of the agent of `session`, from a report of that `trust`.
    pub fn succeed(&self, session: &Arc<str>, id: &str, trust: Trust) {
        self.ids.succeed(session, id, trust);
    }

    /// Marks the agent of `session` as about to choose its id, for example by resuming a
    /// conversation.
    pub fn awaits_id(&self, session: &Arc<str>) {
        self.ids.await_one(session);
    }

    /// Whether `id` is or was an id of the agent of `session`.
    pub fn has_id(&self, session: &str, id: &str) -> bool {
        self.ids.has(session, id)
    }

    /// Like [`Sessions::has_id`], for an id in the agent's own request. If the agent is to choose
    /// its id and has not reported one, the first id it names becomes its own.
    pub fn takes_id(&self, session: &str, id: &str) -> bool {
        self.ids.takes(session, id)
    }

    /// The present id of a caller's agent, with its trust, if it differs from the caller's session.
    /// A command keeps the id of its start.
    pub fn current_id(&self, caller: &Caller) -> Option<(Arc<str>, Trust)> {
        let of_command = caller.channel.as_deref() == Some("bash");
        let session = caller.session.as_ref()?;
        if caller.root.is_some() || of_command || !caller.is_shown() {
            return None;
        }
        let (id, trust) = self.ids.current(session)?;
        (id != *session).then_some((id, trust))
    }

    /// The state of a live session.
    pub fn live(&self, session: &str) -> Option<Live> {
        self.lock().live.get(session).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Whether an ancestor of a session was revoked: by its id, by the name it chose, or by that
    /// name qualified by its root.
    fn has_revoked(&self, name: &str, root: Option<&str>) -> bool {
        let of_root = root.map(|root| format!("{root}/{name}"));
        self.revoked.contains_key(name)
            || of_root.is_some_and(|name| self.revoked.contains_key(name.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Bound, Evidence, Line, Narrow};

    fn now() -> Timestamp {
        Timestamp::from_second(1_790_000_000).unwrap()
    }

    fn grant(session: &str, root: &str) -> Grant {
        Grant {
            evidence: Evidence::Token,
            id: "id".into(),
            issuer: "key".into(),
            expires: None,
            session: Some(session.into()),
            root: Some(root.into()),
            verified: true,
            subject: None,
            groups: Vec::new(),
            claims: Vec::new(),
            repository: None,
            basis: crate::identity::RepositoryBasis::Session,
            beside: None,
            tier: None,
            narrow: Narrow::default(),
            bound: Bound::default(),
            line: Line::default(),
            channel: None,
            work: Arc::default(),
        }
    }

    fn live(root: &str, seconds: i64) -> Live {
        Live {
            root: Some(root.into()),
            work: Arc::default(),
            head: None,
            pid: None,
            expires: now() + jiff::SignedDuration::from_secs(seconds),
            grant: Arc::new(grant(root, root)),
            tokens: Vec::new(),
        }
    }

    #[test]
    fn no_process_that_reports_before_the_agent_passes_for_the_agent() {
        let sessions = Sessions::default();
        let family = Arc::new(crate::identity::Family::of_this_process());
        family.command_is(1);
        sessions.agent_is("root".into(), AgentProcess::new(family, None));
        let other = std::process::id();
        sessions.agent_starts("root", Trust::Asserted, Some(other));
        assert_eq!(sessions.launched_pid("root"), Some(other));
        sessions.agent_starts("root", Trust::Verified, None);
        assert_eq!(sessions.launched_pid("root"), Some(1));
        sessions.agent_starts("root", Trust::Asserted, Some(other));
        assert_eq!(sessions.launched_pid("root"), Some(1));
    }

    #[test]
    fn a_session_that_ends_children_without_end_leaves_room_to_revoke_it() {
        let sessions = Sessions::default();
        for child in 0..MAX_ENDED_PER_PARENT {
            let child = grant(&child.to_string(), "root");
            assert!(sessions.may_end(&child));
            let name = child.own_name().unwrap();
            sessions.revoke(&name, Timestamp::MAX, now()).unwrap();
        }
        assert!(!sessions.may_end(&grant("one-more", "root")));
        assert!(sessions.may_end(&grant("other", "other-root")));
        sessions.revoke("root", Timestamp::MAX, now()).unwrap();
        assert!(sessions.is_revoked(&grant("one-more", "root")));
    }

    #[test]
    fn what_is_revoked_can_be_revoked_again_though_there_is_no_room() {
        let sessions = Sessions::default();
        let all: Vec<_> = (0..MAX_REVOKED)
            .map(|name| (name.to_string().into(), Timestamp::MAX))
            .collect();
        sessions.take_up(&all, now());
        assert!(sessions.revoke("7", Timestamp::MAX, now()).is_ok());
        let full = sessions.revoke("more", Timestamp::MAX, now());
        assert!(matches!(full, Err(RevokeError::Full)));
    }

    #[test]
    fn a_token_that_ends_earlier_does_not_free_the_name_of_its_session() {
        let sessions = Sessions::default();
        sessions.enter(&"root".into(), live("root", 600), now());
        sessions.enter(&"root".into(), live("root", 1), now());
        let later = now() + jiff::SignedDuration::from_secs(60);
        assert!(sessions.is_taken("root", "other", later));
    }

    #[test]
    fn the_children_of_one_session_do_not_take_the_room_of_others() {
        let sessions = Sessions::default();
        for child in 0..MAX_LIVE {
            sessions.enter(&child.to_string().into(), live("root", 600), now());
        }
        sessions.enter(&"other".into(), live("other", 600), now());
        assert!(sessions.live("other").is_some());
    }
}
