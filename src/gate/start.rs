//! Starts sessions. The claims of a new token are never wider than their evidence.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config;
use crate::identity::{
    BoundClaim, Channel, Claims, Evidence, Grant, Live, NarrowClaim, Presented, Proof,
    RepositoryBasis, RevokeError, TokenError, Tokens, Trust,
};
use crate::policy::Within;
use crate::record::{Asker, Event, QueuedEvent, RecordUnavailable, SessionFacts};
use crate::vcs::Head;

use super::{Gate, Snapshot};

/// A request for a new session. An absent value is unknown, or inherited from the parent session.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionRequest {
    /// The session id; by default that of the parent, or a new one.
    pub session: Option<String>,
    /// The agent: `claude-code` …
    pub agent: Option<String>,
    /// The clone URL, in any form.
    pub repository: Option<String>,
    /// The branch or tag.
    pub r#ref: Option<String>,
    /// The commit.
    pub commit: Option<String>,
    /// The user.
    pub user: Option<String>,
    /// Groups.
    pub groups: Vec<String>,
    /// The permission mode of the agent.
    pub permission_mode: Option<String>,
    /// The channel that the token is for.
    pub channel: Option<String>,
    /// The process of the agent, where it is on this host.
    pub pid: Option<u32>,
    /// Restrictions beyond those of the repository.
    pub narrow: NarrowClaim,
    /// The address and listener at which the token may be used.
    pub bound: BoundClaim,
    /// The lifetime in seconds; by default the maximum of tokens.
    pub lifetime: Option<u64>,
    /// The working folder, for `[[workspace]]` and for the checked-out branch.
    pub folder: Option<String>,
    /// Whether `repository` was read from a working copy: then the repository is only asserted,
    /// even if the session has evidence.
    pub working_copy: bool,
}

/// The launcher's findings about the folder that a command works in.
#[derive(Clone, Debug, Default)]
pub struct Workplace {
    /// The repository pinned to the folder, and whether the pin is evidence.
    pub pin: Option<(String, Trust)>,
    /// Other possible repositories of the folder.
    pub hints: Vec<String>,
}

/// The evidence for a new session.
#[derive(Clone, Copy, Debug)]
pub enum Ground<'a> {
    /// A grant: the new session is its child or an exchange, and no wider.
    Grant(&'a Arc<Grant>),
    /// The launcher of the command. The repository needs evidence of its own: a `[[workspace]]`, or
    /// a pin that is evidence.
    Launcher(&'a Workplace),
    /// A client of the control socket: trusted as `identity.session.local` sets it.
    Local,
}

/// A session that was started.
#[derive(Clone, Debug, Serialize)]
pub struct Started {
    /// Its id.
    pub session: String,
    /// Its token.
    pub token: String,
    /// The expiry of the token.
    pub expires: Timestamp,
    /// The tier of the session, without the effect of listeners.
    pub tier: Arc<str>,
    /// Its repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The trust in the session: `verified` or `asserted`.
    pub trust: &'static str,
    /// The trust in the repository: `verified`, `asserted` or `none`.
    pub repository_trust: &'static str,
    /// The source of the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository_basis: Option<&'static str>,
}

/// Why no session was started.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StartError {
    /// This gate only verifies tokens; it has no signing key.
    #[error("this gate signs no tokens: give it `identity.session.key`, or start sessions with it")]
    NoKey,
    /// A value of the request is invalid.
    #[error("{0}")]
    BadRequest(&'static str),
    /// The parent session or token is no longer valid.
    #[error("the session or token that this session comes from is no longer valid")]
    Ground,
    /// The start cannot be recorded.
    #[error(transparent)]
    Record(#[from] RecordUnavailable),
}

/// The result of ending a session.
#[derive(Debug)]
pub struct EndedSession {
    /// The event of the end; `None` if nothing ended. The caller waits for the event before it
    /// answers.
    pub event: Option<QueuedEvent>,
    /// Whether the revocation is in force, and will be after a restart.
    pub revoked: Result<(), RevokeError>,
}

impl From<Result<(), RevokeError>> for EndedSession {
    fn from(revoked: Result<(), RevokeError>) -> Self {
        Self {
            event: None,
            revoked,
        }
    }
}

/// Bytes of a text of a request, at most.
const MAX_TEXT: usize = 512;
/// Entries of a list of a request, at most.
const MAX_LIST: usize = 64;
/// Names of the tokens and sessions that a session comes from, at most: a token has to fit into a
/// header.
const MAX_ANCESTORS: usize = 32;
/// Bytes of the path of a folder, at most.
const MAX_FOLDER: usize = 4096;
/// Claimed repositories of a session, at most.
const MAX_CLAIMED_REPOSITORIES: usize = 8;

impl Gate {
    /// Starts a session, and returns when its start is written to the log.
    pub async fn start_session(
        &self,
        request: &SessionRequest,
        ground: Ground<'_>,
        asker: &Asker,
    ) -> Result<Started, StartError> {
        let snapshot = self.snapshot.load_full();
        let now = self.clock.now();
        sound(request)?;
        let claims = match ground {
            Ground::Grant(grant) => child(&snapshot, request, grant, now)?,
            Ground::Launcher(workplace) => launched(&snapshot, request, workplace, now)?,
            Ground::Local => local(&snapshot, request, now)?,
        };
        let root = claims.root.as_deref().unwrap_or(&claims.sid);
        let sessions = snapshot.identity.sessions();
        if matches!(ground, Ground::Grant(_)) && sessions.is_taken(&claims.sid, root, now) {
            return Err(StartError::BadRequest(
                "another caller has a session with this id",
            ));
        }
        let signer = snapshot.identity.signer().ok_or(StartError::NoKey)?;
        let token = signer.mint(&claims).ok_or(StartError::NoKey)?;
        let grant = snapshot.identity.tokens().verify(&token, now);
        let grant = grant.map_err(|why| match why {
            TokenError::Malformed => StartError::BadRequest("the claims do not fit into a token"),
            _ => StartError::Ground,
        })?;
        let caller = caller_of(&snapshot, &grant).ok_or(StartError::Ground)?;
        let facts = Box::new(session_facts(&grant, None, asker));
        let event = self.recorder.queue_event(&Event::SessionStarted(facts));
        event.written().await?;
        self.enter_session(&grant, request, now);
        let said = grant.repository_said();
        Ok(Started {
            session: claims.sid,
            expires: grant.expires.unwrap_or(now),
            tier: caller.tier,
            repository: text(grant.works_on()),
            trust: caller.trust.as_str(),
            repository_trust: said
                .as_ref()
                .map_or(Trust::None, |said| said.trust)
                .as_str(),
            repository_basis: said.map(|said| said.basis.as_str()),
            token,
        })
    }

    fn enter_session(&self, grant: &Arc<Grant>, request: &SessionRequest, now: Timestamp) {
        let Some(session) = &grant.session else {
            return;
        };
        let folder = request.folder.as_deref().map(PathBuf::from);
        let head = folder.map(|folder| Arc::new(Head::of(folder, self.readers.clone())));
        let live = Live {
            head,
            root: grant.root.clone(),
            work: grant.work.clone(),
            pid: request.pid,
            expires: grant.expires.unwrap_or(now),
            grant: grant.clone(),
            tokens: vec![grant.id.clone()],
        };
        let snapshot = self.snapshot.load();
        snapshot.identity.sessions().enter(session, live, now);
    }

    /// Revokes a token or a session by its id; the event names the asker.
    pub fn revoke_by_name(&self, name: &str, asker: &Asker) -> EndedSession {
        self.end(name, || SessionFacts {
            session: Some(name.into()),
            evidence: "none",
            trust: "none",
            detail: Some("revoked".into()),
            asker: asker.clone(),
            ..SessionFacts::default()
        })
    }

    /// Ends a session: its tokens become invalid, and its open flows end.
    pub fn end_session(&self, grant: &Grant, why: &str, asker: &Asker) -> EndedSession {
        let Some(name) = grant.own_name() else {
            return Ok(()).into();
        };
        let snapshot = self.snapshot.load();
        let sessions = snapshot.identity.sessions();
        if !sessions.may_end(grant) {
            return Err(RevokeError::Full).into();
        }
        let why: String = why.chars().take(160).collect();
        let ended = self.end(&name, || session_facts(grant, Some(why.into()), asker));
        sessions.leave(grant);
        ended
    }

    /// Revokes. The result has an event if the revocation is in force, even if it cannot be saved.
    fn end(&self, name: &str, facts: impl FnOnce() -> SessionFacts) -> EndedSession {
        let revoked = self.revoke(name);
        let holds = !matches!(revoked, Err(RevokeError::Name | RevokeError::Full));
        EndedSession {
            event: holds.then(|| self.queue_end(facts())),
            revoked,
        }
    }

    fn queue_end(&self, facts: SessionFacts) -> QueuedEvent {
        let facts = Box::new(facts);
        self.recorder.queue_event(&Event::SessionEnded(facts))
    }
}

impl Gate {
    /// Ends a session that the agent may resume: its present tokens become invalid.
    pub fn finish_session(&self, session: &str, why: &str, asker: &Asker) -> EndedSession {
        let snapshot = self.snapshot.load_full();
        let sessions = snapshot.identity.sessions();
        let Some(live) = sessions.live(session) else {
            return Ok(()).into();
        };
        if !sessions.may_end(&live.grant) {
            return Err(RevokeError::Full).into();
        }
        sessions.forget(session);
        let mut tokens = live.tokens.iter();
        let revoked = tokens.try_for_each(|token| self.revoke(token));
        let facts = session_facts(&live.grant, Some(why.into()), asker);
        EndedSession {
            event: Some(self.queue_end(facts)),
            revoked,
        }
    }
}

/// The facts of a session that starts or ends, with the asker, for the record.
pub fn session_facts(grant: &Grant, detail: Option<Box<str>>, asker: &Asker) -> SessionFacts {
    SessionFacts {
        session: grant.session.clone(),
        root: grant.root.clone().filter(|_| !grant.is_root()),
        evidence: grant.evidence.as_str(),
        trust: if grant.is_vouched() {
            "verified"
        } else {
            "asserted"
        },
        user: grant.subject.clone(),
        repository: grant.repository_said(),
        work: Some(grant.work.clone()),
        detail,
        asker: asker.clone(),
    }
}

/// Checks the texts of a request: they may come from unknown authors.
fn sound(request: &SessionRequest) -> Result<(), StartError> {
    let texts = [
        &request.session,
        &request.agent,
        &request.repository,
        &request.r#ref,
        &request.commit,
        &request.user,
        &request.permission_mode,
        &request.channel,
    ];
    let texts = texts.into_iter().flatten().chain(&request.groups);
    let mut wrong = texts.filter(|text| {
        text.is_empty() || text.len() > MAX_TEXT || text.chars().any(char::is_control)
    });
    if wrong.next().is_some() || request.groups.len() > MAX_LIST {
        return Err(StartError::BadRequest(
            "each text needs 1 to 512 bytes without control characters; at most 64 groups",
        ));
    }
    if let Some(session) = &request.session
        && Uuid::try_parse(session).is_err()
    {
        return Err(StartError::BadRequest("the session id must be a UUID"));
    }
    if let Some(repository) = &request.repository
        && crate::policy::canonical_repository(repository).is_none()
    {
        return Err(StartError::BadRequest("the repository must be a clone URL"));
    }
    if let Some(folder) = &request.folder {
        let plain = folder.len() <= MAX_FOLDER && !folder.chars().any(char::is_control);
        if !plain || !folder.starts_with('/') {
            return Err(StartError::BadRequest(
                "the folder must be an absolute path",
            ));
        }
    }
    let narrow = &request.narrow;
    if narrow.tiers.len() > MAX_LIST
        || narrow
            .within
            .as_ref()
            .is_some_and(|all| all.len() > MAX_LIST)
    {
        return Err(StartError::BadRequest(
            "a session can be narrowed to at most 64 tiers and 64 categories",
        ));
    }
    let within = narrow.within.iter().flatten().map(String::as_str);
    if Within::parse(within).is_err() {
        return Err(StartError::BadRequest(
            "a session can be narrowed to categories, or `category:action`",
        ));
    }
    Ok(())
}

/// The claims of a token that a holder of the key makes without a gate.
pub fn by_hand(
    tokens: &Tokens,
    request: &SessionRequest,
    now: Timestamp,
) -> Result<Claims, StartError> {
    sound(request)?;
    let mut claims = fresh(tokens, request, now);
    place(&mut claims, request, None, !request.working_copy);
    Ok(claims)
}

/// The claims of the session of a launched command.
fn launched(
    snapshot: &Snapshot,
    request: &SessionRequest,
    workplace: &Workplace,
    now: Timestamp,
) -> Result<Claims, StartError> {
    let mut claims = fresh(snapshot.identity.tokens(), request, now);
    let mapped = mapped(snapshot, request);
    if let (None, Some((pinned, trust))) = (&mapped, &workplace.pin) {
        claims.basis = Some(RepositoryBasis::Pin);
        claims.repository = None;
        match trust {
            Trust::Verified => claims.repository = Some(pinned.clone()),
            Trust::Asserted | Trust::None => claims.said.push(pinned.clone()),
        }
    } else {
        place(&mut claims, request, mapped, !request.working_copy);
    }
    hint(&mut claims, workplace.hints.iter().cloned())?;
    Ok(claims)
}

/// The repository that the configuration maps the folder of a session to.
fn mapped(snapshot: &Snapshot, request: &SessionRequest) -> Option<String> {
    let folder = request.folder.as_deref().map(Path::new)?;
    text(snapshot.workspaces.repository_of(folder))
}

/// Sets the repository of a new session: the repository mapped to its folder, else the named
/// repository, which is evidence if `believed`.
fn place(claims: &mut Claims, request: &SessionRequest, mapped: Option<String>, believed: bool) {
    let named = claims.repository.take();
    let (repository, basis, believed) = match mapped {
        Some(mapped) => {
            let other = named.filter(|named| !named.eq_ignore_ascii_case(&mapped));
            claims.hints.extend(other);
            (Some(mapped), RepositoryBasis::Workspace, true)
        }
        None if request.working_copy => (named, RepositoryBasis::WorkingCopy, believed),
        None => (named, RepositoryBasis::Session, believed),
    };
    claims.basis = Some(basis);
    // An asserted session is no evidence, so it may name its repository here.
    if believed || claims.asserted {
        claims.repository = repository;
    } else {
        claims.said.extend(repository);
    }
}

/// Adds other possible repositories of the folder.
fn hint(claims: &mut Claims, hints: impl IntoIterator<Item = String>) -> Result<(), StartError> {
    for hint in hints {
        if !claims.hints.contains(&hint) {
            claims.hints.push(hint);
        }
    }
    if claims.hints.len() > MAX_CLAIMED_REPOSITORIES {
        return Err(StartError::BadRequest(
            "the folder has too many possible repositories",
        ));
    }
    Ok(())
}

/// The claims of a new session, as requested.
fn fresh(tokens: &Tokens, request: &SessionRequest, now: Timestamp) -> Claims {
    let session = match &request.session {
        Some(session) => session.to_ascii_lowercase(),
        None => Uuid::now_v7().to_string(),
    };
    let repository = request.repository.as_deref();
    Claims {
        sub: request.user.clone(),
        agent: request.agent.clone(),
        repository: repository.and_then(crate::policy::canonical_repository),
        r#ref: request.r#ref.clone(),
        commit: request.commit.clone(),
        groups: request.groups.clone(),
        mode: request.permission_mode.clone(),
        channel: request.channel.clone(),
        narrow: request.narrow.clone(),
        bound: request.bound.clone(),
        ..tokens.blank(&session, now, lifetime(request))
    }
}

fn lifetime(request: &SessionRequest) -> Duration {
    request.lifetime.map_or(Duration::MAX, Duration::from_secs)
}

/// The claims of a session without evidence: asserted, unless `identity.session.local = "trust"`.
///
/// A session that exists already becomes no looser, and values without evidence do not replace
/// values with evidence.
fn local(
    snapshot: &Snapshot,
    request: &SessionRequest,
    now: Timestamp,
) -> Result<Claims, StartError> {
    let identity = &snapshot.identity;
    let mut claims = fresh(identity.tokens(), request, now);
    let trusts = identity.local() == config::Local::Trust;
    claims.asserted = !trusts;
    place(
        &mut claims,
        request,
        mapped(snapshot, request),
        trusts && !request.working_copy,
    );
    let named = claims.said.last().or(claims.repository.as_ref());
    if let Some(live) = identity.sessions().live(&claims.sid) {
        let before = &live.grant;
        if before.verified && !trusts {
            return Err(StartError::Ground);
        }
        claims.narrow = (&before.narrow.and(&narrow_of(request)?)).into();
        if named.map(String::as_str) != before.works_on().map(|known| &**known) {
            let tier = caller_of(snapshot, before).map(|caller| caller.tier.to_string());
            claims.narrow.tiers.extend(tier);
        }
    }
    if trusts {
        return Ok(claims);
    }
    if !claims.groups.is_empty() {
        return Err(StartError::BadRequest(
            "groups need evidence: exchange a token, or set `identity.session.local`",
        ));
    }
    Ok(claims)
}

/// The claims of a session that comes from another session or from an issuer's token: no wider than
/// its parent.
///
/// The child keeps the evidence of its parent. Another repository is only a claim: it can make the
/// tier stricter, never looser.
fn child(
    snapshot: &Snapshot,
    request: &SessionRequest,
    grant: &Arc<Grant>,
    now: Timestamp,
) -> Result<Claims, StartError> {
    caller_of(snapshot, grant).ok_or(StartError::Ground)?;
    let identity = &snapshot.identity;
    let mut claims = fresh(identity.tokens(), &inherited(request, grant), now);
    let expires = grant.expires.map_or(i64::MAX, Timestamp::as_second);
    if grant.evidence == Evidence::Token {
        claims.exp = claims.exp.min(expires);
    }
    // A job has no session to descend from: the session becomes its own root if this gate gives it
    // an id.
    let named = request.session.is_some() || grant.session.is_some();
    claims.root = grant
        .root
        .as_ref()
        .filter(|_| named)
        .map(ToString::to_string);
    claims.asserted = !grant.verified;
    claims.claims = pairs(&grant.claims);
    claims.tier = text(grant.tier.as_ref());
    claims.beside = text(grant.beside.as_ref());
    claims.organization = text(grant.work.organization.as_ref());
    claims.job = grant.work.job.as_ref().map(Into::into);
    claims.narrow = (&grant.narrow.and(&narrow_of(request)?)).into();
    claims.from = grant.hands_on().map(ToString::to_string).collect();
    claims.issued_ref =
        grant.work.issued_ref && request.r#ref.is_none() && request.commit.is_none();
    claims.said = Vec::new();
    claims.hints = grant.line.hints.iter().map(ToString::to_string).collect();
    place(&mut claims, request, mapped(snapshot, request), true);
    let named = claims.repository.take();
    claims.said = said(grant, named);
    if claims.said.last().map(String::as_str) == grant.line.said.last().map(|said| &**said) {
        claims.basis = Some(grant.basis);
    }
    claims.repository = text(grant.repository.as_ref());
    hint(&mut claims, [])?;
    if claims.from.len() > MAX_ANCESTORS || claims.said.len() > MAX_CLAIMED_REPOSITORIES {
        return Err(StartError::BadRequest(
            "the session comes from too many sessions, or names too many repositories",
        ));
    }
    Ok(claims)
}

/// The repositories that the session claims, besides those of its parent: each of them counts.
fn said(grant: &Grant, wished: Option<String>) -> Vec<String> {
    let mut said: Vec<_> = grant.line.said.iter().map(ToString::to_string).collect();
    if let Some(wished) = wished.filter(|it| grant.works_on().is_none_or(|known| **known != **it)) {
        said.retain(|before| *before != wished);
        said.push(wished);
    }
    said
}

/// The request, with values of the parent where values are absent or may not be changed.
fn inherited(request: &SessionRequest, grant: &Grant) -> SessionRequest {
    let or =
        |wished: &Option<String>, known: Option<&Arc<str>>| wished.clone().or_else(|| text(known));
    let work = &grant.work;
    SessionRequest {
        session: or(&request.session, grant.session.as_ref()),
        agent: or(&request.agent, work.agent.as_ref()),
        repository: or(&request.repository, grant.works_on()),
        r#ref: or(&request.r#ref, work.ref_name.as_ref()),
        commit: or(&request.commit, work.revision.as_ref()),
        permission_mode: or(&request.permission_mode, work.permission_mode.as_ref()),
        // A command cannot claim to be its agent.
        channel: match grant.channel.as_deref() {
            Some("bash") => Some("bash".to_owned()),
            _ => or(&request.channel, grant.channel.as_ref()),
        },
        user: text(grant.subject.as_ref()),
        groups: grant.groups.iter().map(ToString::to_string).collect(),
        bound: BoundClaim {
            address: grant.bound.address.or(request.bound.address),
            listener: grant.bound.listener.or(request.bound.listener),
        },
        ..request.clone()
    }
}

fn narrow_of(request: &SessionRequest) -> Result<crate::identity::Narrow, StartError> {
    request.narrow.read().ok_or(StartError::BadRequest(
        "a category that the session is narrowed to is unknown",
    ))
}

fn text(text: Option<&Arc<str>>) -> Option<String> {
    text.map(ToString::to_string)
}

fn pairs(claims: &[(Arc<str>, Arc<str>)]) -> Vec<(String, String)> {
    let pair = |(name, value): &(Arc<str>, Arc<str>)| (name.to_string(), value.to_string());
    claims.iter().map(pair).collect()
}

/// The caller that this grant identifies, without the evidence of a listener.
fn caller_of(snapshot: &Snapshot, grant: &Arc<Grant>) -> Option<crate::identity::Caller> {
    let nowhere = std::net::SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, 0));
    let presented = Presented {
        listener: Arc::new(config::Listener::at(nowhere)),
        channel: Arc::new(Channel::plain(nowhere, nowhere)),
        proof: Proof::Grant(grant.clone()),
        labels: crate::identity::Labels::default(),
    };
    snapshot.identity.caller(&presented, &snapshot.policy)
}
