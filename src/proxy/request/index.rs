//! The gate's own fetch of a registry's index: a flow of the caller `tidegate`, decided with the
//! rights of the request's caller, and recorded before the dial.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::StatusCode;
use jiff::Timestamp;

use crate::content;
use crate::dial::{Document, DocumentError, Sought, Stream};
use crate::gate::{Asked, Snapshot};
use crate::metrics::FlowKind;
use crate::name::{Target, Url};
use crate::policy::{Attempt, Decision, Listing, Query, RequestFacts};
use crate::proxy::flow::{Flow, Known};
use crate::proxy::refusal::{Code, Refusal};
use crate::record::{Blame, End, TlsMode};
use crate::tls::Alpn;

use super::route::{secure, tls_key, tls_port};

/// The longest document, in bytes: for some packages of npm it is that long.
const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;
/// The caller of these flows in the records.
const USER: &str = "tidegate";
const CHANNEL: &str = "gate";

/// A registry document to fetch.
pub(super) struct Index<'a> {
    /// The caller of the request.
    pub(in crate::proxy) known: &'a Known,
    pub(super) listing: &'a Listing,
    pub(in crate::proxy) tls: bool,
    /// The facts of the fetch.
    pub(in crate::proxy) request_facts: RequestFacts,
    /// The credential of the request, if it is used.
    pub(in crate::proxy) authorization: Option<&'a [u8]>,
}

/// The reason why the age of a version is unknown.
#[derive(Debug, thiserror::Error)]
pub(super) enum Untold {
    /// The registry answers with a status for callers without a credential.
    #[error("its server answers {0}")]
    NotToAnyone(StatusCode),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("{0}")]
    Refused(&'static str),
    #[error("the registry does not answer in time")]
    TimedOut,
    #[error("the registry does not say")]
    Unsaid,
}

impl Index<'_> {
    fn attempt(&self) -> Attempt<'_> {
        Attempt::Request {
            method: "GET",
            path: &self.listing.path,
            upgrade: false,
            tls: self.tls,
            request_facts: Some(&self.request_facts),
        }
    }

    /// Whether the caller of the request may fetch the document; records nothing.
    pub(in crate::proxy) fn would_pass(&self, flow: &Flow) -> bool {
        flow.would_pass(self.known, &self.listing.target, self.attempt())
    }

    pub(in crate::proxy) fn decide(&self, snapshot: &Snapshot) -> Decision {
        snapshot.decide(&Query {
            who: &self.known.caller.who,
            target: &self.listing.target,
            attempt: self.attempt(),
        })
    }

    /// Fetches the document, in a flow of its own.
    pub(in crate::proxy) async fn ask(
        &self,
        flow: &Flow,
        snapshot: &Snapshot,
        longest: Duration,
    ) -> Result<Timestamp, Untold> {
        let turn = tokio::time::timeout(longest, snapshot.ages.turn(&self.listing.target)).await;
        let _turn = turn.ok().flatten().ok_or(Untold::TimedOut)?;
        let mut own = self.begin(flow).await?;
        let asked = tokio::time::timeout(longest, self.fetch(&mut own)).await;
        let Ok(asked) = asked else {
            own.refuse(&Code::ConnectTimeout.into());
            return Err(Untold::TimedOut);
        };
        let document = match asked {
            Ok(document) => document?,
            Err(refusal) => {
                own.refuse(&refusal);
                return Err(untold(&refusal));
            }
        };
        content::published(&document.body, &self.listing.place).ok_or(Untold::Unsaid)
    }

    /// Begins a flow of the gate itself, for the flow of a caller.
    async fn begin(&self, flow: &Flow) -> Result<Flow, Untold> {
        let client = flow.facts.client_address;
        let client = client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let own = Flow::begin(&flow.gate, FlowKind::Http, client).await;
        let mut own = own.map_err(|_| Untold::Refused("the fetch cannot be recorded"))?;
        own.is_own = true;
        own.aim(self.listing.target.clone());
        let facts = &mut own.facts;
        facts.parent = Some(flow.facts.flow);
        facts.user = Some(USER.into());
        facts.channel = Some(CHANNEL.into());
        facts.tier.clone_from(&flow.facts.tier);
        facts.tier_basis = flow.facts.tier_basis;
        facts.method = Some("GET".into());
        facts.tls_mode = Some(if self.tls {
            TlsMode::Inspected
        } else {
            TlsMode::None
        });
        Ok(own)
    }

    /// Decides, resolves, writes the decision, dials, and fetches, in this order.
    async fn fetch(&self, own: &mut Flow) -> Result<Result<Document, Untold>, Refusal> {
        let target = &self.listing.target;
        let decision = own.judge_attempt(self.known, target, self.attempt())?;
        if self.authorization.is_some() {
            own.facts.detail = Some("with the credential of the request".into());
        }
        let secured = self.tls || decision.upstream.is_some();
        if secured {
            own.facts.tls_mode = Some(TlsMode::Inspected);
        }
        let mut dialled = target.clone();
        if secured && !self.tls {
            dialled.port = tls_port(own, &decision, target.port);
        }
        let asked = Asked::Request {
            method: "GET".into(),
            path: self.listing.path.clone(),
            upgrade: false,
            tls: self.tls,
            request_facts: Some(Arc::new(self.request_facts.clone())),
        };
        let route = own.find_route(&dialled, &decision).await?;
        own.settle(self.known, target, asked, &decision).await?;
        let upstream = own.dial(route, &decision).await?;
        let stream = if secured {
            let tls = tls_key(own, &decision);
            secure(own, &dialled, &tls, Alpn::Http1, upstream)
                .await?
                .stream
        } else {
            upstream.stream
        };
        own.close.requests = 1;
        Ok(self.read(own, secured, dialled, stream).await)
    }

    async fn read(
        &self,
        own: &mut Flow,
        tls: bool,
        target: Target,
        stream: Stream,
    ) -> Result<Document, Untold> {
        let sought = Sought {
            url: &Url {
                tls,
                target,
                path: self.listing.path.clone(),
            },
            accept: &self.listing.accept,
            authorization: self.authorization,
            longest: MAX_DOCUMENT_BYTES,
        };
        let document = sought.fetch(stream).await;
        match &document {
            Ok(document) => {
                own.facts.status = Some(StatusCode::OK.as_u16());
                if let Some(open) = &own.open {
                    let bytes = u64::try_from(document.body.len()).unwrap_or(u64::MAX);
                    open.bytes.back.fetch_add(bytes, Ordering::Relaxed);
                }
                own.ended(End::Closed, None, None);
            }
            Err(DocumentError::Status(status)) => {
                own.facts.status = Some(status.as_u16());
                own.ended(End::Closed, None, None);
            }
            Err(_) => {
                let word = Code::ConnectFailed.as_str();
                own.ended(End::Failed, Some(Blame::Upstream), Some(word));
            }
        }
        document.map_err(|error| match error {
            // Statuses of registries for a missing or wrong credential.
            DocumentError::Status(
                status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND),
            ) => Untold::NotToAnyone(status),
            error => error.into(),
        })
    }
}

fn untold(refusal: &Refusal) -> Untold {
    match refusal.code.blame() {
        Blame::Policy => Untold::Refused("the index of the registry may not be read from here"),
        _ => Untold::Refused("the registry cannot be reached"),
    }
}
