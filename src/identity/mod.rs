//! Identifies callers by the evidence of listener, connection and `Proxy-Authorization`.
//!
//! Evidence, in order of strength: session token, CI OIDC token, client certificate, per-session
//! listener, static credential, username label, nothing. Tier, groups and repository come only from
//! verified evidence or from the listener. Other statements of a caller (session, channel, trace in
//! the username) are labels: recorded as `asserted`, never a grant.

mod agent_ids;
mod basic;
mod cache;
mod caller;
mod calls;
mod certificate;
mod claimed;
mod grant;
mod journal;
mod jwks;
mod kept;
mod keyring;
mod label;
mod oidc;
mod process;
mod registered;
mod repository;
mod sessions;
mod token;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Clock;
use crate::config::{self, IdentityDemand, Listener};
use crate::policy::{Facts, Policy, TierBasis};

pub use crate::policy::CallerKey;
pub use agent_ids::session_of_agent;
pub use basic::Credentials;
pub use caller::{Caller, Channel, Evidence, Presented, Proof, TierGrounds, Trust, network_of};
pub use calls::{
    Attributed, Attribution, CallBasis, Calls, EndedCall, FlowClues, NewCall, Place, Refused,
    WebAddress,
};
pub use certificate::Certificate;
pub use grant::{Bound, Grant, Job, Line, Narrow, Pids, Process, ToolCall, Work};
pub use journal::{Deciding, FetchEnd, Journal, OpenFetch, OwnFetch, Refusing};
pub use label::Labels;
pub use oidc::Reach;
pub use process::{
    AgentProcess, AgentReport, Family, HookProcess, Kin, Program, client_user, listener_users,
};
pub use repository::{RepositoryBasis, RepositorySaid};
pub use sessions::{Live, RevokeError, Sessions};
pub use token::{
    BoundClaim, Claims, JobClaim, NarrowClaim, PublicKey, Signer, TYP, TokenError, Tokens,
    new_pkcs8,
};

use basic::Credential;
use cache::Verified;
use oidc::Issuers;

/// Verified tokens that are cached.
const REMEMBERED: usize = 4096;
/// The lifetime of a token at any gate, at most: gates that share their revocations may have
/// different `longest`, and a reload may raise it.
const MAX_TOKEN_LIFETIME: Duration = Duration::from_hours(24 * 7);

/// The reason why a caller was not identified.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum IdentityError {
    /// The credential is malformed, unknown or wrong; the error does not reveal which.
    #[error("the proxy credential is not valid")]
    Invalid,
    /// The listener requires a credential.
    #[error("this listener requires a proxy credential")]
    Required,
    /// The client process does not belong to the session of the listener.
    #[error("this proxy is another session's")]
    Stranger,
    /// The token is no evidence. Contains the session it names, if a key of this gate signed it.
    #[error("{why}")]
    Token {
        /// The defect of the token.
        why: TokenError,
        /// The session of the token.
        session: Option<Arc<str>>,
    },
}

/// Identifies callers, for one generation.
#[derive(Debug)]
pub struct Identity {
    credentials: Arc<Credentials>,
    tokens: Tokens,
    issuers: Issuers,
    signer: Option<Arc<Signer>>,
    sessions: Arc<Sessions>,
    /// Verified tokens, by the whole presented credential.
    seen: Verified<(Arc<Grant>, Labels)>,
    local: config::Local,
    header_mismatch: config::HeaderMismatch,
    clock: Clock,
}

impl Identity {
    /// Builds it from `[identity]`. Caches, the key of this process and the state of sessions come
    /// from the earlier generation, if there was one.
    pub fn new(
        config: &config::Identity,
        before: Option<&Self>,
        clock: Clock,
        reach: Reach,
    ) -> Self {
        let credentials = match before {
            Some(before) if before.credentials.same_users(config) => before.credentials.clone(),
            _ => Arc::new(Credentials::new(config)),
        };
        let session = &config.session;
        let sessions = before.map_or_else(
            || Arc::new(Sessions::default()),
            |before| before.sessions.clone(),
        );
        sessions.keep_in(session.revocations.clone());
        sessions.take_up(&session.revoked, clock.now());
        let signer = signer(session, before);
        let keys = session.keys.iter().map(|key| PublicKey::new(*key));
        let own = signer.iter().map(|signer| signer.public().clone());
        Self {
            credentials,
            tokens: Tokens::new(keys.chain(own), session.audience.clone(), session.longest),
            issuers: Issuers::new(&config.issuers, before.map(|before| &before.issuers), reach),
            signer,
            sessions,
            seen: Verified::new(REMEMBERED),
            local: session.local,
            header_mismatch: session.header_mismatch,
            clock,
        }
    }

    /// The treatment of a request that names another session than its evidence.
    pub fn header_mismatch(&self) -> config::HeaderMismatch {
        self.header_mismatch
    }

    /// The state of sessions at run time.
    pub fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    /// The verifier of session tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The longest time for which evidence presented now could be presented again.
    pub fn longest_validity(&self) -> jiff::SignedDuration {
        // The clock of the signer may be ahead, the lifetime too long by the skew, and accepted for
        // the skew longer.
        let longest = self.tokens.longest().max(MAX_TOKEN_LIFETIME) + token::SKEW * 3;
        jiff::SignedDuration::try_from(longest).unwrap_or(jiff::SignedDuration::MAX)
    }

    /// The signer of session tokens, if this gate has a key.
    pub fn signer(&self) -> Option<&Arc<Signer>> {
        self.signer.as_ref()
    }

    /// The trust in a session that was started without evidence.
    pub fn local(&self) -> config::Local {
        self.local
    }

    /// Verifies the credential of a caller. A presented credential must be valid, whether or not
    /// the listener requires one.
    pub async fn present(
        &self,
        listener: &Arc<Listener>,
        channel: &Arc<Channel>,
        authorization: Option<&[u8]>,
    ) -> Result<Presented, IdentityError> {
        let presented = |proof, labels| Presented {
            listener: listener.clone(),
            channel: channel.clone(),
            proof,
            labels,
        };
        if channel.kin == Kin::Foreign {
            return Err(IdentityError::Stranger);
        }
        // A client whose process is not visible has to present the session's token.
        let unseen = channel.kin == Kin::Unknown;
        let known = !unseen && (channel.grant.is_some() || channel.certificate.is_some());
        self.still_granted(channel)?;
        let Some(value) = authorization else {
            if unseen || listener.identity == IdentityDemand::Required && !known {
                return Err(IdentityError::Required);
            }
            return Ok(presented(Proof::None, Labels::default()));
        };
        let mark = self.seen.mark(&[value]);
        if let Some((grant, labels)) = self.seen.get(mark) {
            self.holds(&grant, channel)?;
            belongs(&grant, &labels, channel)?;
            return Ok(presented(Proof::Grant(grant), labels));
        }
        let credential = basic::read(value).ok_or(IdentityError::Invalid)?;
        let (user, labels) = label::split(&credential.username);
        if credential.is_token() {
            // Boxed, as below: most connections present no credential, or one that was seen.
            let grant = Box::pin(self.token(&credential, channel)).await?;
            belongs(&grant, &labels, channel)?;
            // An issuer may withdraw its keys: its tokens are cached together with the keys.
            if grant.evidence == Evidence::Token {
                self.seen.put(mark, (grant.clone(), labels.clone()));
            }
            return Ok(presented(Proof::Grant(grant), labels));
        }
        if unseen {
            return Err(IdentityError::Invalid);
        }
        // Without configured users, a username can only be a label: agents put their session there.
        let optional = listener.identity == IdentityDemand::Optional || known;
        if self.credentials.is_empty() && optional {
            return Ok(presented(Proof::None, labels));
        }
        let user = Box::pin(self.credentials.verify(user, credential.secret)).await;
        let (name, secret) = user.ok_or(IdentityError::Invalid)?;
        Ok(presented(Proof::User(name, secret), labels))
    }

    /// The grant of a per-session listener counts while the grant is valid.
    fn still_granted(&self, channel: &Channel) -> Result<(), IdentityError> {
        let Some(grant) = &channel.grant else {
            return Ok(());
        };
        self.holds(grant, channel)
    }

    /// The grant of a session token, without checks of address and listener.
    pub fn session(&self, token: &str) -> Result<Arc<Grant>, TokenError> {
        let grant = self.tokens.verify(token, self.clock.now())?;
        if self.sessions.is_revoked(&grant) {
            return Err(TokenError::Revoked);
        }
        Ok(grant)
    }

    /// The grant of a session token or an issuer's token, without checks of address and listener.
    pub async fn granted(&self, token: &str) -> Result<Arc<Grant>, TokenError> {
        if token::is_session_token(token) {
            return self.session(token);
        }
        let grant = self.issuers.verify(token, self.clock.now()).await?;
        if self.sessions.is_revoked(&grant) {
            return Err(TokenError::Revoked);
        }
        Ok(grant)
    }

    async fn token(
        &self,
        credential: &Credential,
        channel: &Channel,
    ) -> Result<Arc<Grant>, IdentityError> {
        let no_session = |why| IdentityError::Token { why, session: None };
        let text = credential.token().ok_or(IdentityError::Invalid)?;
        let now = self.clock.now();
        let verified = if token::is_session_token(text) {
            self.tokens.verify(text, now)
        } else {
            self.issuers.verify(text, now).await
        };
        let grant = verified.map_err(no_session)?;
        self.holds(&grant, channel)?;
        Ok(grant)
    }

    /// Whether a verified grant may be used at this connection, and now.
    fn holds(&self, grant: &Grant, channel: &Channel) -> Result<(), IdentityError> {
        let refused = |why| {
            Err(IdentityError::Token {
                why,
                session: grant.session.clone(),
            })
        };
        if let Err(why) = token::in_time(grant, self.clock.now()) {
            return refused(why);
        }
        if self.sessions.is_revoked(grant) {
            return refused(TokenError::Revoked);
        }
        let bound = &grant.bound;
        let peer = channel.peer.ip();
        if bound.address.is_some_and(|net| !net.contains(&peer))
            || bound.listener.is_some_and(|local| local != channel.local)
        {
            return refused(TokenError::Elsewhere);
        }
        Ok(())
    }

    /// Builds the caller from its evidence, under this generation's policy. `None` if the evidence
    /// is no longer valid: its user, key or session was removed.
    pub fn caller(&self, presented: &Presented, policy: &Policy) -> Option<Caller> {
        let listener = &presented.listener;
        if !self.stands_by(presented) {
            return None;
        }
        let user = match &presented.proof {
            Proof::User(name, secret) => Some(
                self.credentials
                    .user(name)
                    .filter(|user| user.secret == *secret)?,
            ),
            Proof::Grant(_) | Proof::None => None,
        };
        let certificate = presented.channel.certificate.as_ref();
        let grants: Vec<_> = presented.grants().collect();
        let first = |of: fn(&Grant) -> Option<&Arc<str>>| grants.iter().find_map(|it| of(it));
        // A repository that only the session claims can make it stricter, never looser.
        let shown = |basis| move |name: &Arc<str>| RepositorySaid::verified(name, basis);
        let granted = grants.iter().find_map(|it| {
            let name = it.repository.as_ref().filter(|_| it.verified)?;
            Some(RepositorySaid::verified(name, it.basis))
        });
        let by_user = user.and_then(|user| user.repository.as_ref());
        let by_listener = listener.repository.as_ref();
        let verified = granted
            .or_else(|| by_user.map(shown(RepositoryBasis::User)))
            .or_else(|| by_listener.map(shown(RepositoryBasis::Listener)));
        let repository = verified.as_ref().map(|said| &said.name);
        let subject = first(|it| it.subject.as_ref().filter(|_| it.verified))
            .or(certificate.and_then(|it| it.subject.as_ref()))
            .or(user.map(|user| &user.name))
            .or(listener.user.as_ref());
        let groups: Vec<Arc<str>> = listener
            .groups
            .iter()
            .chain(user.map(|user| user.groups.as_slice()).unwrap_or_default())
            .chain(grants.iter().flat_map(|grant| &grant.groups))
            .cloned()
            .collect();
        let claims: Vec<_> = grants.iter().flat_map(|it| &it.claims).cloned().collect();
        let mut narrow = Narrow::default();
        for grant in &grants {
            narrow = narrow.and(&grant.narrow);
        }
        let issued = first(|it| it.tier.as_ref().filter(|_| it.verified)).map(|tier| &**tier);
        let mut who = policy.who(&Facts {
            subject: subject.map_or("", |subject| subject),
            claims: &claims,
            sans: certificate.map(|it| it.sans.as_slice()).unwrap_or_default(),
            groups: &groups,
            repository,
            repository_tier: issued,
            listener_tier: listener.tier.as_deref(),
            narrow: &narrow.tiers,
            within: narrow.within.as_ref(),
        });
        let said: Vec<_> = grants.iter().flat_map(|grant| grant.said()).collect();
        let beside = grants.iter().filter_map(|grant| grant.beside.as_ref());
        let claimed: Vec<_> = said.iter().copied().chain(beside).cloned().collect();
        for repository in &claimed {
            policy.tighten(&mut who, repository, &[]);
        }
        let hints = grants.iter().flat_map(|grant| &grant.line.hints);
        let hinted: Box<[_]> = hints.cloned().collect();
        for hint in &hinted {
            policy.tighten(&mut who, hint, &[TierBasis::Repository]);
        }
        let works_on = grants.iter().find_map(|it| it.last_said());
        let own_word = grants.iter().find_map(|it| it.repository_said());
        let shown = verified.as_ref().map(|said| said.name.clone());
        let issued = issued.map(Arc::from);
        let repository = works_on.or(verified).or(own_word);
        let given = policy.strictest(listener.tier.iter().chain(&narrow.tiers));
        let grounds = TierGrounds {
            given: given.filter(|it| **it != **policy.tier_name(who.tier) || !who.is_given()),
            issued,
            verified: shown.filter(|it| repository.as_ref().is_some_and(|on| on.name != *it)),
            claimed: (!is_shown_by(repository.as_ref(), &claimed)).then(|| claimed.into()),
            hinted,
        };
        let session = first(|it| it.session.as_ref());
        let root = first(|it| it.root.as_ref());
        let shown = grants.iter().find(|it| it.session.is_some());
        who.session = shown.and_then(|it| it.session_evidence());
        let live = session.and_then(|session| self.sessions.live(session));
        let live = live.filter(|live| live.root.as_ref() == root);
        Some(Caller {
            subject: subject.cloned(),
            tier: policy.tier_name(who.tier).clone(),
            groups: policy.group_names(who.groups).cloned().collect(),
            repository,
            who,
            beside: None,
            grounds: (grounds != TierGrounds::default()).then(|| Arc::new(grounds)),
            channel: (presented.labels.channel.as_ref())
                .or(first(|it| it.channel.as_ref()))
                .cloned(),
            evidence: evidence(presented),
            trust: trust(presented),
            head: live.as_ref().and_then(|live| live.head.clone()),
            work: live
                .map(|live| live.work)
                .or(grants.first().map(|grant| grant.work.clone()))
                .unwrap_or_default(),
            process: presented.channel.process.clone(),
            root: root.filter(|root| session != Some(*root)).cloned(),
            session: session
                .or(presented.labels.session.as_ref())
                .or(presented.channel.agent_session.as_ref())
                .cloned(),
            labels: presented.labels.clone(),
        })
    }

    /// Whether no grant of the caller was revoked since it was presented.
    pub fn stands_by(&self, presented: &Presented) -> bool {
        presented.grants().all(|grant| self.stands(grant))
    }

    /// Whether a grant is still valid: its key is known, and no part of it was revoked. An open flow
    /// does not end when the grant expires.
    fn stands(&self, grant: &Grant) -> bool {
        let known = match grant.evidence {
            Evidence::Oidc => self.issuers.knows(&grant.issuer),
            Evidence::Token => self.tokens.knows(&grant.issuer),
            _ => true,
        };
        known && !self.sessions.is_revoked(grant)
    }

    /// Whether evidence that was verified at `epoch` and expires at `until` is still valid: nothing
    /// was revoked since, and it has not expired.
    pub fn still_holds(&self, epoch: u64, until: Option<Timestamp>) -> bool {
        self.sessions.epoch() == epoch && until.is_none_or(|until| self.clock.now() < until)
    }
}

/// Checks that a token belongs to the session in its username, and to the session of its listener.
fn belongs(grant: &Grant, labels: &Labels, channel: &Channel) -> Result<(), IdentityError> {
    let named = labels.session.as_ref();
    let others = named.is_some_and(|named| grant.session.as_ref().is_some_and(|it| it != named));
    let host = channel.grant.as_ref();
    let strangers = host.is_some_and(|host| host.root != grant.root);
    if others || strangers {
        return Err(IdentityError::Token {
            why: TokenError::Foreign,
            session: grant.session.clone(),
        });
    }
    Ok(())
}

/// Whether the recorded repository covers all claims of the caller.
fn is_shown_by(named: Option<&RepositorySaid>, claimed: &[Arc<str>]) -> bool {
    let asserted = named.filter(|it| it.trust == Trust::Asserted);
    match asserted {
        Some(said) => claimed == std::slice::from_ref(&said.name),
        None => claimed.is_empty(),
    }
}

fn evidence(presented: &Presented) -> Evidence {
    let listener = &presented.listener;
    let channel = &presented.channel;
    match &presented.proof {
        Proof::Grant(grant) => grant.evidence,
        _ if channel.certificate.is_some() => Evidence::Certificate,
        _ if channel.grant.is_some() => Evidence::Listener,
        Proof::User(..) => Evidence::Username,
        Proof::None if presented.labels.session.is_some() => Evidence::Username,
        Proof::None if channel.agent_session.is_some() => Evidence::Process,
        Proof::None
            if listener.user.is_some()
                || listener.repository.is_some()
                || listener.tier.is_some() =>
        {
            Evidence::Listener
        }
        Proof::None => Evidence::None,
    }
}

/// The trust in the session: one that only a label names is asserted, whatever other evidence there
/// is. So is the name of a child, because the child chose that name.
fn trust(presented: &Presented) -> Trust {
    let mut sessions = presented.grants().filter(|grant| grant.session.is_some());
    match (sessions.next(), &presented.labels.session) {
        (Some(grant), _) if grant.is_vouched() => Trust::Verified,
        (Some(_), _) | (None, Some(_)) => Trust::Asserted,
        (None, None) if evidence(presented) == Evidence::Process => Trust::Asserted,
        (None, None) if evidence(presented) == Evidence::None => Trust::None,
        (None, None) => Trust::Verified,
    }
}

/// The configured key; without one, a key of this process, unless other public keys are configured:
/// then another signer makes the tokens.
fn signer(session: &config::Session, before: Option<&Identity>) -> Option<Arc<Signer>> {
    if let Some(key) = &session.key {
        return Signer::from_pkcs8(key.der()).map(Arc::new);
    }
    if !session.keys.is_empty() {
        return None;
    }
    let before = before.and_then(|before| before.signer.clone());
    before
        .filter(|signer| signer.is_ephemeral())
        .or_else(|| Signer::ephemeral().map(Arc::new))
}

#[cfg(test)]
mod tests;
