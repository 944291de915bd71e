//! Sessions at run time: which were revoked, and what those that live are doing.
//!
//! One for the whole run: generations come and go, what was revoked stays so.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::calls::Calls;
use super::grant::{Grant, Work};

/// Revocations that are kept: more than anybody revokes while tokens live.
const MOST_REVOKED: usize = 100_000;
/// Sessions whose work is known.
const MOST_LIVE: usize = 10_000;
/// Tokens of one session that are ended with it.
const MOST_TOKENS: usize = 256;

/// What is known of sessions at run time.
#[derive(Debug, Default)]
pub struct Sessions {
    known: Mutex<Known>,
    calls: Calls,
    /// Grows with every revocation: what was looked up before is looked up again.
    epoch: AtomicU64,
    /// Where revocations outlive this process.
    file: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Known {
    /// Until when each name could still be presented.
    revoked: HashMap<Arc<str>, Timestamp>,
    live: HashMap<Arc<str>, Live>,
}

/// A session that was started and has not ended.
#[derive(Clone, Debug)]
pub struct Live {
    /// The session that it descends from, or is.
    pub root: Option<Arc<str>>,
    /// What it works on now: hooks tell, tokens are older.
    pub work: Arc<Work>,
    /// The process of the agent, where it is on this host.
    pub pid: Option<u32>,
    /// When its token expires.
    pub expires: Timestamp,
    /// What it was first known by.
    pub grant: Arc<Grant>,
    /// The ids of its tokens, the newest last.
    pub tokens: Vec<Arc<str>>,
}

/// A revocation that could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// The file cannot be written: it would be forgotten at the next start.
    #[error("the revocation cannot be kept: {0}")]
    File(#[from] io::Error),
    /// There are too many.
    #[error("more than {MOST_REVOKED} revocations are in force")]
    Full,
    /// It names nothing.
    #[error("this names no session or token: at most 253 printable characters without blanks")]
    Name,
}

impl Sessions {
    /// None; revocations are kept in `file`, where one is given.
    pub fn new(file: Option<PathBuf>) -> Self {
        Self {
            file,
            ..Self::default()
        }
    }

    /// How many revocations there were: what was verified at an earlier count is looked at again.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Takes up revocations that a file says.
    pub fn take_up(&self, revoked: &[(Arc<str>, Timestamp)], now: Timestamp) {
        let mut known = self.lock();
        let before = known.revoked.len();
        let live = revoked.iter().filter(|(_, until)| *until > now);
        for (name, until) in live.take(MOST_REVOKED) {
            let until = known.revoked.get(name).max(Some(until)).copied();
            known
                .revoked
                .insert(name.clone(), until.unwrap_or(Timestamp::MAX));
        }
        if known.revoked.len() != before {
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Revokes a token by its id, or a session and its children by theirs, for as long as a token
    /// of it could hold. In force at once; the caller ends the open flows.
    pub fn revoke(&self, name: &str, until: Timestamp, now: Timestamp) -> Result<(), RevokeError> {
        let sound = name.bytes().all(|byte| byte.is_ascii_graphic());
        if name.is_empty() || name.len() > 253 || !sound {
            return Err(RevokeError::Name);
        }
        {
            let mut known = self.lock();
            known.revoked.retain(|_, until| *until > now);
            if known.revoked.len() >= MOST_REVOKED {
                return Err(RevokeError::Full);
            }
            known.revoked.insert(name.into(), until);
            known.live.remove(name);
        }
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.keep(name, until)?;
        Ok(())
    }

    /// One line a revocation: `UNTIL NAME`.
    fn keep(&self, name: &str, until: Timestamp) -> io::Result<()> {
        let Some(path) = &self.file else {
            return Ok(());
        };
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(format!("{until} {name}\n").as_bytes())?;
        file.sync_data()
    }

    /// Whether a grant, its session or the one it descends from was revoked.
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
        names
            .into_iter()
            .flatten()
            .any(|name| known.revoked.contains_key(name))
    }

    /// Whether a session of that name lives that comes from elsewhere.
    pub fn is_taken(&self, session: &str, root: &str, now: Timestamp) -> bool {
        let known = self.lock();
        let live = known.live.get(session).filter(|live| live.expires > now);
        live.is_some_and(|live| live.root.as_deref() != Some(root))
    }

    /// Remembers a session that started, or what it works on now. What it was first known by stays,
    /// for as long as that holds.
    pub fn enter(&self, session: &Arc<str>, mut live: Live, now: Timestamp) {
        let mut known = self.lock();
        if let Some(before) = known.live.get(session) {
            let mut tokens = before.tokens.clone();
            tokens.append(&mut live.tokens);
            live.tokens = tokens.split_off(tokens.len().saturating_sub(MOST_TOKENS));
            live.pid = live.pid.or(before.pid);
            if before.grant.expires.is_none_or(|until| until > now) {
                live.grant = before.grant.clone();
            }
        }
        if known.live.len() >= MOST_LIVE {
            known.live.retain(|_, live| live.expires > now);
        }
        if known.live.len() < MOST_LIVE || known.live.contains_key(session) {
            known.live.insert(session.clone(), live);
        }
    }

    /// Forgets a session that ended; what it was.
    pub fn leave(&self, session: &str) -> Option<Live> {
        self.calls.forget(session);
        self.lock().live.remove(session)
    }

    /// What its hooks say that a session works on now.
    pub fn works(&self, session: &str, work: Arc<Work>) {
        if let Some(live) = self.lock().live.get_mut(session) {
            live.work = work;
        }
    }

    /// The tool calls of the sessions.
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// What a session is doing.
    pub fn live(&self, session: &str) -> Option<Live> {
        self.lock().live.get(session).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
