use std::collections::BTreeMap;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::*;
use crate::config::load_text;

const NOW: i64 = 1_800_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

/// The configuration of an issuer, parsed.
fn issuer(lines: &str) -> config::Issuer {
    let text = format!("[[identity.issuer]]\nname = \"ci\"\naudience = \"tg\"\n{lines}\n");
    let (config, findings) = load_text(std::path::Path::new("a.toml"), &text);
    config
        .unwrap_or_else(|| panic!("{findings:?}"))
        .identity
        .issuers[0]
        .clone()
}

fn known(lines: &str) -> Known {
    let config = issuer(lines);
    Known {
        algorithms: config
            .algorithms
            .iter()
            .filter_map(|name| jwks::algorithm(name))
            .collect(),
        keyring: Arc::new(Keyring::new(config.stale)),
        tls: None,
        config,
    }
}

/// The signing key of an issuer.
struct Signing(RsaKeyPair);

impl Signing {
    fn new() -> Self {
        Self(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    fn keys(&self, algorithms: &[Algorithm]) -> Keys {
        let public = self.0.public_key();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let set = json!({"keys": [{
            "kty": "RSA", "kid": "k1", "use": "sig",
            "n": part(public.modulus().big_endian_without_leading_zero()),
            "e": part(public.exponent().big_endian_without_leading_zero()),
        }]});
        Keys::parse(set.to_string().as_bytes(), algorithms).unwrap()
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let mut signature = vec![0; self.0.public_modulus_len()];
        let random = SystemRandom::new();
        self.0
            .sign(
                &RSA_PKCS1_SHA256,
                &random,
                signed.as_bytes(),
                &mut signature,
            )
            .unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn header() -> Value {
    json!({"alg": "RS256", "kid": "k1", "typ": "JWT"})
}

/// The claims of every token, with these additions.
fn claims(issuer: &str, more: &Value) -> Value {
    let mut all = json!({
        "iss": issuer, "aud": "tg", "iat": NOW, "nbf": NOW, "exp": NOW + 300, "jti": "j-1",
    });
    for (name, value) in more.as_object().unwrap() {
        all[name] = value.clone();
    }
    all
}

fn judge(known: &Known, key: &Signing, token: &str) -> Result<Grant, TokenError> {
    let header = Header::of(token, &known.algorithms)?;
    let keys = key.keys(&known.algorithms);
    let key = keys.get(&header.kid).ok_or(TokenError::Key)?;
    known.grant(token, &header, key, now())
}

fn granted(lines: &str, more: &Value) -> Grant {
    let (known, key) = (known(lines), Signing::new());
    let token = key.sign(&header(), &claims(&known.config.issuer, more));
    judge(&known, &key, &token).unwrap()
}

fn text(text: Option<&Arc<str>>) -> &str {
    text.map_or("", |text| text)
}

#[test]
fn a_github_token_says_repository_branch_job_and_tier() {
    let lines = "preset = \"github-actions\"\nrequire = { repository_owner_id = \"12\" }\n\
                 claims = { tier = \"repo_property_tidegate_tier\" }";
    let said = json!({
        "sub": "repo:acme@12/web@34:pull_request", "repository": "Acme/web",
        "repository_id": "34", "repository_owner": "Acme", "repository_owner_id": "12",
        "ref": "refs/pull/7/merge", "head_ref": "fix", "sha": "4bf9", "run_id": "99",
        "workflow": "build", "check_run_id": 5, "runner_environment": "github-hosted",
        "actor": "ana", "repo_property_tidegate_tier": "restricted",
    });
    let grant = granted(lines, &said);
    assert_eq!(grant.evidence, super::super::Evidence::Oidc);
    assert_eq!((&*grant.id, &*grant.issuer), ("j-1", "ci"));
    assert_eq!(text(grant.repository.as_ref()), "github.com/Acme/web");
    assert_eq!(text(grant.tier.as_ref()), "restricted");
    assert_eq!(text(grant.work.ref_name.as_ref()), "fix");
    assert_eq!(text(grant.work.revision.as_ref()), "4bf9");
    let job = grant.work.job.clone().unwrap();
    assert_eq!(text(job.pipeline.as_ref()), "build");
    assert_eq!(text(job.run.as_ref()), "99");
    assert_eq!(text(job.task.as_ref()), "5");
    let has = |name: &str, value: &str| {
        grant
            .claims
            .iter()
            .any(|(n, v)| (&**n, &**v) == (name, value))
    };
    assert!(has("repository_id", "34") && has("check_run_id", "5") && !has("jti", "j-1"));
}

#[test]
fn a_branch_of_github_enterprise_is_at_its_own_host() {
    let lines = "preset = \"github-actions\"\n\
                 issuer = \"https://git.acme.example/_services/token\"";
    let said = json!({"repository": "acme/web", "ref": "refs/heads/main", "head_ref": ""});
    let grant = granted(lines, &said);
    assert_eq!(text(grant.repository.as_ref()), "git.acme.example/acme/web");
    assert_eq!(text(grant.work.ref_name.as_ref()), "main");
}

#[test]
fn a_fork_of_gitlab_is_not_its_parent() {
    let lines = "preset = \"gitlab\"\nrequire = { job_project_id = \"1\" }";
    let said = json!({
        "project_path": "mallory/web", "project_id": "666",
        "job_project_path": "acme/web", "job_project_id": "1", "pipeline_id": "8", "ref": "x",
    });
    let grant = granted(lines, &said);
    assert_eq!(text(grant.repository.as_ref()), "gitlab.com/mallory/web");
    assert_eq!(text(grant.beside.as_ref()), "gitlab.com/acme/web");
    assert_eq!(text(grant.work.job.as_ref().unwrap().run.as_ref()), "8");
}

#[test]
fn a_pipeline_of_buildkite_has_the_repository_of_the_table() {
    let lines = "preset = \"buildkite\"\nrequire = { organization_slug = \"acme\" }\n\
                 repositories = { \"acme/web\" = \"https://github.com/acme/web.git\" }";
    let said = |pipeline: &str| {
        json!({"organization_slug": "acme", "pipeline_slug": pipeline, "build_number": 7,
               "build_branch": "main", "build_tag": null})
    };
    let grant = granted(lines, &said("web"));
    assert_eq!(text(grant.repository.as_ref()), "github.com/acme/web");
    assert_eq!(text(grant.work.ref_name.as_ref()), "main");
    assert_eq!(granted(lines, &said("other")).repository, None);
}

#[test]
fn a_job_of_circleci_names_its_origin() {
    let lines = "preset = \"circleci\"\nissuer = \"https://oidc.circleci.com/org/o-1\"";
    let said = json!({"oidc.circleci.com/vcs-origin": "github.com/acme/web",
                      "oidc.circleci.com/vcs-ref": "refs/heads/main"});
    let grant = granted(lines, &said);
    assert_eq!(text(grant.repository.as_ref()), "github.com/acme/web");
    assert_eq!(text(grant.work.ref_name.as_ref()), "main");
}

#[test]
fn a_session_of_claude_code_is_a_session() {
    let text_of = "[[identity.issuer]]\nname = \"cc\"\npreset = \"claude-code\"\n\
                   audience = \"ccpool_1\"\n";
    let (config, findings) = load_text(std::path::Path::new("a.toml"), text_of);
    let config = config.unwrap_or_else(|| panic!("{findings:?}"));
    let issuer = &config.identity.issuers[0];
    let said = |role: &str| {
        let said = json!({"ccr:session_id": "s-1", "ccr:org_id": "o", "ccr:role": role,
            "act": {"sub": "user:u", "email": "ana@acme.example", "act": {"sub": "ccr:runner:r"}}});
        said.as_object().unwrap().clone()
    };
    assert_eq!(
        (issuer.prefix, &*issuer.algorithms[0]),
        ("sk-ant-cc-", "ES256")
    );
    assert!(claimed::meets(issuer, &said("session_worker")));
    assert!(!claimed::meets(issuer, &said("runner")));
    let grant = claimed::grant(issuer, &said("session_worker"), now(), "token");
    assert_eq!(text(grant.session.as_ref()), "s-1");
    assert_eq!(text(grant.subject.as_ref()), "ana@acme.example");
    assert_eq!(text(grant.work.agent.as_ref()), "claude-code");
}

#[test]
fn what_is_wrong_with_a_token_is_told() {
    let known = known("issuer = \"https://i.example.com\"\nrequire = { org = \"acme|b/*\" }");
    let key = Signing::new();
    let good = claims("https://i.example.com", &json!({"org": "acme"}));
    judge(&known, &key, &key.sign(&header(), &good)).unwrap();
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    for (claims, why) in [
        (with("aud", json!("other")), TokenError::Audience),
        (with("aud", json!(null)), TokenError::Required),
        (
            with("iss", json!("https://j.example.com")),
            TokenError::Issuer,
        ),
        (with("exp", json!(NOW - 61)), TokenError::Expired),
        (with("exp", json!(null)), TokenError::Malformed),
        (with("exp", json!(NOW + 2 * 86_400)), TokenError::TooLong),
        (with("nbf", json!(NOW + 61)), TokenError::NotYet),
        (with("iat", json!(NOW + 61)), TokenError::NotYet),
        (with("org", json!("acme2")), TokenError::Required),
        (with("org", json!(["acme"])), TokenError::Required),
    ] {
        let token = key.sign(&header(), &claims);
        assert_eq!(judge(&known, &key, &token).unwrap_err(), why, "{claims}");
    }
    for skewed in [with("exp", json!(NOW - 59)), with("nbf", json!(NOW + 59))] {
        judge(&known, &key, &key.sign(&header(), &skewed)).unwrap();
    }
    for (header, why) in [
        (json!({"alg": "none", "kid": "k1"}), TokenError::Algorithm),
        (json!({"alg": "HS256", "kid": "k1"}), TokenError::Algorithm),
        (json!({"alg": "RS512", "kid": "k1"}), TokenError::Algorithm),
        (json!({"alg": "RS256"}), TokenError::Key),
        (json!({"alg": "RS256", "kid": "k2"}), TokenError::Key),
        (
            json!({"alg": "RS256", "kid": "k1", "crit": ["x"]}),
            TokenError::Malformed,
        ),
        (
            json!({"alg": "RS256", "kid": "k1", "typ": "logout+jwt"}),
            TokenError::Malformed,
        ),
    ] {
        let token = key.sign(&header, &good);
        assert_eq!(judge(&known, &key, &token).unwrap_err(), why, "{header}");
    }
    let stranger = Signing::new().sign(&header(), &good);
    assert_eq!(
        judge(&known, &key, &stranger).unwrap_err(),
        TokenError::Signature
    );
}

#[test]
fn a_public_key_is_no_secret_of_hmac() {
    let known = known("issuer = \"https://i.example.com\"");
    let key = Signing::new();
    let der = key.0.public_key().as_der().unwrap();
    let good = claims("https://i.example.com", &json!({}));
    let mut head = jsonwebtoken::Header::new(Algorithm::HS256);
    head.kid = Some("k1".to_owned());
    let secret = jsonwebtoken::EncodingKey::from_secret(der.as_ref());
    let token = jsonwebtoken::encode(&head, &good, &secret).unwrap();
    assert_eq!(
        judge(&known, &key, &token).unwrap_err(),
        TokenError::Algorithm
    );
}

#[tokio::test]
async fn keys_are_fetched_seldom_and_kept_while_the_server_does_not_answer() {
    let key = Signing::new();
    let ring = Keyring::new(Duration::from_hours(1));
    let fetches = std::cell::Cell::new(0);
    let answer = |well: bool| {
        fetches.set(fetches.get() + 1);
        let keys = well.then(|| (key.keys(&[Algorithm::RS256]), Some(Duration::from_mins(5))));
        async { keys }
    };
    let at = |seconds: i64| Timestamp::from_second(NOW + seconds).unwrap();
    // The server does not answer: no keys, and no second request at once.
    assert!(ring.keys(at(0), || answer(false)).await.is_none());
    assert!(ring.keys(at(1), || answer(true)).await.is_none());
    assert_eq!(fetches.get(), 1);
    let first = ring.keys(at(10), || answer(true)).await.unwrap();
    assert!(ring.keys(at(11), || answer(true)).await.is_some());
    assert_eq!(fetches.get(), 2);
    // An unknown key causes at most one fetch a minute.
    for second in 11..70 {
        assert!(
            ring.newer(&first, at(second), || answer(true))
                .await
                .is_none()
        );
    }
    assert_eq!(fetches.get(), 2);
    let newer = ring.newer(&first, at(71), || answer(true)).await;
    assert!(newer.is_some() && fetches.get() == 3);
    // After their lifetime: still used while the server does not answer, and not for ever.
    assert!(ring.keys(at(400), || answer(false)).await.is_some());
    assert!(
        ring.keys(at(71 + 300 + 3600), || answer(false))
            .await
            .is_none()
    );
}

#[test]
fn a_template_needs_all_of_its_claims() {
    let lines = "issuer = \"https://i.example.com\"\n\
                 claims = { repository = \"i.example.com/{a}/{b}|c\" }";
    let issuer = issuer(lines);
    let of = |said: Value| {
        let said = said.as_object().unwrap().clone();
        claimed::grant(&issuer, &said, now(), "t").repository
    };
    assert_eq!(
        text(of(json!({"a": "x", "b": "y"})).as_ref()),
        "i.example.com/x/y"
    );
    assert_eq!(
        text(of(json!({"a": "x", "c": "h.example/o/r"})).as_ref()),
        "h.example/o/r"
    );
    assert_eq!(of(json!({"a": "x", "b": ""})), None);
    assert_eq!(issuer.repositories, BTreeMap::new());
}
