//! Sessions: started, presented, narrowed, bound, revoked; and what no caller can make of them.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use tidegate::identity::{Claims, Signer, Tokens, new_pkcs8};

use crate::kit::{
    Client, Gate, Hello, Line, Message, Origin, Session, TIERS, allow_more, eventually, names,
};

const OPEN: &str = "github.com/acme/open-tools";
const SECRET: &str = "github.com/acme/payments";

/// Every client of the control socket is believed.
const TRUST: &str = "\n[identity.session]\nlocal = \"trust\"\n";

/// Each tier has one host of its own; one repository is open, one restricted.
fn policy(port: u16, identity: &str) -> String {
    let per_tier = |tier: &str| {
        let lines = format!("from.tiers = [\"{tier}\"]");
        allow_more(tier, &host(tier), port, &lines)
    };
    format!(
        "{TIERS}{dial}{open}{standard}{restricted}{identity}
[[repository]]
match = \"github.com/acme/open*\"
tier = \"open\"

[[repository]]
match = \"github.com/acme/payments\"
tier = \"restricted\"
",
        dial = names(&[
            "open.example.com",
            "standard.example.com",
            "restricted.example.com"
        ]),
        open = per_tier("open"),
        standard = per_tier("standard"),
        restricted = per_tier("restricted"),
    )
}

fn host(tier: &str) -> String {
    format!("{tier}.example.com")
}

struct Bench {
    origin: Origin,
    gate: Gate,
}

impl Bench {
    fn with(identity: &str) -> Self {
        let origin = Origin::bytes();
        let gate = Gate::with(&policy(origin.port(), identity));
        Self { origin, gate }
    }

    fn target(&self, tier: &str) -> String {
        format!("{}:{}", host(tier), self.origin.port())
    }

    /// The tier that a credential has, by the one host that it reaches, and the line about it.
    #[track_caller]
    fn tier_of(&self, user: &str, secret: &str) -> (String, Line) {
        let reached: Vec<_> = ["open", "standard", "restricted"]
            .into_iter()
            .filter(|tier| {
                let mut client = self.gate.client().known_as(user, secret);
                client.connect(&self.target(tier)).status() == 200
            })
            .collect();
        let [tier] = reached.as_slice() else {
            panic!("reached {reached:?}");
        };
        // It stood in the log before the 200 was sent.
        let lines = self.gate.records();
        let allowed = |line: &Line| line.is_decision() && line.verdict() == "allow";
        let line = lines.into_iter().rfind(allowed).expect("a decision");
        assert_eq!(line.text("tidegate.tier"), *tier);
        ((*tier).to_owned(), line)
    }

    /// How a credential is refused.
    #[track_caller]
    fn refused(&self, user: &str, secret: &str) -> (Message, Line) {
        let mut client = self.gate.client().known_as(user, secret);
        let answer = client.connect(&self.target("open"));
        let flow = answer.field("x-tidegate-flow").expect("a flow").to_owned();
        let line = self.gate.decision(&flow);
        (answer, line)
    }

    /// A tunnel that is open and moves bytes.
    #[track_caller]
    fn tunnel(&self, session: &Session, tier: &str) -> Client {
        let hello = Hello::naming(&host(tier)).bytes();
        let mut client = self.gate.client().known_as(&session.id, &session.token);
        client.tunnel(&self.target(tier)).send(&hello);
        assert_eq!(client.exactly(hello.len()), hello);
        client
    }
}

#[test]
fn a_token_says_the_repository_and_with_it_the_tier() {
    let bench = Bench::with(TRUST);
    let session = bench.gate.session(&json!({
        "repository": "https://user:pw@github.com/acme/open-tools.git",
        "ref": "main",
        "commit": "4bf92f3577b34da6a3ce929d0e0e4736aaaaaaaa",
        "user": "ana@acme.example",
        "agent": "claude-code",
        "permission_mode": "plan",
    }));
    assert_eq!(
        (
            session.text("tier"),
            session.text("trust"),
            session.text("repository")
        ),
        ("open", "verified", OPEN)
    );

    let user = format!("{}.bash", session.id);
    let (tier, line) = bench.tier_of(&user, &session.token);

    assert_eq!(tier, "open");
    for (field, value) in [
        ("session.id", &*session.id),
        ("tidegate.session.evidence", "token"),
        ("tidegate.session.trust", "verified"),
        ("tidegate.repository.trust", "verified"),
        ("tidegate.repository.basis", "session"),
        ("tidegate.tier.basis", "repository"),
        ("tidegate.channel", "bash"),
        ("tidegate.agent", "claude-code"),
        ("tidegate.permission_mode", "plan"),
        ("user.id", "ana@acme.example"),
        ("vcs.repository.url.full", OPEN),
        ("vcs.ref.head.name", "main"),
        (
            "vcs.ref.head.revision",
            "4bf92f3577b34da6a3ce929d0e0e4736aaaaaaaa",
        ),
    ] {
        assert_eq!(line.text(field), value, "{field}");
    }
    let started = bench
        .gate
        .line("its start", |line| line.name() == "session_started");
    assert_eq!(started.text("session.id"), session.id);
}

#[test]
fn a_bearer_token_does_as_well_as_a_password() {
    let bench = Bench::with(TRUST);
    let session = bench.gate.session(&json!({ "repository": OPEN }));
    let mut client = bench.gate.client();
    let target = bench.target("open");
    client.send(format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\
         Proxy-Authorization: Bearer {}\r\n\r\n",
        session.token
    ));
    assert_eq!(client.answer("CONNECT").status(), 200);
}

#[test]
fn two_sessions_have_two_tiers_at_the_same_time_and_neither_gets_the_others() {
    let bench = Bench::with(TRUST);
    let open = bench.gate.session(&json!({ "repository": OPEN }));
    let secret = bench.gate.session(&json!({ "repository": SECRET }));
    assert_eq!(bench.tier_of(&open.id, &open.token).0, "open");
    assert_eq!(bench.tier_of(&secret.id, &secret.token).0, "restricted");

    // The username of the other one, in whatever form.
    for user in [
        open.id.clone(),
        format!("{}.main", open.id),
        format!("x.{}", open.id),
    ] {
        let (answer, line) = bench.refused(&user, &secret.token);
        assert_eq!((answer.status(), line.reason()), (407, "identity_invalid"));
        assert_eq!(
            line.text("tidegate.detail"),
            "the token is of another session"
        );
        assert_eq!(line.text("session.id"), secret.id, "whose token it was");
        assert_eq!(line.text("tidegate.session.trust"), "none");
    }
    // A session that only a username names has no repository.
    assert_eq!(bench.tier_of(&open.id, "no-token").0, "standard");
    // Fields that claim an identity.
    let mut client = bench.gate.client().known_as(&secret.id, &secret.token);
    let claims = format!(
        "X-Claude-Code-Session-Id: {0}\r\nX-Tidegate-Session: {0}\r\nAuthorization: Bearer {1}\r\n",
        open.id, open.token
    );
    let url = format!("http://{}/", bench.target("open"));
    assert_eq!(client.request("GET", &url, &claims, "").status(), 403);
    // A child that says it works on the other's repository.
    let child = bench.gate.child(&secret, &json!({ "repository": OPEN }));
    assert_eq!(
        (child.text("tier"), child.text("repository_trust")),
        ("restricted", "asserted")
    );
    assert_eq!(bench.tier_of(&child.id, &child.token).0, "restricted");
    // A child in the other's name.
    let request = json!({ "session": open.id });
    let answer = bench
        .gate
        .post("/v1/sessions", Some(&secret.token), &request);
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (400, "bad_request")
    );
    // The admin listener starts nothing without a token.
    let answer = bench
        .gate
        .post("/v1/sessions", None, &json!({ "repository": OPEN }));
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (403, "control_only")
    );
}

#[test]
fn what_a_session_says_of_itself_makes_it_stricter_and_never_looser() {
    let bench = Bench::with("");
    let open = bench.gate.session(&json!({ "repository": OPEN }));
    assert_eq!(
        (open.text("tier"), open.text("trust")),
        ("standard", "asserted")
    );
    let (tier, line) = bench.tier_of(&open.id, &open.token);
    assert_eq!(tier, "standard");
    assert_eq!(
        line.text("vcs.repository.url.full"),
        OPEN,
        "on record all the same"
    );
    assert_eq!(line.text("tidegate.session.trust"), "asserted");
    assert_eq!(line.text("tidegate.repository.trust"), "asserted");

    let secret = bench.gate.session(&json!({ "repository": SECRET }));
    assert_eq!(bench.tier_of(&secret.id, &secret.token).0, "restricted");

    let groups = json!({ "groups": ["platform"] });
    let answer = bench.gate.control("/v1/sessions", None, &groups);
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (400, "bad_request")
    );
}

#[test]
fn a_child_can_only_be_narrower() {
    let bench = Bench::with(TRUST);
    let parent = bench
        .gate
        .session(&json!({ "repository": OPEN, "lifetime": 600 }));
    let narrow = json!({ "narrow": { "tiers": ["restricted"] }, "lifetime": 40_000 });
    let child = bench.gate.child(&parent, &narrow);
    assert_eq!(child.text("tier"), "restricted");
    assert!(child.text("expires") <= parent.text("expires"));
    let (_, line) = bench.tier_of(&child.id, &child.token);
    assert_eq!(line.text("tidegate.tier.basis"), "session");

    let wider = json!({ "narrow": { "tiers": ["open"] } });
    let grandchild = bench.gate.child(&child, &wider);
    assert_eq!(grandchild.text("tier"), "restricted");

    let within = json!({ "narrow": { "within": ["model-api"] } });
    let child = bench.gate.child(&parent, &within);
    let (answer, line) = bench.refused(&child.id, &child.token);
    assert_eq!((answer.status(), line.reason()), (403, "category_denied"));
    assert_eq!(line.text("security_rule.name"), "session.narrow");
    let more = json!({ "narrow": { "within": ["model-api", "unknown"] } });
    let grandchild = bench.gate.child(&child, &more);
    let (_, line) = bench.refused(&grandchild.id, &grandchild.token);
    assert_eq!(line.text("security_rule.name"), "session.narrow");
}

#[test]
fn a_token_is_good_only_where_it_is_bound() {
    let second = "\n[[listener]]\naddress = \"127.0.0.1:0\"\n";
    let bench = Bench::with(&format!("{TRUST}{second}"));
    let target = bench.target("open");
    let here = bench.gate.listener(0);
    let bound = |bound: Value| {
        let request = json!({ "repository": OPEN, "bound": bound });
        bench.gate.session(&request)
    };
    let ask = |session: &Session, listener: usize| {
        Client::dial(bench.gate.listener(listener))
            .known_as(&session.id, &session.token)
            .connect(&target)
            .status()
    };
    let listener = bound(json!({ "listener": here.to_string() }));
    assert_eq!((ask(&listener, 0), ask(&listener, 1)), (200, 407));
    let near = bound(json!({ "address": "127.0.0.0/8" }));
    assert_eq!((ask(&near, 0), ask(&near, 1)), (200, 200));
    let far = bound(json!({ "address": "192.0.2.0/24" }));
    assert_eq!(ask(&far, 0), 407);
    let line = bench.gate.line("the stolen token", |line| {
        line.text("session.id") == far.id && line.is_decision()
    });
    assert_eq!(
        line.text("tidegate.detail"),
        "the token is bound to another address or listener"
    );
    // A child is bound as its parent is, whatever it asks for.
    let child = bench
        .gate
        .child(&far, &json!({ "bound": { "address": "127.0.0.0/8" } }));
    assert_eq!(ask(&child, 0), 407);
}

#[test]
fn a_revocation_ends_open_flows_and_lets_no_new_one_begin() {
    let bench = Bench::with(TRUST);
    let revoked = bench.gate.session(&json!({ "repository": OPEN }));
    let other = bench.gate.session(&json!({ "repository": OPEN }));
    let child = bench.gate.child(&revoked, &json!({ "session": uuid() }));
    let mut tunnel = bench.tunnel(&revoked, "open");
    let mut of_child = bench.tunnel(&child, "open");
    let mut stays = bench.tunnel(&other, "open");

    bench.gate.revoke(&revoked.id);

    assert_eq!((tunnel.rest(), of_child.rest()), (vec![], vec![]));
    let closed = bench.gate.line("its end", |line| {
        line.is_close() && line.text("session.id") == revoked.id
    });
    assert_eq!(closed.text("error.type"), "revoked");
    for session in [&revoked, &child] {
        let (answer, line) = bench.refused(&session.id, &session.token);
        assert_eq!(answer.status(), 407);
        assert_eq!(
            line.text("tidegate.detail"),
            "the token or its session was revoked"
        );
        let answer = bench
            .gate
            .post("/v1/sessions", Some(&session.token), &json!({}));
        assert_eq!(answer.status(), 401);
    }
    stays.send("still here");
    assert_eq!(stays.exactly(10), b"still here");
    assert_eq!(bench.tier_of(&other.id, &other.token).0, "open");
}

#[test]
fn a_revocation_counts_on_a_connection_that_stays_open() {
    let origin = Origin::echo();
    let gate = Gate::with(&policy(origin.port(), TRUST));
    let session = gate.session(&json!({ "repository": OPEN }));
    let url = format!("http://{}:{}/", host("open"), origin.port());
    let mut client = gate.client().known_as(&session.id, &session.token);
    assert_eq!(client.get(&url).status(), 200);
    assert_eq!(client.get(&url).status(), 200);
    gate.revoke(&session.id);
    assert_eq!(client.get(&url).status(), 407);
}

#[test]
fn after_a_token_that_failed_the_next_request_starts_from_nothing() {
    let origin = Origin::echo();
    let gate = Gate::with(&policy(origin.port(), TRUST));
    let session = gate.session(&json!({ "repository": OPEN }));
    let url = |tier: &str| format!("http://{}:{}/", host(tier), origin.port());
    let request = |tier: &str, authorization: &str| {
        format!(
            "GET {} HTTP/1.1\r\nHost: x\r\n{authorization}\r\n",
            url(tier)
        )
    };
    let good = format!("Proxy-Authorization: Bearer {}\r\n", session.token);
    let bad = format!("Proxy-Authorization: Bearer {}x\r\n", session.token);
    let mut client = gate.client();
    let mut ask = |tier: &str, authorization: &str| {
        client.send(request(tier, authorization));
        client.answer("GET").status()
    };
    assert_eq!(ask("open", &good), 200);
    assert_eq!(
        ask("open", ""),
        403,
        "the credential counted for its own request"
    );
    let mut client = gate.client();
    client.send(request("open", &bad));
    let answer = client.answer("GET");
    assert_eq!(answer.status(), 407);
    let again = gate.client();
    assert_eq!({ again }.get(&url("standard")).status(), 200);
}

#[test]
fn a_session_ends_itself_and_nobody_else() {
    let bench = Bench::with(TRUST);
    let one = bench.gate.session(&json!({ "repository": OPEN }));
    let other = bench.gate.session(&json!({ "repository": OPEN }));
    let revoke = json!({ "name": other.id });
    let answer = bench
        .gate
        .post("/v1/sessions/revoke", Some(&one.token), &revoke);
    assert_eq!(answer.status(), 403);
    assert_eq!(
        bench
            .gate
            .post("/v1/sessions/end", None, &json!({}))
            .status(),
        403
    );
    let answer = bench
        .gate
        .post("/v1/sessions/end", Some(&one.token), &json!({}));
    assert_eq!(answer.status(), 204);
    assert_eq!(bench.refused(&one.id, &one.token).0.status(), 407);
    assert_eq!(bench.tier_of(&other.id, &other.token).0, "open");
    let ended = bench
        .gate
        .line("its end", |line| line.name() == "session_ended");
    assert_eq!(ended.text("session.id"), one.id);
}

#[test]
fn a_child_chose_its_own_name_and_ends_nothing_else_by_it() {
    let bench = Bench::with(TRUST);
    let parent = bench.gate.session(&json!({ "repository": OPEN }));
    let child = bench.gate.child(&parent, &json!({ "session": uuid() }));
    assert_eq!(
        (child.text("tier"), child.text("trust")),
        ("open", "asserted")
    );
    let (_, line) = bench.tier_of(&child.id, &child.token);
    assert_eq!(line.text("session.id"), child.id);
    assert_eq!(line.text("tidegate.session.root"), parent.id);
    // A session that this gate does not hold may belong to another user: naming it ends nothing.
    let stranger = uuid();
    let named = bench.gate.child(&parent, &json!({ "session": stranger }));
    let end = bench
        .gate
        .post("/v1/sessions/end", Some(&named.token), &json!({}));
    assert_eq!(end.status(), 204);
    assert_eq!(bench.refused("", &named.token).0.status(), 407);
    let own = bench
        .gate
        .session(&json!({ "session": stranger, "repository": OPEN }));
    assert_eq!(bench.tier_of(&own.id, &own.token).0, "open");
    assert_eq!(bench.tier_of(&parent.id, &parent.token).0, "open");
    assert_eq!(bench.tier_of(&child.id, &child.token).0, "open");
}

#[test]
fn a_child_that_took_a_name_before_its_owner_came_ends_nothing_of_it() {
    let bench = Bench::with(TRUST);
    let parent = bench.gate.session(&json!({ "repository": OPEN }));
    let name = json!({ "session": uuid() });
    let child = bench.gate.child(&parent, &name);
    let owner = bench.gate.session(&name);
    let end = bench
        .gate
        .post("/v1/sessions/end", Some(&child.token), &name);
    assert_eq!(end.status(), 403, "{end:?}");
    assert_eq!(bench.tier_of(&owner.id, &owner.token).0, "standard");
}

#[test]
fn any_gate_verifies_with_public_keys_alone_and_keys_rotate() {
    let keys = tempfile::tempdir().expect("a folder");
    let pair = |name: &str| {
        let der = new_pkcs8().expect("randomness");
        let signer = Signer::from_pkcs8(&der).expect("a key");
        std::fs::write(keys.path().join(name), public_pem(&signer.public().bytes)).expect("a file");
        signer
    };
    let (old, new) = (pair("old.pub"), pair("new.pub"));
    let section = |names: &[&str]| {
        let paths: Vec<_> = names
            .iter()
            .map(|name| format!("\"{}\"", keys.path().join(name).display()))
            .collect();
        format!("\n[identity.session]\nkeys = [{}]\n", paths.join(", "))
    };
    let bench = Bench::with(&section(&["old.pub"]));
    let port = bench.origin.port();
    let by_old = offline(&old, OPEN);
    assert_eq!(bench.tier_of("", &by_old).0, "open");
    let (answer, line) = bench.refused("", &offline(&new, OPEN));
    assert_eq!(answer.status(), 407);
    assert_eq!(
        line.text("tidegate.detail"),
        "the token is signed with a key that is not known here"
    );
    // It makes none itself.
    let answer = bench.gate.control("/v1/sessions", None, &json!({}));
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (409, "no_key")
    );

    bench
        .gate
        .reload(&policy(port, &section(&["old.pub", "new.pub"])));
    assert_eq!(bench.tier_of("", &offline(&new, OPEN)).0, "open");
    let hello = Hello::naming(&host("open")).bytes();
    let mut tunnel = bench.gate.client().known_as("", &by_old);
    tunnel.tunnel(&bench.target("open")).send(&hello);
    assert_eq!(tunnel.exactly(hello.len()), hello);

    bench.gate.reload(&policy(port, &section(&["new.pub"])));
    assert_eq!(tunnel.rest(), b"", "a key that is gone ends what it opened");
    assert_eq!(bench.refused("", &by_old).0.status(), 407);
}

#[test]
fn revocations_outlive_the_process_where_they_are_kept() {
    let keys = tempfile::tempdir().expect("a folder");
    let der = new_pkcs8().expect("randomness");
    let key = keys.path().join("session.key");
    std::fs::write(&key, private_pem(&der)).expect("a file");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    let identity = format!(
        "\n[identity.session]\nkey = \"{}\"\nlocal = \"trust\"\nrevocations = \"revoked\"\n",
        key.display()
    );
    let origin = Origin::bytes();
    let mut gate = Gate::with(&policy(origin.port(), &identity));
    let session = gate.session(&json!({ "repository": OPEN }));
    let target = format!("{}:{}", host("open"), origin.port());
    let status = |gate: &Gate| {
        let mut client = gate.client().known_as(&session.id, &session.token);
        client.connect(&target).status()
    };
    assert_eq!(status(&gate), 200);
    gate.revoke(&session.id);
    assert_eq!(status(&gate), 407);
    gate.terminate();
    gate.restart();
    assert_eq!(status(&gate), 407, "it was forgotten");
    // Another gate that shares the file learns it.
    let other = gate.session(&json!({ "repository": OPEN }));
    let ask = |gate: &Gate| {
        let mut client = gate.client().known_as(&other.id, &other.token);
        client.connect(&target).status()
    };
    assert_eq!(ask(&gate), 200);
    let line = format!("9999-01-01T00:00:00Z {}\n", other.id);
    let path = gate.folder().join("revoked");
    let text = std::fs::read_to_string(&path).expect("a file") + &line;
    std::fs::write(&path, text).expect("a file");
    eventually("the revocation", || (ask(&gate) == 407).then_some(()));
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let keys = tempfile::tempdir().expect("a folder");
    let key = keys.path().join("session.key");
    std::fs::write(&key, private_pem(&new_pkcs8().expect("randomness"))).expect("a file");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).expect("a mode");
    let config = keys.path().join("tidegate.toml");
    std::fs::write(&config, "[identity.session]\nkey = \"session.key\"\n").expect("a file");
    let checked = crate::kit::tidegate(&["check".as_ref(), config.as_os_str()]);
    assert_eq!(checked.code, Some(2), "{checked:?}");
    let said = format!("{checked:?}");
    assert!(
        said.contains("others can read this key: its mode is 640"),
        "{said}"
    );
}

#[test]
fn no_token_is_in_the_log_or_on_the_terminal() {
    let bench = Bench::with(TRUST);
    let session = bench.gate.session(&json!({ "repository": OPEN }));
    bench.tier_of(&session.id, &session.token);
    bench.refused("x", &format!("{}x", session.token));
    let log = std::fs::read_to_string(bench.gate.log()).expect("a log");
    let secret = session.token.rsplit('.').next().expect("a signature");
    assert!(!log.contains(secret) && !log.contains(&session.token[..40]));
}

#[test]
fn a_session_does_not_get_out_by_narrowing_itself_to_a_tier_that_observes() {
    let origin = Origin::bytes();
    let observing = policy(origin.port(), "").replace(
        "[tier.restricted]\ndefault",
        "[tier.restricted]\nmode = \"observe\"\ndefault",
    );
    let gate = Gate::with(&format!("{observing}{TRUST}"));
    let target = format!("{}:{}", host("open"), origin.port());
    // Nothing names this host's address: what is let pass by its name ends at the floor.
    let ask = |session: &Session| {
        let mut client = gate.client().known_as(&session.id, &session.token);
        let answer = client.connect(&target);
        let flow = answer.field("x-tidegate-flow").expect("a flow");
        gate.decision(flow).reason().to_owned()
    };
    let own = gate.session(&json!({ "repository": SECRET }));
    assert_eq!(
        ask(&own),
        "address_denied",
        "its repository's tier observes"
    );
    let standard = gate.session(&json!({}));
    assert_eq!(ask(&standard), "not_allowed");
    let narrow = json!({ "narrow": { "tiers": ["restricted"] } });
    assert_eq!(ask(&gate.child(&standard, &narrow)), "not_allowed");
    let says = json!({ "repository": SECRET });
    assert_eq!(ask(&gate.child(&standard, &says)), "not_allowed");
}

#[test]
fn a_child_that_names_another_repository_stays_in_its_groups() {
    let origin = Origin::bytes();
    let port = origin.port();
    let groups = "
[group.contractors]
members = [\"subject:ana@acme.example\"]

[[rule]]
id = \"contractors\"
verdict = \"deny\"
to.hosts = [\"open.example.com\"]
to.ports = [PORT]
from.groups = [\"contractors\"]
"
    .replace("PORT", &port.to_string());
    let gate = Gate::with(&policy(port, &format!("{groups}{TRUST}")));
    let parent = gate.session(&json!({ "repository": OPEN, "user": "ana@acme.example" }));
    let other = gate.child(
        &parent,
        &json!({ "repository": "github.com/acme/open-docs" }),
    );
    assert_eq!(other.text("repository_trust"), "asserted");
    let target = format!("{}:{port}", host("open"));
    for session in [&parent, &other] {
        let mut client = gate.client().known_as(&session.id, &session.token);
        let answer = client.connect(&target);
        let line = gate.decision(answer.field("x-tidegate-flow").expect("a flow"));
        assert_eq!(line.text("security_rule.name"), "contractors");
    }
}

#[test]
fn a_child_that_names_another_repository_follows_its_parent_when_that_becomes_stricter() {
    let bench = Bench::with(TRUST);
    let parent = bench.gate.session(&json!({ "repository": OPEN }));
    let other = json!({ "repository": "github.com/acme/open-docs" });
    let child = bench.gate.child(&parent, &other);
    let grandchild = bench.gate.child(&child, &json!({ "repository": OPEN }));
    let stricter = policy(bench.origin.port(), TRUST);
    let stricter =
        format!("{stricter}\n[[repository]]\nmatch = \"{OPEN}\"\ntier = \"restricted\"\n");
    bench.gate.reload(&stricter);
    for session in [&parent, &child, &grandchild] {
        assert_eq!(bench.tier_of(&session.id, &session.token).0, "restricted");
    }
}

#[test]
fn what_a_revoked_child_made_is_revoked_with_it() {
    let bench = Bench::with(TRUST);
    let parent = bench.gate.session(&json!({ "repository": OPEN }));
    let child = || bench.gate.child(&parent, &json!({ "session": uuid() }));
    let made_by = |session: &Session| bench.gate.child(session, &json!({ "session": uuid() }));

    let revoked = child();
    let (one, two) = (made_by(&revoked), made_by(&made_by(&revoked)));
    bench.gate.revoke(&revoked.id);
    for session in [&revoked, &one, &two] {
        assert_eq!(bench.refused(&session.id, &session.token).0.status(), 407);
    }
    let ended = child();
    let made = made_by(&ended);
    let end = bench
        .gate
        .post("/v1/sessions/end", Some(&ended.token), &json!({}));
    assert_eq!(end.status(), 204);
    assert_eq!(bench.refused(&made.id, &made.token).0.status(), 407);
    // A stolen token that is revoked by its own id, and what the thief made of it.
    let stolen = bench.gate.session(&json!({ "repository": OPEN }));
    let made = bench.gate.child(&stolen, &json!({}));
    bench.gate.revoke(&id_of(&stolen.token));
    assert_eq!(bench.refused(&made.id, &made.token).0.status(), 407);
    assert_eq!(bench.tier_of(&parent.id, &parent.token).0, "open");
}

#[test]
fn revocations_are_kept_where_a_reload_says_and_read_where_there_were_none() {
    let origin = Origin::bytes();
    let port = origin.port();
    let gate = Gate::with(&policy(port, TRUST));
    let with = format!("{TRUST}revocations = \"revoked\"\n");
    gate.reload(&policy(port, &with));
    let path = gate.folder().join("revoked");
    assert!(!path.exists());
    // Another gate is the first to write it.
    let session = gate.session(&json!({ "repository": OPEN }));
    let target = format!("{}:{port}", host("open"));
    let ask = || {
        let mut client = gate.client().known_as(&session.id, &session.token);
        client.connect(&target).status()
    };
    assert_eq!(ask(), 200);
    let line = format!("9999-01-01T00:00:00Z {}\n", session.id);
    std::fs::write(&path, &line).expect("a file");
    eventually("the revocation", || (ask() == 407).then_some(()));
    gate.revoke("another");
    let text = std::fs::read_to_string(&path).expect("a file");
    assert!(
        text.starts_with(&line) && text.ends_with(" another\n"),
        "{text}"
    );
}

#[test]
fn a_revocation_that_cannot_be_kept_is_in_force_and_on_record() {
    let bench = Bench::with(&format!("{TRUST}revocations = \"absent/revoked\"\n"));
    let session = bench.gate.session(&json!({ "repository": OPEN }));
    let name = json!({ "name": session.id });
    let answer = bench.gate.control("/v1/sessions/revoke", None, &name);
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (500, "not_kept")
    );
    assert_eq!(bench.refused(&session.id, &session.token).0.status(), 407);
    let ended = bench
        .gate
        .line("its end", |line| line.name() == "session_ended");
    assert_eq!(ended.text("session.id"), session.id);
}

#[test]
fn a_key_that_is_none_is_refused_and_not_shown() {
    let keys = tempfile::tempdir().expect("a folder");
    let key = keys.path().join("session.key");
    std::fs::write(&key, pem("PRIVATE KEY", b"hunter2")).expect("a file");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    let config = keys.path().join("tidegate.toml");
    std::fs::write(&config, "[identity.session]\nkey = \"session.key\"\n").expect("a file");
    let checked = crate::kit::tidegate(&["check".as_ref(), config.as_os_str()]);
    assert_eq!(checked.code, Some(2), "{checked:?}");
    let said = format!("{checked:?}");
    assert!(
        said.contains("this file holds no Ed25519 private key") && !said.contains("aHVudGVyMg"),
        "{said}"
    );
}

/// What a token says its own id is.
fn id_of(token: &str) -> String {
    use base64::Engine as _;
    let claims = token.split('.').nth(1).expect("claims");
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(claims)
        .expect("base64url");
    let claims: Value = serde_json::from_slice(&json).expect("JSON");
    claims["jti"].as_str().expect("an id").to_owned()
}

/// A token that no gate made.
fn offline(signer: &Signer, repository: &str) -> String {
    let tokens = Tokens::new([], "tidegate".into(), std::time::Duration::from_hours(1));
    let now = tidegate::clock::Clock::system().now();
    let claims = Claims {
        repository: Some(repository.into()),
        ..tokens.blank(&uuid(), now, std::time::Duration::from_hours(1))
    };
    signer.mint(&claims).expect("claims")
}

fn uuid() -> String {
    uuid::Uuid::now_v7().to_string()
}

fn pem(kind: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")
}

fn private_pem(der: &[u8]) -> String {
    pem("PRIVATE KEY", der)
}

fn public_pem(key: &[u8]) -> String {
    let prefix = [48, 42, 48, 5, 6, 3, 43, 101, 112, 3, 33, 0];
    pem("PUBLIC KEY", &[&prefix, key].concat())
}
