//! Tests of evidence that is presented again, later or elsewhere.

use std::net::{Ipv4Addr, SocketAddr};

use jiff::{SignedDuration, Timestamp};

use super::*;

struct Bench {
    identity: Identity,
    clock: Clock,
    listener: Arc<Listener>,
}

/// Issuers whose keys are never fetched.
fn reach(clock: &Clock) -> Reach {
    let (dial, limits) = (config::Dial::default(), config::Limits::default());
    Reach {
        dialer: Arc::new(crate::dial::Dialer::new(
            &dial,
            &limits,
            clock.clone(),
            &crate::dial::Programs::of(config::Owners::default()),
            None,
        )),
        guard: Arc::default(),
        metrics: crate::metrics::Metrics::new(&[]),
        journal: Arc::new(Unrecorded),
    }
}

/// Records nothing, so that no fetch is made.
#[derive(Debug)]
struct Unrecorded;

impl Journal for Unrecorded {
    fn decided<'j>(&'j self, _: &'j OwnFetch) -> Deciding<'j> {
        Box::pin(async { None })
    }

    fn refused<'j>(&'j self, _: &'j OwnFetch, _: &'static str) -> Refusing<'j> {
        Box::pin(async {})
    }
}

impl Bench {
    fn new() -> Self {
        let clock = Clock::by_hand(Timestamp::from_second(1_790_000_000).unwrap());
        Self {
            identity: Identity::new(
                &config::Identity::default(),
                None,
                clock.clone(),
                reach(&clock),
            ),
            listener: Arc::new(Listener::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 3128)))),
            clock,
        }
    }

    fn token(&self, change: impl FnOnce(&mut Claims)) -> String {
        let tokens = self.identity.tokens();
        let session = uuid::Uuid::now_v7().to_string();
        let mut claims = tokens.blank(&session, self.clock.now(), Duration::from_hours(1));
        change(&mut claims);
        self.identity.signer().unwrap().mint(&claims).unwrap()
    }

    async fn present(&self, token: &str, client: [u8; 4]) -> Result<Presented, TokenError> {
        let client = SocketAddr::from((client, 50_000));
        let channel = Arc::new(Channel::plain(client, self.listener.address));
        let value = format!("Bearer {token}");
        let presented = self
            .identity
            .present(&self.listener, &channel, Some(value.as_bytes()));
        presented.await.map_err(|error| match error {
            IdentityError::Token { why, .. } => why,
            other => panic!("{other}"),
        })
    }
}

#[tokio::test]
async fn a_token_that_is_remembered_expires_all_the_same() {
    let bench = Bench::new();
    let token = bench.token(|_| {});
    assert!(bench.present(&token, [127, 0, 0, 1]).await.is_ok());
    assert_eq!(bench.identity.seen.len(), 1);
    assert!(bench.present(&token, [127, 0, 0, 1]).await.is_ok());
    bench.clock.advance(SignedDuration::from_secs(3_660));
    let late = bench.present(&token, [127, 0, 0, 1]).await.map(drop);
    assert_eq!(late, Err(TokenError::Expired));
}

#[tokio::test]
async fn a_token_that_is_remembered_is_good_only_where_it_is_bound() {
    let bench = Bench::new();
    let token = bench.token(|it| it.bound.address = Some("192.0.2.0/24".parse().unwrap()));
    assert!(bench.present(&token, [192, 0, 2, 7]).await.is_ok());
    let stolen = bench.present(&token, [198, 51, 100, 7]).await.map(drop);
    assert_eq!(stolen, Err(TokenError::Elsewhere));
}

#[tokio::test]
async fn a_token_that_is_remembered_can_be_revoked() {
    let bench = Bench::new();
    let token = bench.token(|_| {});
    let presented = bench.present(&token, [127, 0, 0, 1]).await.unwrap();
    let Proof::Grant(grant) = &presented.proof else {
        panic!("{presented:?}");
    };
    let (now, sessions) = (bench.clock.now(), bench.identity.sessions());
    let epoch = sessions.epoch();
    assert!(bench.identity.still_holds(epoch, presented.until()));
    sessions.revoke(&grant.id, Timestamp::MAX, now).unwrap();
    assert!(!bench.identity.still_holds(epoch, presented.until()));
    let revoked = bench.present(&token, [127, 0, 0, 1]).await.map(drop);
    assert_eq!(revoked, Err(TokenError::Revoked));
}

#[tokio::test]
async fn a_token_that_failed_is_not_remembered() {
    let bench = Bench::new();
    let token = bench.token(|it| it.aud = "other-gate".into());
    for _ in 0..2 {
        let refused = bench.present(&token, [127, 0, 0, 1]).await.map(drop);
        assert_eq!(refused, Err(TokenError::Audience));
    }
    assert_eq!(bench.identity.seen.len(), 0);
}

#[tokio::test]
async fn the_job_of_a_fork_is_no_looser_than_its_parent() {
    let text = "[tiers]
order = [\"open\", \"restricted\"]
unattributed = \"open\"
[tier.open]
[tier.restricted]
[[repository]]
match = \"gitlab.com/acme/payments\"
tier = \"restricted\"
";
    let (config, _) = config::load_text(std::path::Path::new("a.toml"), text);
    let (policy, findings) =
        crate::policy::compile(&config.unwrap().policy, &crate::policy::built_in());
    let policy = policy.unwrap_or_else(|| panic!("{findings:?}"));
    let bench = Bench::new();
    let tier = async |parent: &str| {
        let token = bench.token(|it| {
            it.repository = Some("gitlab.com/mallory/payments".into());
            it.beside = Some(parent.into());
        });
        let presented = bench.present(&token, [127, 0, 0, 1]).await.unwrap();
        bench.identity.caller(&presented, &policy).unwrap().tier
    };
    assert_eq!(&*tier("gitlab.com/acme/web").await, "open");
    assert_eq!(&*tier("gitlab.com/acme/payments").await, "restricted");
}
