//! Reviewers on other hosts: they settle at the TLS admin listener, known by a client certificate or by
//! an issuer's token.

use std::fmt::Write as _;

use rcgen::{ExtendedKeyUsagePurpose, SanType};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::approvals::{connect, id_of};
use crate::approvals_ledger::Key;
use crate::kit::{
    Gate, Lines, Origin, Pki, Program, Session, Site, TIERS, allow, names, need, until,
};
use crate::oidc::Issuer;

const HOST: &str = "artifacts.example.net";
const NAME: &str = "tidegate.acme.example";
const ON_CALL: &str = "spiffe://acme/people/on-call";

/// A gate that other hosts reach, an issuer, an agent's session, and a host that is asked about.
struct Bench {
    pki: Pki,
    issuer: Issuer,
    origin: Origin,
    gate: Gate,
    session: Option<Session>,
}

/// How one call fared.
#[derive(Debug)]
struct Answer {
    status: String,
    body: Value,
}

impl Bench {
    /// With these lines in the tier that asks.
    fn start(tier: &str) -> Self {
        let (issuer, origin) = (Issuer::new(), Origin::http(Site::default().answers()));
        let policy = policy(&issuer, origin.port(), tier);
        Self::with(&policy, issuer, origin)
    }

    fn with(policy: &str, issuer: Issuer, origin: Origin) -> Self {
        need("curl");
        let pki = Pki::new();
        let (cert, key) = pki.issue(|params| {
            params.subject_alt_names = vec![SanType::DnsName(NAME.try_into().expect("ASCII"))];
        });
        let gate = Gate::plan(policy)
            .listen(&format!("admin-names = [\"{NAME}\"]\n"))
            .file("admin.pem", &cert)
            .file("admin.key", &key)
            .file("people.pem", &pki.pem())
            .file("issuer.pem", &issuer.pki.pem())
            .start();
        // Not with sessions of a key.
        let is_local = policy.contains("local = \"trust\"");
        let session = is_local.then(|| gate.session(&json!({})));
        Self {
            pki,
            issuer,
            origin,
            gate,
            session,
        }
    }

    fn attempt(&self) -> crate::kit::Message {
        let target = format!("{HOST}:{}", self.origin.port());
        connect(
            &self.gate,
            self.session.as_ref().expect("a session"),
            &target,
        )
    }

    /// A file with a client certificate for that name, and its key.
    fn certificate(&self, name: &str) -> String {
        let (cert, key) = self.pki.issue(|params| {
            let name = name.try_into().expect("ASCII");
            params.subject_alt_names = vec![SanType::URI(name)];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        });
        let file = format!("{}.pem", name.rsplit('/').next().unwrap_or_default());
        let file = self.gate.folder().join(file);
        std::fs::write(&file, format!("{cert}{key}")).expect("a file");
        file.display().to_string()
    }

    /// One call at the admin listener; with a body it is a POST.
    fn call(&self, path: &str, shown: &[&str], body: Option<&Value>) -> Answer {
        let said = self.gate.said();
        let mut lines = said.lines();
        let address = lines.find_map(|line| line.strip_prefix("tidegate: admin-tls on "));
        let port = address
            .and_then(|it| it.rsplit(':').next())
            .expect("a port");
        let ca = self.pki.write(self.gate.folder());
        let mut curl = Program::new("curl", self.gate.folder())
            .args(["-sS", "--noproxy", "*", "-m", "20", "-o", "body"])
            .args(["-w", "%{http_code}"])
            .args(["--resolve", &format!("{NAME}:{port}:127.0.0.1")])
            .args(["--cacert".as_ref(), ca.as_os_str()])
            .args(shown);
        if let Some(body) = body {
            let body = body.to_string();
            curl = curl.args(["-H", "Content-Type: application/json", "-d", &body]);
        }
        let url = format!("https://{NAME}:{port}{path}");
        let status = curl.args([&url]).run().stdout.trim().to_owned();
        let body = std::fs::read(self.gate.folder().join("body")).unwrap_or_default();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        Answer { status, body }
    }

    fn allow(&self, id: &str, shown: &[&str]) -> Answer {
        let words = json!({ "scope": "1h", "note": "ticket 114" });
        self.call(&format!("/v1/approvals/{id}/allow"), shown, Some(&words))
    }

    /// The ids of the requests that a reviewer sees.
    fn seen(&self, shown: &[&str]) -> Vec<String> {
        let answer = self.call("/v1/approvals", shown, None);
        assert_eq!(answer.status, "200", "{answer:?}");
        let all = answer.body["requests"].as_array().expect("a list").clone();
        all.iter()
            .map(|it| it["id"].as_str().expect("an id").to_owned())
            .collect()
    }

    fn bearer(&self, claims: &Value) -> String {
        format!("Authorization: Bearer {}", self.issuer.token(claims))
    }
}

fn policy(issuer: &Issuer, port: u16, tier: &str) -> String {
    let mut text = TIERS.replace("[tier.standard]\n", &format!("[tier.standard]\n{tier}\n"));
    text.push_str(&names(&[HOST, crate::oidc::HOST]));
    text.push_str(&allow("reach", HOST, port));
    let url = &issuer.url;
    let _ = write!(
        text,
        "
[[rule]]
id = \"artifacts\"
verdict = \"ask\"
to.hosts = [\"{HOST}\"]
to.ports = [{port}]

[identity.session]
local = \"trust\"

[group.security]
members = [\"claim:repository_id=77\"]

[[identity.issuer]]
name = \"people\"
preset = \"github-actions\"
issuer = \"{url}\"
audience = \"tidegate\"
require = {{ owner = \"12\" }}
addresses = [\"127.0.0.0/8\"]
roots = [\"issuer.pem\"]

[listen.admin-tls]
address = \"127.0.0.1:0\"
cert = \"admin.pem\"
key = \"admin.key\"
client-ca = \"people.pem\"
client-cert = \"optional\"
"
    );
    text
}

#[test]
fn a_client_certificate_settles_for_the_subject_that_it_names() {
    let bench = Bench::start(&format!("reviewers = [\"subject:{ON_CALL}\"]"));
    let id = id_of(&bench.attempt());
    let (own, other) = (
        bench.certificate(ON_CALL),
        bench.certificate("spiffe://acme/people/other"),
    );
    let (own, other) = (["--cert", own.as_str()], ["--cert", other.as_str()]);

    let unknown = bench.call("/v1/approvals", &[], None);
    assert_eq!(unknown.status, "401", "{unknown:?}");
    assert_eq!(bench.seen(&other), [""; 0], "no reviewer of that tier");
    let refused = bench.allow(&id, &other);
    assert_eq!(
        (refused.status.as_str(), &refused.body["error"]),
        ("403", &json!("not_reviewer"))
    );
    assert_eq!(bench.attempt().status(), 403);

    assert_eq!(bench.seen(&own), [id.as_str()]);
    let allowed = bench.allow(&id, &own);
    assert_eq!(allowed.status, "200", "{allowed:?}");
    assert_eq!(bench.attempt().status(), 200);
    let line = &bench.gate.records().named("approval_settled")[0];
    let by = json!([format!("subject:{ON_CALL}")]);
    assert_eq!(line["tidegate.request.reviewers"], by, "{line:?}");
    assert_eq!(line["tidegate.asker.door"], "admin-tls");
    let revoked = bench.call(
        &format!("/v1/approvals/{id}/revoke"),
        &own,
        Some(&json!({})),
    );
    assert_eq!(revoked.status, "200", "{revoked:?}");
    assert_eq!(bench.attempt().status(), 403);
}

#[test]
fn an_issuers_token_settles_for_its_user_or_its_group_and_a_session_token_never() {
    let bench = Bench::start("reviewers = [\"subject:ana\", \"group:security\"]");
    let first = id_of(&bench.attempt());
    let late = json!({ "iat": 1, "exp": 2 });
    for (claims, status) in [
        (json!({ "actor": "eve", "jti": "t-1" }), "403"),
        (late, "401"),
        (json!({ "aud": "another", "jti": "t-2" }), "401"),
        (json!({ "jti": "t-3" }), "200"),
    ] {
        let shown = bench.bearer(&claims);
        let answer = bench.allow(&first, &["-H", &shown]);
        assert_eq!(answer.status, status, "{claims} {answer:?}");
    }
    let other = bench.gate.session(&json!({}));
    let target = format!("{HOST}:{}", bench.origin.port());
    let second = id_of(&connect(&bench.gate, &other, &target));
    let own = format!("Authorization: Bearer {}", other.token);
    let refused = bench.allow(&second, &["-H", &own]);
    assert_eq!(refused.status, "401", "{refused:?}");
    let of_group = bench.bearer(&json!({ "actor": "kim", "repository_id": "77", "jti": "t-4" }));
    let denied = bench.call(
        &format!("/v1/approvals/{second}/deny"),
        &["-H", &of_group],
        Some(&json!({ "note": "not today" })),
    );
    assert_eq!(denied.status, "200", "{denied:?}");
    let refused = connect(&bench.gate, &other, &target);
    assert_eq!(refused.json()["error"], "approval_refused", "{refused:?}");
}

#[test]
fn a_reviewer_who_lost_the_right_meanwhile_counts_no_longer() {
    let both = format!(
        "reviewers = [\"subject:{ON_CALL}\", \"subject:ana\", \"subject:kim\"]\napprovals = 2"
    );
    let bench = Bench::start(&both);
    let id = id_of(&bench.attempt());
    let own = bench.certificate(ON_CALL);
    let own = ["--cert", own.as_str()];
    let first = bench.allow(&id, &own);
    assert_eq!(first.body["state"], "pending", "{first:?}");
    let twice = bench.allow(&id, &own);
    assert_eq!(twice.status, "409", "{twice:?}");

    let fewer = both.replace(&format!("\"subject:{ON_CALL}\", "), "");
    bench
        .gate
        .reload(&policy(&bench.issuer, bench.origin.port(), &fewer));
    let lost = bench.allow(&id, &own);
    assert_eq!(lost.status, "403", "{lost:?}");
    let ana = bench.bearer(&json!({ "jti": "t-1" }));
    let second = bench.allow(&id, &["-H", &ana]);
    assert_eq!(
        second.body["state"], "pending",
        "the first counts no longer: {second:?}"
    );
    assert_eq!(bench.attempt().status(), 403);
    let kim = bench.bearer(&json!({ "actor": "kim", "jti": "t-2" }));
    let third = bench.allow(&id, &["-H", &kim]);
    assert_eq!(third.body["state"], "allowed", "{third:?}");
    assert_eq!(bench.attempt().status(), 200);
}

/// Two gates with one ledger in a file; sessions of `key` are good at both.
#[test]
fn the_first_of_two_votes_outlives_a_crash_and_counts_at_another_gate() {
    let (key, folder) = (Key::new(), TempDir::new().expect("a folder"));
    let uid = rustix::process::geteuid().as_raw();
    let tier = format!(
        "reviewers = [\"uid:{uid}\", \"subject:{ON_CALL}\"]\napprovals = 2\nnot-oneself = false"
    );
    let (issuer, origin) = (Issuer::new(), Origin::http(Site::default().answers()));
    let ledger = folder.path().join("ledger.db");
    let text = policy(&issuer, origin.port(), &tier).replace("local = \"trust\"", &key.line())
        + &format!("\n[ledger]\nfile = {ledger:?}\n");
    let issuer_of_other = Issuer::new();
    let mut one = Bench::with(&text, issuer, origin);
    let two = Bench::with(
        &text,
        issuer_of_other,
        Origin::http(Site::default().answers()),
    );
    let session = key.session();
    let target = format!("{HOST}:{}", one.origin.port());
    let allow = json!({ "scope": "1h" });
    let vote =
        |gate: &Gate, id: &str| gate.control(&format!("/v1/approvals/{id}/allow"), None, &allow);

    let first = id_of(&connect(&one.gate, &session, &target));
    assert_eq!(vote(&one.gate, &first).json()["state"], "pending");
    one.gate.crash_and_restart();
    let again = id_of(&connect(&one.gate, &session, &target));
    assert_ne!(again, first, "open requests are in memory");
    let seen = |gate: &Gate, id: &str| {
        let all = crate::approvals::approvals(gate);
        let request = all.into_iter().find(|it| it["id"] == id);
        request.map(|it| it["allowed_by"].clone())
    };
    let by = json!([format!("uid:{uid}")]);
    assert_eq!(seen(&one.gate, &again), Some(by.clone()));
    let twice = vote(&one.gate, &again);
    assert_eq!(twice.json()["error"], "second_reviewer_needed", "{twice:?}");

    // The same reviewer has one vote at both gates; another reviewer has the second one.
    let other = id_of(&connect(&two.gate, &session, &target));
    until("the other gate has the vote", || {
        seen(&two.gate, &other) == Some(by.clone())
    });
    let twice = vote(&two.gate, &other);
    assert_eq!(twice.json()["error"], "second_reviewer_needed", "{twice:?}");
    let certificate = two.certificate(ON_CALL);
    let second = two.allow(&other, &["--cert", &certificate]);
    assert_eq!(second.body["state"], "allowed", "{second:?}");
    let line = &two.gate.records().named("approval_settled")[0];
    let both = json!([format!("uid:{uid}"), format!("subject:{ON_CALL}")]);
    assert_eq!(line["tidegate.request.reviewers"], both);
    until("it counts at the first gate", || {
        connect(&one.gate, &session, &target).status() == 200
    });

    // A vote ends with what was asked: for another session it is the first again.
    let session = key.session();
    let next = id_of(&connect(&one.gate, &session, &target));
    assert_eq!(vote(&one.gate, &next).json()["state"], "pending");
    // A policy that asks for one reviewer needs no other.
    one.gate
        .reload(&text.replace("approvals = 2", "approvals = 1"));
    assert_eq!(vote(&one.gate, &next).json()["state"], "allowed");
}
