//! Refuses package versions younger than a deny rule requires (`unless.min-age`).
//!
//! The gate asks the registry before it forwards the request. The query is a flow of its own
//! ([`index`](super::index)), and is sent only if the caller may read there too. A version of
//! unknown age counts as too young.

use std::time::Duration;

use jiff::Timestamp;

use crate::gate::{Asked, Snapshot};
use crate::http::http1::RequestHead;
use crate::name::Url;
use crate::policy::{Decision, Element, Listing, Mode, Named, Published, RequestFacts, Verdict};
use crate::proxy::flow::{Flow, Known};
use crate::proxy::refusal::{Code, Refusal};

use super::index::{Index, Untold};

const HOUR: u64 = 3600;
/// The letters of a package's name and version that a refusal repeats, at most.
const NAMED: usize = 64;

/// A request that the policy allows unless the package is too young.
pub(in crate::proxy) struct Request<'r> {
    pub(in crate::proxy) known: &'r Known,
    pub(in crate::proxy) url: &'r Url,
    pub(in crate::proxy) head: &'r RequestHead,
    pub(in crate::proxy) decision: &'r Decision,
}

/// The reason of a refusal, in words.
type Young = String;

impl Request<'_> {
    /// Refuses a version that is too young, or of unknown age.
    pub(in crate::proxy) async fn check(
        &self,
        flow: &mut Flow,
        asked: &Asked,
    ) -> Result<(), Refusal> {
        let (Some(age), Asked::Request { request_facts, .. }) = (&self.decision.min_age, asked)
        else {
            return Ok(());
        };
        let Some(request_facts) = request_facts.as_deref() else {
            return Ok(());
        };
        let (published, young) = Box::pin(self.young(flow, request_facts, age.least)).await;
        if published.is_some() {
            flow.facts.again().published = published;
        }
        match young {
            None => Ok(()),
            Some(why) => {
                let rule = &age.rule.name;
                let mut why = format!("{why}; rule {rule} asks {}", exactly(age.least));
                if let Some(reason) = &age.why {
                    why = format!("{why}: {reason}");
                }
                refuse(flow, self.decision, &age.rule, &why)
            }
        }
    }

    /// The publication time of the version, if known, and the reason of a refusal.
    async fn young(
        &self,
        flow: &Flow,
        request_facts: &RequestFacts,
        least: Duration,
    ) -> (Option<Timestamp>, Option<Young>) {
        let snapshot = flow.snapshot();
        let (target, path) = (&self.url.target, &self.url.path);
        let listing = match snapshot.policy.published(request_facts, target, path) {
            Published::NoVersion => return (None, None),
            Published::Untold(why) => return (None, Some(why.to_owned())),
            Published::At(listing) => listing,
        };
        let name = named(request_facts);
        let told = self
            .published(flow, &snapshot, request_facts, &listing)
            .await;
        let published = match told {
            Ok(published) => published,
            Err(why) => {
                let why = format!("the age of {name} is not known: {why}");
                return (None, Some(why));
            }
        };
        let age = flow.gate.clock.now().duration_since(published);
        let young = match Duration::try_from(age) {
            Err(_) => Some(format!("{name} is of a day that is still to come")),
            Ok(age) if age < least => Some(format!("{name} was published {} ago", about(age))),
            Ok(_) => None,
        };
        (Some(published), young)
    }

    /// The publication time of a version. The registry is asked without the caller's credential
    /// first. Only the host of the request itself is then asked with the credential, if it requires
    /// one.
    async fn published(
        &self,
        flow: &Flow,
        snapshot: &Snapshot,
        request_facts: &RequestFacts,
        listing: &Listing,
    ) -> Result<Timestamp, String> {
        let mut fields = self.head.fields.iter();
        let own = listing.target == self.url.target;
        let authorization = fields
            .find(|field| own && field.name.eq_ignore_ascii_case(b"authorization"))
            .map(|field| field.value);
        let index = |authorization: Option<&'_ [u8]>| RequestFacts {
            credentials: match authorization {
                Some(_) => request_facts.credentials.clone(),
                None => Vec::new(),
            },
            ..snapshot.policy.read(&listing.target, "GET", &listing.path)
        };
        let anonymous = Index {
            known: self.known,
            listing,
            tls: self.url.tls,
            request_facts: index(None),
            authorization: None,
        };
        let longest = snapshot.limits.connect_timeout;
        if authorization.is_none() || anonymous.would_pass(flow) {
            let key = key(listing, &anonymous.decide(snapshot));
            if let Some(told) = snapshot.ages.get(&key) {
                return Ok(told);
            }
            match anonymous.ask(flow, snapshot, longest).await {
                Ok(told) => {
                    snapshot.ages.put(&key, told);
                    return Ok(told);
                }
                Err(Untold::NotToAnyone(_)) if authorization.is_some() => {}
                Err(untold) => return Err(untold.to_string()),
            }
        }
        let with_credential = Index {
            request_facts: index(authorization),
            authorization,
            ..anonymous
        };
        // An answer that needs a credential is not cached.
        let told = with_credential.ask(flow, snapshot, longest).await;
        told.map_err(|untold| untold.to_string())
    }
}

/// Refuses the request by a rule; where the tier observes, only records the refusal.
fn refuse(flow: &mut Flow, decision: &Decision, rule: &Named, why: &str) -> Result<(), Refusal> {
    flow.facts.rule = Some(rule.name.clone());
    flow.facts.rule_location = Some(rule.location.clone());
    let why: String = why.chars().take(160).collect();
    if decision.mode == Mode::Observe {
        flow.facts.would = Some(Verdict::Deny);
        flow.facts.reason = Code::PackageTooNew.as_str();
        flow.facts.detail = Some(why.into());
        return Ok(());
    }
    Err(Refusal::because(Code::PackageTooNew, why))
}

/// The cache key of a version at its upstream: unambiguous.
fn key(listing: &Listing, decision: &Decision) -> String {
    let place = &listing.place;
    let by = |element: &Element| format!("{} {}", element.key, element.value);
    format!(
        "{} {} {} {} {}",
        decision.upstream.as_deref().unwrap_or_default(),
        listing.target,
        listing.path.as_str(),
        place.keys.join("/"),
        place.element.as_ref().map(by).unwrap_or_default()
    )
}

/// `left-pad 1.3.1`, reduced to letters that are safe in any text.
fn named(request_facts: &RequestFacts) -> String {
    let package = request_facts.package.as_deref().unwrap_or_default();
    let version = request_facts.version.as_deref().unwrap_or_default();
    let plain = |letter: char| letter.is_ascii_graphic() || letter == ' ';
    let text = format!("{package} {version}");
    text.chars().filter(|it| plain(*it)).take(NAMED).collect()
}

/// `7 days`, `36 hours`: the age that a rule requires, in whole hours.
fn exactly(age: Duration) -> String {
    let hours = age.as_secs() / HOUR;
    match (hours / 24, hours % 24) {
        (days @ 2.., 0) => format!("{days} days"),
        _ => format!("{hours} hours"),
    }
}

/// `2 days`, `5 hours`, `less than an hour`: the age of a version, rounded down.
fn about(age: Duration) -> String {
    let hours = age.as_secs() / HOUR;
    match (hours / 24, hours) {
        (days @ 2.., _) => format!("{days} days"),
        (_, 0) => "less than an hour".into(),
        (_, 1) => "1 hour".into(),
        (_, hours) => format!("{hours} hours"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_said_in_whole_hours_or_days() {
        let hours = |hours| Duration::from_secs(hours * HOUR);
        assert_eq!(exactly(hours(36)), "36 hours");
        assert_eq!(exactly(hours(48)), "2 days");
        assert_eq!(exactly(hours(50)), "50 hours");
        assert_eq!(about(Duration::from_secs(3599)), "less than an hour");
        assert_eq!(about(hours(1)), "1 hour");
        assert_eq!(about(hours(47)), "47 hours");
        assert_eq!(about(hours(167)), "6 days");
    }

    #[test]
    fn what_a_request_names_is_said_in_plain_letters_and_not_at_length() {
        let request_facts = RequestFacts {
            package: Some(format!("a\r\n\u{202e}{}", "b".repeat(200)).into()),
            version: Some("1".into()),
            ..RequestFacts::default()
        };
        let name = named(&request_facts);
        assert_eq!(name.len(), NAMED);
        assert!(name.starts_with("abb"), "{name}");
    }
}
