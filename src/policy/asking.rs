//! The reviewers of a tier and the bounds of approvals: `reviewers` and related keys in
//! `[tier.NAME]`.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::pattern::{Kind, Pattern};

/// Default maximum duration of an approval.
const DEFAULT_MAX_APPROVAL: Duration = Duration::from_hours(8);
/// The users of system services, root among them; people have higher ids.
pub const LAST_SYSTEM_UID: u32 = 999;
/// The user ids that systemd uses for `DynamicUser=`.
const DYNAMIC_UIDS: RangeInclusive<u32> = 61_184..=65_519;
/// The user ids that container images use for a service (`nonroot`, `nobody`).
const IMAGE_UIDS: RangeInclusive<u32> = 65_532..=65_534;

/// Whether a user is root or a service's; other users are people, whose processes may be agents.
pub fn is_service_user(uid: u32) -> bool {
    uid <= LAST_SYSTEM_UID || DYNAMIC_UIDS.contains(&uid) || IMAGE_UIDS.contains(&uid)
}

/// The reviewers of a tier and the bounds of approvals.
#[derive(Debug)]
pub struct Asking {
    /// `reviewers`: principals that may settle. Empty: asks are refused and file no request.
    pub(super) reviewers: Box<[Reviewer]>,
    /// `approvals`: the number of reviewers who have to allow, 1 or 2.
    pub approvals: usize,
    /// `not-oneself`: whether a reviewer may not settle a request of its own user.
    pub not_oneself: bool,
    /// `longest-approval`: the maximum duration of an approval.
    pub max_approval: Duration,
    /// `hold`: how long a flow waits for an answer before it is refused; zero: not at all.
    pub hold: Duration,
    /// `first-reader`: the program that reads each request before a person, and its arguments.
    pub first_reader: Option<Arc<[String]>>,
}

impl Default for Asking {
    fn default() -> Self {
        Self {
            reviewers: Box::default(),
            approvals: 1,
            not_oneself: true,
            max_approval: DEFAULT_MAX_APPROVAL,
            hold: Duration::ZERO,
            first_reader: None,
        }
    }
}

/// One entry of `reviewers`.
#[derive(Debug)]
pub(super) struct Reviewer {
    /// The entry as written: `uid:0`, `subject:sec@acme.example`, `group:security`.
    pub(super) written: Arc<str>,
    pub(super) kind: ReviewerKind,
}

#[derive(Debug)]
pub(super) enum ReviewerKind {
    /// The user of a process at a Unix socket.
    Uid(u32),
    /// The verified name of a certificate or of an issuer's token.
    Subject(Pattern),
    /// A `[group.NAME]`, or a group in an issuer's token.
    Group(Arc<str>),
}

impl Asking {
    /// Whether there is any reviewer.
    pub fn has_reviewers(&self) -> bool {
        !self.reviewers.is_empty()
    }
}

impl Reviewer {
    /// Parses one entry; the error is the fault.
    pub(super) fn parse(written: &str) -> Result<Self, &'static str> {
        let (kind, value) = written.split_once(':').ok_or("no kind in front")?;
        let kind = match kind {
            "uid" => ReviewerKind::Uid(value.parse().map_err(|_| "not the number of a user")?),
            "subject" => {
                let pattern = Pattern::parse(value, Kind::Text).map_err(|_| "not a pattern")?;
                ReviewerKind::Subject(pattern)
            }
            "group" if !value.is_empty() => ReviewerKind::Group(value.into()),
            "group" => return Err("no name of a group"),
            _ => return Err("not a kind of reviewer"),
        };
        Ok(Self {
            written: written.into(),
            kind,
        })
    }
}
