//! How old a version of a package is that a request asks for, where a rule says how old it has to be.
//!
//! The registry itself is asked, before anything of the request goes on: as the caller who asks, so
//! only where the caller may read there too. What is not told is too young.

use std::time::Duration;

use jiff::Timestamp;

use crate::content;
use crate::dial::{Errand, Purpose, Sought};
use crate::gate::{Asked, Snapshot};
use crate::name::{Target, Url};
use crate::policy::{
    Attempt, Decision, Deed, Element, Inspect, Listing, Mode, Published, Query, Verdict,
};

use super::flow::{Flow, Known};
use super::http1::RequestHead;
use super::refusal::{Code, Refusal};
use super::route::tls_port;

/// The longest document, in bytes: those of some packages of npm are that long.
const LONGEST: usize = 16 * 1024 * 1024;
const HOUR: u64 = 3600;
/// As much of a package's name and version as is repeated, in letters.
const NAMED: usize = 64;

/// A request that a rule lets pass for what is old enough.
pub(super) struct Request<'r> {
    pub(super) known: &'r Known,
    pub(super) url: &'r Url,
    pub(super) head: &'r RequestHead,
    pub(super) decision: &'r Decision,
}

/// Why a version may not pass, in words.
type Young = String;

/// A tunnel that nobody looks into cannot be let pass by a rule that asks how old things are.
pub(super) fn of_tunnel(flow: &mut Flow, decision: &Decision) -> Result<(), Refusal> {
    if decision.min_age.is_none() || decision.inspect == Inspect::Yes {
        return Ok(());
    }
    let why = "how old a package is cannot be seen in a tunnel: the rule needs `inspect = true`";
    refuse(flow, decision, why)
}

impl Request<'_> {
    /// Refuses what is too young, or of no known age.
    pub(super) async fn check(&self, flow: &mut Flow, asked: &Asked) -> Result<(), Refusal> {
        let (Some(least), Asked::Request { deed, .. }) = (self.decision.min_age, asked) else {
            return Ok(());
        };
        let Some(deed) = deed.as_deref() else {
            return Ok(());
        };
        match self.young(flow, deed, least).await {
            None => Ok(()),
            Some(why) => {
                let rule = &self.decision.rule.name;
                let why = format!("{why}; rule {rule} asks {}", exactly(least));
                refuse(flow, self.decision, &why)
            }
        }
    }

    async fn young(&self, flow: &Flow, deed: &Deed, least: Duration) -> Option<Young> {
        let snapshot = flow.snapshot();
        let (target, path) = (&self.url.target, &self.url.path);
        let listing = match snapshot.policy.published(deed, target, path) {
            Published::NoVersion => return None,
            Published::Untold(why) => return Some(why.to_owned()),
            Published::At(listing) => listing,
        };
        let name = named(deed);
        let told = self.published(flow, &snapshot, deed, &listing).await;
        let published = match told {
            Ok(published) => published,
            Err(why) => return Some(format!("nobody tells how old {name} is: {why}")),
        };
        let age = flow.gate.clock.now().duration_since(published);
        match Duration::try_from(age) {
            Err(_) => Some(format!("{name} is of a day that is still to come")),
            Ok(age) if age < least => Some(format!("{name} was published {} ago", about(age))),
            Ok(_) => None,
        }
    }

    /// When a version was published.
    async fn published(
        &self,
        flow: &Flow,
        snapshot: &Snapshot,
        deed: &Deed,
        listing: &Listing,
    ) -> Result<Timestamp, String> {
        let mut fields = self.head.fields.iter();
        let own = listing.target == self.url.target;
        // What its host would be told by the request itself.
        let authorization = fields
            .find(|field| own && field.name.eq_ignore_ascii_case(b"authorization"))
            .map(|field| field.value);
        let index = Index {
            listing,
            tls: self.url.tls,
            deed: Deed {
                credentials: match authorization {
                    Some(_) => deed.credentials.clone(),
                    None => Vec::new(),
                },
                ..snapshot.policy.read(&listing.target, "GET", &listing.path)
            },
            authorization,
        };
        let decision = index.decide(snapshot, self.known)?;
        let key = key(listing, &decision);
        // What only some may know is asked anew.
        let shared = authorization.is_none();
        if let Some(told) = snapshot.ages.get(&key).filter(|_| shared) {
            return Ok(told);
        }
        let asking = index.ask(flow, snapshot, &decision);
        let told = tokio::time::timeout(snapshot.limits.connect_timeout, asking).await;
        let told = told.map_err(|_| "the registry does not answer in time")??;
        if shared {
            snapshot.ages.put(&key, told);
        }
        Ok(told)
    }
}

/// The document of a registry, as it is asked for.
struct Index<'a> {
    listing: &'a Listing,
    tls: bool,
    /// What asking for it does.
    deed: Deed,
    authorization: Option<&'a [u8]>,
}

impl Index<'_> {
    /// Whether the caller may ask for it.
    fn decide(&self, snapshot: &Snapshot, known: &Known) -> Result<Decision, String> {
        let decision = snapshot.policy.decide(&Query {
            who: &known.caller.who,
            target: &self.listing.target,
            attempt: Attempt::Request {
                method: "GET",
                path: &self.listing.path,
                upgrade: false,
                tls: self.tls,
                deed: Some(&self.deed),
            },
        });
        if decision.verdict == Verdict::Allow {
            return Ok(decision);
        }
        Err("the index of the registry may not be read from here".into())
    }

    async fn ask(
        &self,
        flow: &Flow,
        snapshot: &Snapshot,
        decision: &Decision,
    ) -> Result<Timestamp, String> {
        let secure = self.tls || decision.upstream.is_some();
        let asked = &self.listing.target;
        let port = if secure && !self.tls {
            tls_port(flow, decision, asked.port)
        } else {
            asked.port
        };
        let url = Url {
            tls: secure,
            target: Target {
                host: asked.host.clone(),
                port,
            },
            path: self.listing.path.clone(),
        };
        let tls = snapshot.upstreams.of(decision.upstream.as_deref());
        if secure && tls.is_none() {
            return Err("nobody is trusted to vouch for the registry".into());
        }
        let sought = Sought {
            url: &url,
            tls: tls.map(|tls| &**tls).filter(|_| secure),
            accept: &self.listing.accept,
            authorization: self.authorization,
            longest: LONGEST,
        };
        let document = fetch(flow, snapshot, &sought, decision).await?;
        content::published(&document, &self.listing.place)
            .ok_or_else(|| "the registry does not say".into())
    }
}

/// The bytes of a document, by a way that was judged like any other.
async fn fetch(
    flow: &Flow,
    snapshot: &Snapshot,
    sought: &Sought<'_>,
    decision: &Decision,
) -> Result<hyper::body::Bytes, String> {
    let unreachable = || "the registry cannot be reached".to_owned();
    let _turn = snapshot
        .ages
        .turns
        .acquire()
        .await
        .map_err(|_| unreachable())?;
    let dialer = &snapshot.dialer;
    let route = dialer.route(
        &sought.url.target,
        decision,
        &snapshot.policy,
        &snapshot.guard,
    );
    let route = route.await.map_err(|_| unreachable())?;
    let via = format!("1.1 {}", flow.gate.pseudonym);
    let errand = Errand {
        purpose: Purpose::Tunnel { via: &via },
        guard: &snapshot.guard,
        metrics: &flow.gate.metrics,
        caller: flow.caller(),
    };
    let document = dialer.seek(sought, &route, errand).await;
    let document = document.map_err(|error| error.to_string())?;
    Ok(document.body)
}

/// Says no; where the tier only observes, says so to the record.
fn refuse(flow: &mut Flow, decision: &Decision, why: &str) -> Result<(), Refusal> {
    let why: String = why.chars().take(160).collect();
    if decision.mode == Mode::Observe {
        flow.facts.would = Some(Verdict::Deny);
        flow.facts.reason = Code::PackageTooNew.as_str();
        flow.facts.detail = Some(why.into());
        return Ok(());
    }
    Err(Refusal::because(Code::PackageTooNew, why))
}

/// A version by that upstream: no two are told as one.
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

/// `left-pad 1.3.1`, in letters that may stand anywhere.
fn named(deed: &Deed) -> String {
    let package = deed.package.as_deref().unwrap_or_default();
    let version = deed.version.as_deref().unwrap_or_default();
    let plain = |letter: char| letter.is_ascii_graphic() || letter == ' ';
    let text = format!("{package} {version}");
    text.chars().filter(|it| plain(*it)).take(NAMED).collect()
}

/// `7 days`, `36 hours`: an age that a rule asks, which is in whole hours.
fn exactly(age: Duration) -> String {
    let hours = age.as_secs() / HOUR;
    match (hours / 24, hours % 24) {
        (days @ 2.., 0) => format!("{days} days"),
        _ => format!("{hours} hours"),
    }
}

/// `2 days`, `5 hours`, `less than an hour`: an age that something has, never said to be more.
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
        let deed = Deed {
            package: Some(format!("a\r\n\u{202e}{}", "b".repeat(200)).into()),
            version: Some("1".into()),
            ..Deed::default()
        };
        let name = named(&deed);
        assert_eq!(name.len(), NAMED);
        assert!(name.starts_with("abb"), "{name}");
    }
}
