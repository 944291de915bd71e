//! Tests of session tokens, valid and invalid.

use super::*;

const NOW: i64 = 1_790_000_000;
const HOUR: Duration = Duration::from_hours(1);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW + seconds).unwrap()
}

fn signer() -> Signer {
    Signer::ephemeral().unwrap()
}

fn tokens(keys: &[&Signer]) -> Tokens {
    let keys = keys.iter().map(|signer| signer.public().clone());
    Tokens::new(keys, "tidegate".into(), Duration::from_hours(12))
}

fn claims(tokens: &Tokens) -> Claims {
    tokens.blank("0195f3c2-7e1a-7bbb-8ccc-0123456789ab", at(0), HOUR)
}

/// A token with any header and claims, signed with a test key.
fn forged(header: &serde_json::Value, claims: &Claims, key: &Signer) -> String {
    let encode = |json: Vec<u8>| URL_SAFE_NO_PAD.encode(json);
    let head = encode(serde_json::to_vec(header).unwrap());
    let body = encode(serde_json::to_vec(claims).unwrap());
    let text = format!("{head}.{body}");
    let signature =
        jsonwebtoken::crypto::sign(text.as_bytes(), &key.key, Algorithm::EdDSA).unwrap();
    format!("{text}.{signature}")
}

fn header(signer: &Signer) -> serde_json::Value {
    serde_json::json!({ "alg": "EdDSA", "typ": TYP, "kid": &*signer.public().kid })
}

#[test]
fn a_token_says_what_it_was_made_with() {
    let signer = signer();
    let tokens = tokens(&[&signer]);
    let claims = Claims {
        sub: Some("ana@acme.example".into()),
        agent: Some("claude-code".into()),
        repository: Some("github.com/acme/web".into()),
        r#ref: Some("main".into()),
        commit: Some("4bf92f35".into()),
        groups: vec!["platform".into()],
        claims: vec![("repository_owner".into(), "acme".into())],
        tier: Some("open".into()),
        job: Some(JobClaim {
            run: Some("77".into()),
            ..JobClaim::default()
        }),
        mode: Some("plan".into()),
        channel: Some("bash".into()),
        narrow: NarrowClaim {
            tiers: vec!["restricted".into()],
            within: Some(vec!["model-api".into()]),
        },
        bound: BoundClaim {
            address: Some("10.0.0.0/8".parse().unwrap()),
            listener: Some("127.0.0.1:3128".parse().unwrap()),
        },
        ..claims(&tokens)
    };
    let token = signer.mint(&claims).unwrap();
    assert!(is_session_token(&token));

    let grant = tokens.verify(&token, at(1)).unwrap();

    assert_eq!(grant.subject.as_deref(), Some("ana@acme.example"));
    assert_eq!(grant.session.as_deref(), Some(&*claims.sid));
    assert_eq!(grant.root, grant.session);
    assert_eq!(grant.repository.as_deref(), Some("github.com/acme/web"));
    assert_eq!(&*grant.groups, [Arc::<str>::from("platform")]);
    assert_eq!(grant.narrow.tiers, [Arc::<str>::from("restricted")]);
    assert!(grant.narrow.within.is_some() && grant.verified);
    assert_eq!(grant.bound.address, claims.bound.address);
    assert_eq!(grant.work.revision.as_deref(), Some("4bf92f35"));
    assert_eq!(grant.work.job.as_ref().unwrap().run.as_deref(), Some("77"));
    assert_eq!(grant.issuer, signer.public().kid);
}

#[test]
fn a_token_holds_between_its_times_give_or_take_a_minute() {
    let signer = signer();
    let tokens = tokens(&[&signer]);
    let token = signer.mint(&claims(&tokens)).unwrap();
    for (seconds, expected) in [
        (-61, Err(TokenError::NotYet)),
        (-59, Ok(())),
        (0, Ok(())),
        (3_600, Ok(())),
        (3_659, Ok(())),
        (3_660, Err(TokenError::Expired)),
        (100_000, Err(TokenError::Expired)),
    ] {
        assert_eq!(tokens.verify(&token, at(seconds)).map(drop), expected);
    }
}

#[test]
fn a_token_that_begins_later_is_not_valid_yet() {
    let signer = signer();
    let tokens = tokens(&[&signer]);
    let later = Claims {
        nbf: Some(NOW + 600),
        ..claims(&tokens)
    };
    let token = signer.mint(&later).unwrap();
    let verified = tokens.verify(&token, at(0)).map(drop);
    assert_eq!(verified, Err(TokenError::NotYet));
    assert!(tokens.verify(&token, at(600)).is_ok());
}

#[test]
fn keys_rotate_by_their_ids() {
    let (old, new) = (signer(), signer());
    let token = |signer: &Signer| signer.mint(&claims(&tokens(&[signer]))).unwrap();
    let both = tokens(&[&old, &new]);
    assert!(both.verify(&token(&old), at(1)).is_ok());
    assert!(both.verify(&token(&new), at(1)).is_ok());
    let after = tokens(&[&new]);
    let verified = after.verify(&token(&old), at(1)).map(drop);
    assert_eq!(verified, Err(TokenError::Key));
    assert!(!after.knows(&old.public().kid) && after.knows(&new.public().kid));
}

#[test]
fn another_key_under_a_known_id_signs_nothing() {
    let (ours, theirs) = (signer(), signer());
    let tokens = tokens(&[&ours]);
    let token = forged(&header(&ours), &claims(&tokens), &theirs);
    let verified = tokens.verify(&token, at(1)).map(drop);
    assert_eq!(verified, Err(TokenError::Signature));
}

#[test]
fn a_changed_token_is_none() {
    let signer = signer();
    let tokens = tokens(&[&signer]);
    let token = signer.mint(&claims(&tokens)).unwrap();
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let other = Claims {
        tier: Some("open".into()),
        ..claims(&tokens)
    };
    parts[1] = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&other).unwrap());
    let changed = tokens.verify(&parts.join("."), at(1)).map(drop);
    assert_eq!(changed, Err(TokenError::Signature));
    for broken in [
        &token[1..],
        &token[..token.len() - 1],
        "",
        "a.b.c",
        "..",
        &"a".repeat(10_000),
    ] {
        assert!(tokens.verify(broken, at(1)).is_err(), "{broken}");
    }
    let large = format!("{token}{}", "A".repeat(MAX_TOKEN_BYTES));
    let verified = tokens.verify(&large, at(1)).map(drop);
    assert_eq!(verified, Err(TokenError::Malformed));
}

#[test]
fn the_header_does_not_choose_the_algorithm() {
    let signer = signer();
    let tokens = tokens(&[&signer]);
    for alg in ["none", "None", "HS256", "RS256", "ES256", "EdDSA "] {
        let mut head = header(&signer);
        head["alg"] = alg.into();
        let token = forged(&head, &claims(&tokens), &signer);
        let verified = tokens.verify(&token, at(1)).map(drop);
        assert_eq!(verified, Err(TokenError::Algorithm), "{alg}");
    }
    // The public key as the secret of a symmetric algorithm.
    let mut head = Header::new(Algorithm::HS256);
    head.typ = Some(TYP.into());
    head.kid = Some(signer.public().kid.to_string());
    let secret = EncodingKey::from_secret(&signer.public().bytes);
    let token = jsonwebtoken::encode(&head, &claims(&tokens), &secret).unwrap();
    let verified = tokens.verify(&token, at(1)).map(drop);
    assert_eq!(verified, Err(TokenError::Algorithm));
}

#[test]
fn a_header_that_says_more_is_refused() {
    let signer = signer();
    let tokens = tokens(&[&signer]);
    for (key, value) in [
        ("crit", serde_json::json!(["exp"])),
        ("jku", serde_json::json!("https://keys.example.com/")),
        ("jwk", serde_json::json!({})),
        ("x5u", serde_json::json!("https://keys.example.com/")),
    ] {
        let mut head = header(&signer);
        head[key] = value;
        let token = forged(&head, &claims(&tokens), &signer);
        let verified = tokens.verify(&token, at(1)).map(drop);
        assert_eq!(verified, Err(TokenError::Malformed), "{key}");
    }
    let mut head = header(&signer);
    head["typ"] = "JWT".into();
    let token = forged(&head, &claims(&tokens), &signer);
    assert!(!is_session_token(&token));
    assert!(tokens.verify(&token, at(1)).is_err());
}

#[test]
fn a_token_for_another_audience_is_refused() {
    let signer = signer();
    let tokens = tokens(&[&signer]);
    let with = |change: fn(&mut Claims)| {
        let mut claims = claims(&tokens);
        change(&mut claims);
        tokens
            .verify(&signer.mint(&claims).unwrap(), at(1))
            .map(drop)
    };
    assert_eq!(
        with(|it| it.aud = "other-gate".into()),
        Err(TokenError::Audience)
    );
    assert_eq!(with(|it| it.iss = "other".into()), Err(TokenError::Issuer));
    assert_eq!(
        with(|it| it.exp = it.iat + 13 * 3_600),
        Err(TokenError::TooLong)
    );
    assert_eq!(
        with(|it| it.narrow.within = Some(vec!["everything".into()])),
        Err(TokenError::Malformed)
    );
}

#[test]
fn an_unknown_claim_is_refused_because_it_could_be_a_restriction() {
    let signer = signer();
    let tokens = tokens(&[&signer]);
    let mut json = serde_json::to_value(claims(&tokens)).unwrap();
    json["only-on-tuesdays"] = true.into();
    let mut head = Header::new(Algorithm::EdDSA);
    head.typ = Some(TYP.into());
    head.kid = Some(signer.public().kid.to_string());
    let token = jsonwebtoken::encode(&head, &json, &signer.key).unwrap();
    let verified = tokens.verify(&token, at(1)).map(drop);
    assert_eq!(verified, Err(TokenError::Malformed));
}
