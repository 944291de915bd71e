//! Tests of the content of lines, and that the schema matches it.

use super::*;

#[tokio::test]
async fn every_kind_of_line_fits_the_schema() {
    let log = Log::new();
    let recorder = log.start();
    for facts in [
        full(),
        allowed(),
        FlowFacts {
            action: None,
            action_any: true,
            ..full()
        },
    ] {
        let mut facts = FlowRecord::from(facts);
        let mut permit = recorder.permit().await.expect("room");
        permit.decided(&mut facts).await.expect("written");
        permit.closed(&facts, &ended());
    }
    refuse(&recorder).await;
    for event in events() {
        recorder.event(&event);
    }
    let mut open = FlowRecord::from(allowed());
    let mut permit = recorder.permit().await.expect("room");
    permit.decided(&mut open).await.expect("written");
    std::fs::rename(log.path(), log.folder.path().join("moved")).expect("moved");
    recorder.reopen();
    eventually("a new file", || {
        log.path().exists() && !text(&log.path()).is_empty()
    })
    .await;
    permit.closed(&open, &ended());
    recorder.close().await;
    let mut all = lines(&text(&log.folder.path().join("moved")));
    all.extend(log.lines());
    let kinds: BTreeSet<_> = names(&all).into_iter().map(str::to_owned).collect();
    let expected = [
        "approval_requested",
        "approval_settled",
        "checkpoint",
        "close",
        "connections_evicted",
        "containment_lost",
        "containment_reported",
        "decision",
        "exception_expired",
        "exception_granted",
        "exception_revoked",
        "jail_started",
        "notification_failed",
        "policy_advisory",
        "policy_loaded",
        "policy_rejected",
        "program_ended",
        "program_started",
        "report_token_made",
        "session_ended",
        "session_refused",
        "session_started",
        "tool_call_ended",
        "tool_call_started",
    ];
    assert_eq!(kinds, expected.map(str::to_owned).into());
    assert_valid(&all);
}

/// Returns one event of each kind, as the gate makes them.
fn events() -> Vec<Event> {
    let mut events = vec![
        Event::PolicyLoaded {
            digest: "abc".into(),
            generation: 1,
            copy: Some("abc".into()),
            change: "narrower".into(),
            repositories: vec!["github.com/acme/web@1a2b:.tidegate.toml sha256:ab".into()],
        },
        Event::PolicyRejected {
            digest: "abc".into(),
            generation: 1,
            detail: "x".repeat(500).into(),
        },
        Event::PolicyAdvisory {
            detail: "d".repeat(500).into(),
        },
        Event::ConnectionsEvicted {
            count: 384,
            network: [192, 0, 2, 7].into(),
        },
        Event::NotificationFailed {
            notifier: "on-call".into(),
            detail: "its server answers 500".into(),
        },
        Event::ProgramStarted {
            path: "/usr/local/bin/proxy-token".into(),
            detail: "d".into(),
        },
        Event::ProgramEnded {
            path: "/usr/local/bin/proxy-token".into(),
            detail: "d".into(),
            result: "ok",
            code: Some(0),
            took: Duration::from_millis(3),
        },
    ];
    for event in [
        Event::SessionStarted,
        Event::SessionEnded,
        Event::SessionRefused,
    ] {
        let facts = SessionFacts {
            session: full().session,
            repository: full().repository,
            work: full().work,
            evidence: "listener",
            trust: "verified",
            detail: Some("d".into()),
            ..SessionFacts::default()
        };
        events.push(event(Box::new(facts)));
    }
    let asker = Asker {
        door: "control",
        uid: Some(1000),
        pid: Some(7),
        address: Some([192, 0, 2, 7].into()),
        certificate: Some("spiffe://acme/ci".into()),
        session: Some("s".into()),
    };
    let approval = ApprovalFacts {
        operation: "connect".into(),
        flow: Arc::new(FlowFacts {
            flow: Uuid::from_u128(1),
            ..full()
        }),
        count: 1,
        ..ApprovalFacts::default()
    };
    events.push(Event::ApprovalRequested(Box::new(approval.clone())));
    events.push(Event::ApprovalSettled(Box::new(ApprovalFacts {
        result: Some("allowed"),
        scope: Some("once".into()),
        until: Some(Timestamp::UNIX_EPOCH),
        exception: Some("approval-1".into()),
        reviewers: vec!["uid:0".into()],
        note: Some("d".into()),
        asker: Some(asker.clone()),
        ..approval
    })));
    events.push(Event::ContainmentReported {
        inside: vec!["tcp", "udp"],
        outside: vec!["dns"],
        asker: asker.clone(),
    });
    let exception = ExceptionFacts {
        id: "EXC-1".into(),
        location: "ledger:1".into(),
        expires: Timestamp::UNIX_EPOCH,
        reviewers: vec!["uid:0".into()],
        hosts: vec!["artifacts.example.net".into()],
        detail: "migration".into(),
        asker: asker.clone(),
    };
    for event in [
        Event::ExceptionGranted,
        Event::ExceptionExpired,
        Event::ExceptionRevoked,
    ] {
        events.push(event(Box::new(exception.clone())));
    }
    events.push(Event::ReportTokenMade {
        lifetime: 900,
        count: 1,
        asker: asker.clone(),
    });
    let started = SessionFacts {
        session: Some("s".into()),
        evidence: "token",
        trust: "verified",
        asker: asker.clone(),
        ..SessionFacts::default()
    };
    events.push(Event::SessionStarted(Box::new(started.clone())));
    events.push(Event::SessionEnded(Box::new(started)));
    let call = CallFacts {
        session: Some("s".into()),
        call: ToolCall {
            id: Some("toolu_1".into()),
            tool: Some("Bash".into()),
            agent: Some("agent-2".into()),
            parent_agent: Some("agent-1".into()),
            prompt: Some("prompt-1".into()),
            ..ToolCall::default()
        },
        asker,
    };
    events.push(Event::ToolCallStarted(Box::new(call.clone())));
    events.push(Event::ToolCallEnded(Box::new(call)));
    let jail = JailFacts {
        session: Some("s".into()),
        shared: vec!["/home/ana/.npm".into()],
        missing: ["ipc"].into(),
    };
    events.push(Event::JailStarted(Box::new(jail)));
    let lost = SessionFacts {
        session: full().session,
        evidence: "listener",
        trust: "verified",
        detail: Some("d".into()),
        ..SessionFacts::default()
    };
    events.push(Event::ContainmentLost(Box::new(lost)));
    events
}

/// Byte for byte, because the chain of a log and its readers depend on the form of each line.
#[test]
fn each_kind_of_line_keeps_its_bytes() {
    let at = Timestamp::from_microsecond(1_700_000_000_000_001).expect("a time");
    let facts = FlowFacts {
        flow: Uuid::nil(),
        ..full()
    };
    let mut lines = vec![
        encode::decision(at, &facts),
        encode::close(at, &facts.clone().into(), &ended()),
    ];
    lines.extend(events().iter().map(|event| encode::event(at, event)));
    let bytes: Vec<u8> = lines.into_iter().flat_map(|line| line.bytes).collect();
    insta::assert_snapshot!(String::from_utf8(bytes).expect("UTF-8"));
}

#[test]
fn a_full_line_reads_as_documented() {
    let facts = FlowFacts {
        flow: Uuid::nil(),
        ..full()
    };
    let at = Timestamp::from_microsecond(1_700_000_000_000_001).expect("a time");
    let line = encode::close(at, &facts.clone().into(), &ended());
    insta::assert_snapshot!(
        String::from_utf8(line.bytes)
            .expect("UTF-8")
            .replace(",\"", ",\n\"")
    );
}

#[test]
fn facts_for_judging_a_flow_again_are_on_its_decision_line_alone() {
    let written = |line: encode::Line| -> BTreeSet<String> {
        let value: Value = serde_json::from_slice(&line.bytes).expect("JSON");
        value
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect()
    };
    let decision = written(encode::decision(Timestamp::UNIX_EPOCH, &full()));
    let close = written(encode::close(
        Timestamp::UNIX_EPOCH,
        &full().into(),
        &ended(),
    ));
    let added: Vec<_> = decision.difference(&close).map(String::as_str).collect();
    assert_eq!(
        added,
        [
            "tidegate.enforced",
            "tidegate.package.published",
            "tidegate.presented",
            "tidegate.repository.claimed",
            "tidegate.repository.hinted",
            "tidegate.repository.verified",
            "tidegate.request.facts",
            "tidegate.request.readings",
            "tidegate.request.seen",
            "tidegate.shadow.rule",
            "tidegate.shadow.verdict",
            "tidegate.tier.given",
            "tidegate.tier.issued",
            "tidegate.upgrade",
            "tidegate.within",
            "url.path",
        ]
    );
}

#[test]
fn a_close_line_says_what_is_true_when_the_flow_ends() {
    let at = Timestamp::UNIX_EPOCH;
    let close = |facts: &FlowRecord| encode::close(at, facts, &ended()).bytes;
    let anew = |facts: &FlowRecord| close(&FlowFacts::clone(facts).into());
    for before in [full(), allowed(), FlowFacts::default()] {
        let mut facts = FlowRecord::from(before);
        encode::decision_to_repeat(at, &mut facts, &DecisionTexts::default());
        assert!(facts.shared().is_some());
        assert_eq!(close(&facts), anew(&facts));
        // Known after the decision: the kept text is used.
        facts.set_dialled([192, 0, 2, 7].into(), Some("parent.example:3128".into()));
        facts.set_status(418);
        *facts.timings_mut() = Timings {
            connect: Some(1.5),
            total: Some(2.25),
            ..Timings::default()
        };
        assert!(facts.shared().is_some());
        assert_eq!(close(&facts), anew(&facts));
        // Changed after the decision: the text is discarded.
        facts.reason = "revoked";
        facts.server_name = Some("other.example".into());
        assert!(facts.shared().is_none());
        let line = String::from_utf8(close(&facts)).expect("UTF-8");
        for part in ["\"revoked\"", "\"other.example\"", ":418,", "\"192.0.2.7\""] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
}

#[test]
fn a_kept_text_serves_only_flows_with_the_same_decision() {
    let changes: [fn(&mut FlowFacts); 19] = [
        |_| {},
        |facts| facts.outcome = Outcome::Deny,
        |facts| facts.mode = Some(Mode::Enforce),
        |facts| facts.would = None,
        |facts| facts.reason = "denied",
        |facts| facts.detail = Some("other".into()),
        |facts| facts.rule = Some("other".into()),
        |facts| facts.rule_location = Some("other.toml:1".into()),
        |facts| facts.policy_digest = Some("other".into()),
        |facts| facts.policy_generation += 1,
        |facts| facts.exceptions = Box::new(["other".into()]),
        |facts| facts.exception = None,
        |facts| facts.request = Some(Uuid::max()),
        |facts| facts.category = Some(Category::Unknown),
        |facts| facts.category_basis = Some(Basis::None),
        |facts| facts.action = None,
        |facts| (facts.action, facts.action_any) = (None, true),
        |facts| facts.tier = Some("other".into()),
        |facts| facts.tier_basis = Some(TierBasis::Group),
    ];
    let (at, texts, flow) = (Timestamp::UNIX_EPOCH, DecisionTexts::default(), full());
    for change in changes.iter().chain(changes.iter().rev()) {
        let mut facts = flow.clone();
        change(&mut facts);
        // The second line is a copy of the text that the first has left.
        for _ in 0..2 {
            let line = encode::decision_to_repeat(at, &mut facts.clone().into(), &texts);
            assert_eq!(line.bytes, encode::decision(at, &facts).bytes);
        }
    }
}

#[test]
fn the_facts_of_a_flow_fit_a_size_of_the_allocator() {
    // Each open flow holds them; the next size is 896.
    assert!(size_of::<FlowFacts>() <= 768);
}

#[test]
fn a_path_that_does_not_fit_is_not_written() {
    let mut facts = full();
    facts.again().path = Some(format!("/{}", "a".repeat(1024)).into());
    let line = encode::decision(Timestamp::UNIX_EPOCH, &facts);
    let value: Value = serde_json::from_slice(&line.bytes).expect("JSON");
    assert_eq!(value.get("url.path"), None);
}

#[test]
fn a_flow_whose_evidence_disagrees_names_no_call() {
    let facts = FlowFacts {
        call: None,
        call_basis: Some("none"),
        call_conflict: true,
        ..full()
    };
    let line = encode::decision(Timestamp::UNIX_EPOCH, &facts);
    let value: Value = serde_json::from_slice(&line.bytes).expect("JSON");
    assert_eq!(value.get("tool_use_id"), None);
    assert_eq!(value.get("tidegate.call.trust"), None);
    assert_eq!(value["tidegate.call.basis"], "none");
    assert_eq!(value["tidegate.call.conflict"], true);
}

#[test]
fn what_is_not_known_is_not_written() {
    let line = encode::decision(Timestamp::UNIX_EPOCH, &FlowFacts::default());
    let value: Value = serde_json::from_slice(&line.bytes).expect("JSON");
    let written: Vec<_> = value
        .as_object()
        .expect("an object")
        .keys()
        .cloned()
        .collect();
    assert_eq!(
        written,
        [
            "event.name",
            "tidegate.flow.id",
            "tidegate.repository.trust",
            "tidegate.verdict",
            "timestamp"
        ]
    );
}

#[test]
fn the_schema_knows_no_field_that_is_never_written() {
    let conflict = FlowFacts {
        call_conflict: true,
        ..full()
    };
    let written = [full(), conflict].map(|facts| {
        let line = encode::close(Timestamp::UNIX_EPOCH, &facts.clone().into(), &ended());
        serde_json::from_slice::<Value>(&line.bytes).expect("JSON")
    });
    let text = text(Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/config/record.schema.json"
    )));
    let schema: Value = serde_json::from_str(&text).expect("JSON");
    let fields = schema["$defs"]["close"]["properties"]
        .as_object()
        .expect("properties");
    let by_writer = [
        "event.sequence",
        "service.instance.id",
        "service.name",
        "service.version",
    ];
    for field in fields.keys() {
        let known = written.iter().any(|line| line.get(field).is_some())
            || by_writer.contains(&field.as_str())
            || field.starts_with("tidegate.chain.")
            || field == "tidegate.schema";
        assert!(known, "{field} is never written");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_texts_fit_the_schema(text in any::<String>(), more in ".{0,400}") {
        let facts = FlowFacts {
            detail: Some(text.as_str().into()),
            user_agent: Some(more.as_str().into()),
            session: Some(more.as_str().into()),
            server_name: Some(text.as_str().into()),
            user: Some(text.as_str().into()),
            ..full()
        };
        let line = encode::decision(Timestamp::UNIX_EPOCH, &facts);
        let bytes = String::from_utf8(line.bytes).expect("UTF-8");
        prop_assert_eq!(bytes.matches('\n').count(), 1);
        prop_assert!(!bytes.trim_end().contains(char::is_control));
        let mut value: Value = serde_json::from_str(&bytes).expect("JSON");
        value["event.sequence"] = 1.into();
        value["tidegate.schema"] = "record/1".into();
        value["service.name"] = "tidegate".into();
        value["service.version"] = "1".into();
        value["service.instance.id"] = Uuid::nil().to_string().into();
        value["tidegate.chain.seq"] = 1.into();
        value["tidegate.chain.prev"] = "0".repeat(64).into();
        value["tidegate.chain.hash"] = "0".repeat(64).into();
        if let Err(error) = schema().validate(&value) {
            prop_assert!(false, "{}: {}", error, value);
        }
    }
}

#[test]
fn time_comes_from_the_clock() {
    let clock = Clock::by_hand(Timestamp::UNIX_EPOCH);
    clock.advance(SignedDuration::from_secs(1));
    let line = encode::decision(clock.now(), &allowed());
    assert!(
        line.bytes
            .starts_with(b"{\"timestamp\":\"1970-01-01T00:00:01.000000Z\"")
    );
}
