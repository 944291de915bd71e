//! Notifies reviewers of new requests for approval: by webhook, program or desktop.
//!
//! Each notifier of `[notify.NAME]` gets at most one message each `every`, one after the other. A
//! message counts all requests filed since the last message, and lists [`MAX_LISTED`] of them. So an
//! agent that files many requests causes no more messages than an agent that files one. There is no
//! queue: a message is made from the table of requests when it is sent. The requests of a message
//! that was not delivered are in the next message, after a longer time.
//!
//! No decision and no settlement waits for a message.

mod message;
mod webhook;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::{Delivery, Notifier, WebhookFormat};
use crate::record::Event;

use super::approvals::{Request, RequestState};
use super::{Gate, Snapshot};

pub use message::{ListedRequest, Message, Settle};
use webhook::WebhookFailure;

/// Requests that one message lists, at most.
pub const MAX_LISTED: usize = 10;
/// The time in which requests that follow each other become one message.
const COALESCE: Duration = Duration::from_secs(1);
/// How long the gate waits before it looks for new notifiers and open requests, at most.
const MAX_PAUSE: Duration = Duration::from_mins(1);
/// The maximum time between two attempts to deliver, as a multiple of `every`.
const MAX_BACKOFF: u32 = 10;
/// The maximum time of one delivery, with all its attempts.
const DELIVERY_TIMEOUT: Duration = Duration::from_mins(1);

/// Why a message was not delivered.
#[derive(Debug, thiserror::Error)]
enum NotifyError {
    /// The webhook was not reached, or refused the message.
    #[error(transparent)]
    Webhook(#[from] WebhookFailure),
    /// The program failed; its end is on record.
    #[error("its program failed: see `program_ended`")]
    Program,
    /// The delivery took longer than [`DELIVERY_TIMEOUT`].
    #[error("it took longer than {} s", DELIVERY_TIMEOUT.as_secs())]
    TimedOut,
}

/// The state of the deliveries to one notifier.
#[derive(Debug, Default)]
struct Progress {
    /// The requests of delivered messages, and of the message on its way.
    told: HashSet<Uuid>,
    /// Whether a message is on its way.
    is_sending: bool,
    /// The time of the next message, at the earliest.
    next: Option<Instant>,
    /// Failed deliveries since the last success.
    failures: u32,
}

/// The end of a delivery: the notifier, the requests of the message, and whether it arrived.
type Delivered = (Arc<str>, Vec<Uuid>, bool);

impl Gate {
    /// Notifies reviewers until it is cancelled.
    pub async fn notify_reviewers(self: Arc<Self>, until: CancellationToken) {
        until.run_until_cancelled(self.keep_notifying()).await;
    }

    async fn keep_notifying(self: &Arc<Self>) {
        let mut each: HashMap<Arc<str>, Progress> = HashMap::new();
        let mut sending: JoinSet<Delivered> = JoinSet::new();
        loop {
            let mut changed = std::pin::pin!(self.requests.changed());
            // Registered before the table is read, so that no change is missed.
            changed.as_mut().enable();
            let pause = self.send_due(&mut each, &mut sending);
            tokio::select! {
                () = &mut changed => tokio::time::sleep(COALESCE).await,
                // A reload may add a notifier for requests that are open already.
                () = tokio::time::sleep(pause.min(MAX_PAUSE)) => {}
                Some(ended) = sending.join_next(), if !sending.is_empty() => match ended {
                    Ok(ended) => self.note_delivered(&mut each, &ended),
                    // A delivery panicked: no notifier waits for its end.
                    Err(_) => each.values_mut().for_each(|progress| progress.is_sending = false),
                }
            }
        }
    }

    /// Begins each message that is due. Returns the time until the next one may be.
    fn send_due(
        self: &Arc<Self>,
        each: &mut HashMap<Arc<str>, Progress>,
        sending: &mut JoinSet<Delivered>,
    ) -> Duration {
        let snapshot = self.snapshot.load_full();
        let named = |name: &Arc<str>| snapshot.notifiers.iter().any(|it| it.name == *name);
        each.retain(|name, progress| progress.is_sending || named(name));
        let now = self.clock.instant();
        let mut pause = Duration::MAX;
        for notifier in &*snapshot.notifiers {
            let progress = each.entry(notifier.name.clone()).or_default();
            progress.told.retain(|id| self.requests.is_pending(*id));
            let (new, open) = self.untold(notifier, &progress.told);
            if new.is_empty() || progress.is_sending {
                continue;
            }
            let left = progress.next.map(|it| it.saturating_duration_since(now));
            if let Some(left) = left.filter(|left| !left.is_zero()) {
                pause = pause.min(left);
                continue;
            }
            let ids: Vec<Uuid> = new.iter().map(|request| request.id).collect();
            progress.told.extend(&ids);
            progress.is_sending = true;
            let message = Message::of(notifier, &new, open, self.clock.now());
            let (gate, snapshot, notifier) = (self.clone(), snapshot.clone(), notifier.clone());
            sending.spawn(async move {
                let arrived = gate.deliver(&snapshot, &notifier, &message).await;
                (notifier.name.clone(), ids, arrived)
            });
        }
        pause
    }

    /// Returns the waiting requests that are not in `told`, and the number of all waiting requests of
    /// the notifier's tiers.
    fn untold(&self, notifier: &Notifier, told: &HashSet<Uuid>) -> (Vec<Request>, usize) {
        let is_of_tier = |request: &Request| {
            let tier = request.facts.tier.as_ref();
            notifier.tiers.is_empty() || tier.is_some_and(|tier| notifier.tiers.contains(tier))
        };
        let mut all = self
            .requests
            .list(|it| it.state == RequestState::Pending && is_of_tier(it));
        let open = all.len();
        all.retain(|request| !told.contains(&request.id));
        (all, open)
    }

    /// Notes the end of a delivery.
    fn note_delivered(&self, each: &mut HashMap<Arc<str>, Progress>, ended: &Delivered) {
        let (name, ids, arrived) = ended;
        let Some(progress) = each.get_mut(name) else {
            return;
        };
        progress.is_sending = false;
        progress.failures = if *arrived { 0 } else { progress.failures + 1 };
        if !arrived {
            for id in ids {
                progress.told.remove(id);
            }
        }
        let snapshot = self.snapshot.load();
        let notifier = snapshot.notifiers.iter().find(|it| it.name == *name);
        let every = notifier.map_or(Duration::ZERO, |it| it.every);
        let times = 2_u32.saturating_pow(progress.failures).min(MAX_BACKOFF);
        progress.next = self
            .clock
            .instant()
            .checked_add(every.saturating_mul(times));
    }

    /// Delivers a message. Returns whether it arrived; a failure is counted and on record.
    async fn deliver(&self, snapshot: &Snapshot, notifier: &Notifier, message: &Message) -> bool {
        let delivered = timeout(
            DELIVERY_TIMEOUT,
            self.try_to_deliver(snapshot, notifier, message),
        );
        let delivered = delivered.await.unwrap_or(Err(NotifyError::TimedOut));
        self.metrics.notified(delivered.is_ok());
        if let Err(error) = &delivered {
            tracing::warn!(notifier = %notifier.name, "reviewers are not notified: {error}");
            self.recorder.event(&Event::NotificationFailed {
                notifier: notifier.name.clone(),
                detail: error.to_string().into(),
            });
        }
        delivered.is_ok()
    }

    async fn try_to_deliver(
        &self,
        snapshot: &Snapshot,
        notifier: &Notifier,
        message: &Message,
    ) -> Result<(), NotifyError> {
        let why = format!("notifier `{}`", notifier.name);
        let programs = &snapshot.programs;
        let done = match &notifier.delivery {
            Delivery::Webhook(webhook) => {
                let body = match webhook.format {
                    WebhookFormat::Json => message.json(),
                    WebhookFormat::Slack => message.slack(),
                };
                let name = &notifier.name;
                let posted = self.post(snapshot, (name, webhook), message.id, body);
                return Ok(posted.await?);
            }
            Delivery::Command(words) => {
                let ended = programs.ask(words, &why, &self.clock, message.json());
                ended.await.is_some()
            }
            Delivery::Desktop(path) => {
                let texts = message.desktop();
                programs.show(path, &why, &self.clock, texts).await
            }
        };
        if done {
            Ok(())
        } else {
            Err(NotifyError::Program)
        }
    }
}
