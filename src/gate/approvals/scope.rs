//! The scope of an approval: its duration, and the flows it allows.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;

/// The time within which a flow that was allowed once has to begin.
const ONCE_LIFETIME: Duration = Duration::from_hours(1);

/// The scope of an approval. An approval always ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// One flow, which has to begin within an hour.
    Once,
    /// The rest of the session, at most `longest-approval` of the tier.
    Session,
    /// This duration.
    For(Duration),
}

impl Scope {
    /// The duration of the approval, if the tier's maximum is `max_approval`.
    pub fn lifetime(self, max_approval: Duration) -> Duration {
        match self {
            Self::Once => ONCE_LIFETIME.min(max_approval),
            Self::Session => max_approval,
            Self::For(time) => time,
        }
    }

    /// The narrower of two scopes, for two reviewers.
    #[must_use]
    pub fn and(self, other: Self, max_approval: Duration) -> Self {
        match (self, other) {
            (Self::Once, _) | (_, Self::Once) => Self::Once,
            (one, other) if one.lifetime(max_approval) <= other.lifetime(max_approval) => one,
            (_, other) => other,
        }
    }
}

impl FromStr for Scope {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "once" => Ok(Self::Once),
            "session" => Ok(Self::Session),
            time => {
                let time: SignedDuration = time.parse().map_err(|_| HOW)?;
                let time = Duration::try_from(time).map_err(|_| HOW)?;
                if time < Duration::from_secs(1) {
                    return Err(HOW);
                }
                Ok(Self::For(time))
            }
        }
    }
}

const HOW: &str = "write `once`, `session`, or a time such as `1h`";

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Once => f.write_str("once"),
            Self::Session => f.write_str("session"),
            Self::For(time) => write!(f, "{} s", time.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_once_a_session_or_a_time_and_never_without_an_end() {
        let hour = Duration::from_hours(1);
        assert_eq!("1h".parse(), Ok(Scope::For(hour)));
        assert_eq!("once".parse(), Ok(Scope::Once));
        assert_eq!("session".parse(), Ok(Scope::Session));
        for text in ["", "always", "forever", "0s", "-1h", "1", "100 ms"] {
            assert!(text.parse::<Scope>().is_err(), "{text}");
        }
        assert_eq!(Scope::Session.lifetime(hour), hour);
        assert_eq!(
            Scope::Once.lifetime(Duration::from_mins(5)),
            Duration::from_mins(5)
        );
    }

    #[test]
    fn two_reviewers_allow_what_both_allow() {
        let max_approval = Duration::from_hours(8);
        let (hour, minute) = (
            Scope::For(Duration::from_hours(1)),
            Scope::For(Duration::from_mins(1)),
        );
        assert_eq!(hour.and(minute, max_approval), minute);
        assert_eq!(Scope::Session.and(hour, max_approval), hour);
        assert_eq!(hour.and(Scope::Once, max_approval), Scope::Once);
    }
}
