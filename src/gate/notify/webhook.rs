//! Delivers a message to a webhook, signed as Standard Webhooks describes.

use std::time::Duration;

use aws_lc_rs::hmac;
use data_encoding::BASE64;
use hyper::body::Bytes;
use uuid::Uuid;

use crate::config::{Webhook, WebhookError};
use crate::dial::{DocumentError, Posted, Programs, Wanted};
use crate::gate::fetches::Fetches;
use crate::gate::{Gate, Snapshot};
use crate::identity::{Journal as _, OwnFetch};
use crate::name::Url;
use crate::tls;

/// The pauses before the second and further attempts.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// Why a message was not delivered to a webhook.
#[derive(Debug, thiserror::Error)]
pub(super) enum WebhookFailure {
    /// Its URL or key cannot be used.
    #[error(transparent)]
    Setting(#[from] WebhookError),
    /// Its certificate authorities cannot be used.
    #[error("{0}")]
    Roots(String),
    /// The request failed.
    #[error(transparent)]
    Request(#[from] DocumentError),
    /// The gate cannot record its request.
    #[error("the request cannot be recorded")]
    Unrecorded,
}

impl Gate {
    /// Delivers a message to a webhook, in at most three attempts. `name`: the name of the notifier.
    pub(super) async fn post(
        &self,
        snapshot: &Snapshot,
        (name, webhook): (&str, &Webhook),
        id: Uuid,
        body: Vec<u8>,
    ) -> Result<(), WebhookFailure> {
        let body = Bytes::from(body);
        let (read, programs) = (webhook.clone(), snapshot.programs.clone());
        // Reads files, and the certificate authorities of the system.
        let ready = tokio::task::spawn_blocking(move || Receiver::of(&read, &programs)).await;
        let receiver =
            ready.unwrap_or_else(|error| Err(WebhookFailure::Roots(error.to_string())))?;
        let mut pauses = PAUSES.iter();
        loop {
            let posted = self.try_post(snapshot, (name, webhook), &receiver, (id, &body));
            let Err(error) = posted.await else {
                return Ok(());
            };
            let is_passing = matches!(&error, WebhookFailure::Request(it) if it.is_passing());
            let pause = pauses.next().filter(|_| is_passing);
            let Some(pause) = pause else {
                return Err(error);
            };
            tokio::time::sleep(*pause).await;
        }
    }

    async fn try_post(
        &self,
        snapshot: &Snapshot,
        (name, webhook): (&str, &Webhook),
        receiver: &Receiver,
        (id, body): (Uuid, &Bytes),
    ) -> Result<(), WebhookFailure> {
        let Receiver { url, key, tls } = receiver;
        let posted = self.signed(key.as_deref(), id, body);
        let wanted = Wanted {
            url,
            addresses: &webhook.addresses,
            guard: &snapshot.guard,
            tls,
        };
        let journal = Fetches {
            recorder: self.recorder.clone(),
            digest: snapshot.digest.clone(),
            generation: snapshot.generation,
        };
        let mut fetch = own_fetch(name, url, body);
        let route = match snapshot.dialer.find(&wanted).await {
            Ok(route) => route,
            Err(error) => {
                journal.refused(&fetch, error.code()).await;
                return Err(error.into());
            }
        };
        fetch.answers.clone_from(&route.answers);
        let open = journal.decided(&fetch).await;
        let open = open.ok_or(WebhookFailure::Unrecorded)?;
        let delivered = snapshot.dialer.deliver(&wanted, &route, &posted).await;
        let end = delivered.as_ref().map(|()| 0);
        open.close(end.map_err(DocumentError::code));
        Ok(delivered?)
    }

    /// The message with its id and time, and the signature if the webhook has a key.
    fn signed(&self, key: Option<&[u8]>, id: Uuid, body: &Bytes) -> Posted {
        let (id, at) = (id.to_string(), self.clock.now().as_second().to_string());
        let mut fields = vec![
            ("webhook-id", id.clone()),
            ("webhook-timestamp", at.clone()),
        ];
        if let Some(key) = key {
            fields.push(("webhook-signature", signature(key, &id, &at, body)));
        }
        Posted {
            fields,
            body: body.clone(),
        }
    }
}

/// The receiver of a message.
struct Receiver {
    url: Url,
    /// Signs messages.
    key: Option<Vec<u8>>,
    tls: tls::Client,
}

impl Receiver {
    /// Reads the files of a webhook, if no other user could change them. Blocks.
    fn of(webhook: &Webhook, programs: &Programs) -> Result<Self, WebhookFailure> {
        let exposed = webhook.files().find_map(|path| programs.exposed_file(path));
        if let Some(exposed) = exposed {
            return Err(WebhookError::File(exposed.to_string()).into());
        }
        let tls = tls::Client::of_webhook(webhook);
        Ok(Self {
            url: webhook.url()?,
            key: webhook.key()?,
            tls: tls.map_err(|finding| WebhookFailure::Roots(finding.message))?,
        })
    }
}

/// HMAC-SHA256 over `ID.TIME.BODY`: only a holder of the key can make a message, or send an old
/// one with a new time.
fn signature(key: &[u8], id: &str, at: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{id}.{at}.").as_bytes());
    context.update(body);
    format!("v1,{}", BASE64.encode(context.sign().as_ref()))
}

fn own_fetch(name: &str, url: &Url, body: &Bytes) -> OwnFetch {
    OwnFetch {
        rule: format!("notify.{name}"),
        sends: u64::try_from(body.len()).ok(),
        target: url.target.clone(),
        answers: Box::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification (Standard Webhooks 1.0.0).
    #[test]
    fn a_message_is_signed_as_standard_webhooks_describes() {
        let key = BASE64.decode(b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = signature(
            &key,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
