//! `promote`: from recorded flows of an observing tier to a proposed change of the policy.

use std::ffi::OsStr;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::kit::tidegate;
use crate::replay::{denied, folder};

/// A line of an observed flow.
fn observed(session: &str, host: &str, day: u32, more: &str) -> String {
    denied(host)
        .replace("2026-11-22", &format!("2026-11-{day:02}"))
        .replace(
            "\"deny\"",
            "\"allow\",\"tidegate.mode\":\"observe\",\"tidegate.would\":\"deny\"",
        )
        .replace(
            "\"tidegate.repository.trust\":\"none\"",
            &format!(
                "\"session.id\":\"{session}\",\"vcs.repository.url.full\":\"github.com/acme/web\",\
                 \"tidegate.repository.trust\":\"verified\",\"tidegate.category\":\"unknown\"{more}"
            ),
        )
}

const OBSERVING: &str = "[tiers]\norder = [\"only\"]\n[tier.only]\nmode = \"observe\"\ndefault = \"deny\"\n\
    [[repository]]\nmatch = \"github.com/acme/web\"\ntier = \"only\"\n\
    [[repository]]\nmatch = \"github.com/acme/api\"\ntier = \"only\"\n\
    # No telemetry.\n[[rule]]\nid = \"telemetry\"\nverdict = \"deny\"\nto.hosts = [\"stats.example.net\"]\n";

/// Why a proposal leaves a host to a person.
fn why_to_look_at(found: &Value, host: &str) -> String {
    let all = found["to_look_at"].as_array().expect("a list");
    let one = all.iter().find(|it| it["need"]["host"] == host);
    one.unwrap_or_else(|| panic!("no {host} in {found:#}"))["why"].to_string()
}

#[test]
fn what_an_observing_tier_needs_is_proposed_as_narrow_as_it_was_seen() {
    let mut text = String::new();
    for (session, day) in [("s-1", 20), ("s-2", 21), ("s-2", 22)] {
        text.push_str(&observed(session, "docs.example.net", day, ""));
        text.push_str(&observed(session, "stats.example.net", day, ""));
        text.push_str(&observed(session, "pastebin.com", day, ""));
        text.push_str(&observed(session, "acme.github.io", day, ""));
        text.push_str(&observed(
            session,
            "page.example.net",
            day,
            ",\"tidegate.tool.name\":\"WebFetch\"",
        ));
    }
    text.push_str(&observed("s-3", "once.example.net", 22, ""));
    let folder = folder(&[
        ("tidegate.toml", OBSERVING.as_bytes()),
        ("r.jsonl", text.as_bytes()),
    ]);
    let (config, records) = (
        folder.path().join("tidegate.toml"),
        folder.path().join("r.jsonl"),
    );
    let promote = |more: &[&str]| {
        let mut all = vec![
            OsStr::new("promote"),
            records.as_ref(),
            OsStr::new("--config"),
            config.as_ref(),
        ];
        all.extend(more.iter().map(OsStr::new));
        tidegate(&all)
    };
    let said = promote(&["--json"]);
    let found: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"));
    let rules = found["rules"].as_array().expect("rules");
    assert_eq!(rules.len(), 1, "{found:#}");
    assert_eq!(
        rules[0]["hosts"],
        serde_json::json!(["docs.example.net"]),
        "{found:#}"
    );
    let rule = rules[0]["text"].as_str().expect("a text");
    for part in [
        "from.tiers = [\"only\"]",
        "from.repositories = [\"github.com/acme/web\"]",
        "allows = [\"docs.example.net:443\"]",
        "2026-11-20 to 2026-11-22",
    ] {
        assert!(rule.contains(part), "{part:?} in {rule}");
    }
    let denied: Vec<&Value> = found["left_denied"]
        .as_array()
        .expect("a list")
        .iter()
        .collect();
    assert_eq!(denied.len(), 1, "{found:#}");
    assert_eq!(denied[0]["rule"], "telemetry", "{found:#}");
    for (host, part) in [
        ("pastebin.com", "a relay"),
        ("acme.github.io", "unrelated customers"),
        ("page.example.net", "web page was fetched"),
        ("once.example.net", "one session only"),
    ] {
        let why = why_to_look_at(&found, host);
        assert!(why.contains(part), "{host}: {why}");
    }
    assert_eq!(found["readiness"]["week"]["flows"], 16, "{found:#}");
    assert_eq!(found["readiness"]["week"]["pass"], 3, "{found:#}");
    assert_eq!(
        found["readiness"]["repositories"],
        serde_json::json!(["github.com/acme/api"])
    );
    // The diff is printed, and written when that is asked for; then nothing is left to propose.
    let said = promote(&[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(
        said.stdout.contains("+ to.hosts = [\"docs.example.net\"]"),
        "{said:?}"
    );
    assert_eq!(std::fs::read_to_string(&config).expect("a file"), OBSERVING);
    let said = promote(&["--write"]);
    assert!(said.stderr.contains("written to"), "{said:?}");
    let written = std::fs::read_to_string(&config).expect("a file");
    assert!(
        written.starts_with(OBSERVING) && written.contains("[[rule]]\nid = \"seen-docs"),
        "{written}"
    );
    let again: Value = serde_json::from_str(&promote(&["--json"]).stdout).expect("JSON");
    assert_eq!(
        (&again["rules"], &again["pass"]),
        (&serde_json::json!([]), &3.into()),
        "{again:#}"
    );
}

/// What `promote` proposes for these records under a configuration.
fn proposed(config: &str, records: &str) -> Value {
    let folder = folder(&[
        ("tidegate.toml", config.as_bytes()),
        ("r.jsonl", records.as_bytes()),
    ]);
    let path = |name: &str| folder.path().join(name);
    let said = tidegate(&[
        OsStr::new("promote"),
        path("r.jsonl").as_ref(),
        OsStr::new("--config"),
        path("tidegate.toml").as_ref(),
        OsStr::new("--json"),
    ]);
    assert_eq!(said.code, Some(0), "{said:?}");
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

/// An observed request inside TLS, in two sessions.
fn observed_request(host: &str, more: &str) -> String {
    let line = |session, day| observed(session, host, day, more);
    [line("s-1", 20), line("s-2", 21)].concat().replace(
        "\"connect\"",
        "\"http\",\"tidegate.flow.parent\":\"0195f3c2-0000-7000-8000-000000000002\",\
         \"http.request.method\":\"POST\"",
    )
}

#[test]
fn a_name_that_a_caller_chose_is_no_pattern_of_a_proposed_rule() {
    let call = |tool: &str| {
        let more = format!(
            ",\"tidegate.action\":\"call\",\"tidegate.mcp.server\":\"tickets\",\
             \"mcp.method.name\":\"tools/call\",\"mcp.tool.name\":\"{tool}\""
        );
        observed_request("mcp.example.net", &more)
    };
    let push = |host: &str, repository: &str| {
        let more = format!(
            ",\"tidegate.action\":\"write\",\"tidegate.service\":\"git\",\
             \"tidegate.operation\":\"push\",\"tidegate.destination.ref\":\"refs/heads/x\",\
             \"tidegate.destination.repository\":\"{repository}\""
        );
        observed_request(host, &more)
    };
    let text = [
        call("search"),
        call("*"),
        push("a.example.net", "acme/**"),
        push("b.example.net", "https://acme"),
        observed_request("c.example.net", ",\"url.path\":\"/a\""),
    ];
    let config = format!(
        "{OBSERVING}\n[mcp.tickets]\nurl = \"https://mcp.example.net/mcp\"\n\
         [[destination]]\nhosts = [\"a.example.net\", \"b.example.net\"]\n\
         category = \"source-control\"\nservice = \"git\"\n"
    );
    let found = proposed(&config, &text.concat());
    let rules = found["rules"].as_array().expect("rules");
    assert_eq!(rules.len(), 1, "{found:#}");
    let rule = rules[0]["text"].as_str().expect("a text");
    let condition = "does.servers = [\"tickets\"]\ndoes.tools = [\"search\"]\n";
    assert!(
        rule.contains(condition) && !rule.contains("to.hosts"),
        "{rule}"
    );
    for (host, part) in [
        ("mcp.example.net", "a name with `*`"),
        ("a.example.net", "a name with `*`"),
        ("b.example.net", "a rule for it does not load"),
        ("c.example.net", "what the request does is not on record"),
    ] {
        let why = why_to_look_at(&found, host);
        assert!(why.contains(part), "{host}: {why}");
    }
}

#[test]
fn what_a_rule_denies_to_some_callers_is_not_proposed_to_them_with_others() {
    let config = format!(
        "{OBSERVING}\n[[rule]]\nid = \"not-api\"\nverdict = \"deny\"\n\
         from.repositories = [\"github.com/acme/api\"]\nto.hosts = [\"docs.example.net\"]\n"
    );
    let mut text = String::new();
    for (session, day) in [("s-1", 20), ("s-2", 21)] {
        let line = observed(session, "docs.example.net", day, "");
        text.push_str(&line);
        text.push_str(&line.replace("acme/web", "acme/api"));
    }
    let found = proposed(&config, &text);
    let rule = found["rules"][0]["text"].as_str().expect("a text");
    let from = "from.repositories = [\"github.com/acme/web\"]\n";
    assert!(rule.contains(from), "{rule}");
    assert_eq!(found["left_denied"][0]["rule"], "not-api", "{found:#}");
    assert_eq!(found["left_denied"][0]["flows"], 2, "{found:#}");
    assert_eq!(found["readiness"]["week"]["pass"], 2, "{found:#}");
}

#[test]
fn a_proposal_of_another_hand_is_text_and_no_table() {
    let host = "evil.example.net";
    let mut text = String::new();
    for (session, day) in [("s-1", 20), ("s-2", 21)] {
        let line = observed(session, host, day, "");
        text.push_str(&line.replace(
            "github.com/acme/web",
            "x\\\"]\\n[[rule]]\\nverdict = \\\"allow\\\"\\n#\\u001b[2J",
        ));
    }
    let folder = folder(&[
        ("tidegate.toml", OBSERVING.as_bytes()),
        ("r.jsonl", text.as_bytes()),
    ]);
    let (config, records) = (
        folder.path().join("tidegate.toml"),
        folder.path().join("r.jsonl"),
    );
    let said = tidegate(&[
        OsStr::new("promote"),
        records.as_ref(),
        OsStr::new("--config"),
        config.as_ref(),
        OsStr::new("--write"),
    ]);
    let plain = |letter: char| letter == '\n' || !letter.is_control();
    assert!(said.stdout.chars().all(plain), "{:?}", said.stdout);
    let written = std::fs::read_to_string(&config).expect("a file");
    let table: toml::Table = written.parse().expect("TOML");
    let rules = table["rule"].as_array().expect("rules");
    assert!(rules.len() <= 2, "{written}");
    assert!(
        rules
            .iter()
            .filter(|it| it["verdict"].as_str() == Some("allow"))
            .all(|it| { it["to"]["hosts"] == toml::Value::Array(vec![host.into()]) }),
        "{written}"
    );
}

/// Lines of flows in a session with evidence.
fn verified(session: &str, root: &str, host: &str, day: u32, more: &str) -> String {
    let evidence = format!(
        ",\"tidegate.session.evidence\":\"token\",\"tidegate.session.root\":\"{root}\"{more}"
    );
    observed(session, host, day, &evidence)
}

fn reasons(found: &Value, host: &str) -> String {
    let all = found["to_look_at"].as_array().expect("a list");
    let one = all.iter().find(|it| it["need"]["host"] == host);
    one.unwrap_or_else(|| panic!("no {host} in {found:#}"))["why"].to_string()
}

#[test]
fn many_flows_of_one_session_are_neither_proposed_nor_make_a_tier_ready() {
    let mut text = String::new();
    for number in 0..200 {
        let child = format!("child-{number}");
        text.push_str(&verified(
            &child,
            "root-1",
            "evil.example.net",
            20 + number % 5,
            "",
        ));
    }
    for session in ["s-1", "s-2"] {
        text.push_str(&verified(session, session, "docs.example.net", 22, ""));
    }
    let found = proposed(OBSERVING, &text);
    let rules = found["rules"].as_array().expect("rules");
    assert_eq!(rules.len(), 1, "{found:#}");
    assert_eq!(rules[0]["hosts"], json!(["docs.example.net"]));
    assert!(reasons(&found, "evil.example.net").contains("one session only"));
    let sessions = json!({ "all": 3, "pass": 2 });
    assert_eq!(found["readiness"]["sessions"], sessions, "{found:#}");

    // Without evidence, a caller chooses its session: its flows of one day are one session.
    let mut text = String::new();
    for number in 0..50 {
        text.push_str(&observed(
            &format!("s-{number}"),
            "evil.example.net",
            20,
            "",
        ));
    }
    let found = proposed(OBSERVING, &text);
    assert_eq!(found["rules"], json!([]), "{found:#}");
}

#[test]
fn nothing_is_proposed_that_a_never_forbids() {
    let config = format!(
        "{OBSERVING}\n[[never]]\nname = \"not there\"\nto.hosts = [\"*.evil.example.net\"]\n\
         verdict = \"allow\"\n"
    );
    let hosts = ["x.evil.example.net", "docs.example.net"];
    let lines = hosts.map(|host| [20, 21].map(|day| observed("s", host, day, "")).concat());
    let found = proposed(&config, &lines.concat());
    let rules = found["rules"].as_array().expect("rules");
    assert_eq!(rules.len(), 1, "{found:#}");
    assert_eq!(rules[0]["hosts"], json!(["docs.example.net"]));
    let why = reasons(&found, "x.evil.example.net");
    assert!(why.contains("a rule for it does not load"), "{why}");
}

/// An agent calls its own client git, so that its host gets the label of a forge.
#[test]
fn a_label_by_the_name_of_a_client_is_proposed_only_where_it_allows_nothing_more() {
    let git = ",\"user_agent.original\":\"git/2.43.0\"";
    let text = [20, 21]
        .map(|day| observed("s", "git.example.net", day, git))
        .concat();
    let found = proposed(OBSERVING, &text);
    let labels = found["destinations"].as_array().expect("a list");
    assert_eq!(labels.len(), 1, "{found:#}");
    let label = labels[0].as_str().expect("a text");
    for part in [
        "category = \"source-control\"",
        "hosts = [\"git.example.net\"]",
        "service = \"git\"",
    ] {
        assert!(label.contains(part), "{label}");
    }
    let trusting = OBSERVING.replace(
        "default = \"deny\"\n",
        "default = \"deny\"\nallow = [\"source-control\"]\n",
    );
    let found = proposed(&trusting, &text);
    assert_eq!(
        found["rules"].as_array().map(Vec::len),
        Some(1),
        "{found:#}"
    );
    assert_eq!(found["destinations"], json!([]), "{found:#}");
}

#[test]
fn names_are_proposed_only_in_the_pairs_that_were_seen() {
    let push = |repository: &str, reference: &str| {
        let more = format!(
            ",\"tidegate.action\":\"write\",\"tidegate.service\":\"git\",\
             \"tidegate.operation\":\"push\",\"tidegate.destination.ref\":\"{reference}\",\
             \"tidegate.destination.repository\":\"{repository}\""
        );
        observed_request("forge.example.net", &more)
    };
    let config = format!(
        "{OBSERVING}\n[[destination]]\nhosts = [\"forge.example.net\"]\n\
         category = \"source-control\"\nservice = \"git\"\n"
    );
    let seen = [
        push("acme/one", "refs/heads/a"),
        push("acme/two", "refs/heads/a"),
        push("acme/three", "refs/heads/b"),
    ];
    let found = proposed(&config, &seen.concat());
    let rules = found["rules"].as_array().expect("rules");
    let texts: Vec<&str> = rules.iter().filter_map(|it| it["text"].as_str()).collect();
    assert_eq!(texts.len(), 2, "{found:#}");
    let has = |parts: [&str; 2]| {
        texts
            .iter()
            .any(|text| parts.iter().all(|part| text.contains(part)))
    };
    let one = [
        "does.repositories = [\"acme/one\", \"acme/two\"]",
        "does.refs = [\"refs/heads/a\"]",
    ];
    let other = [
        "does.repositories = [\"acme/three\"]",
        "does.refs = [\"refs/heads/b\"]",
    ];
    assert!(has(one) && has(other), "{texts:#?}");
    // More branches than a person reads are no list, and no rule for every branch.
    let many = (0..9).map(|number| push("acme/one", &format!("refs/heads/{number}")));
    let found = proposed(&config, &many.collect::<String>());
    assert_eq!(found["rules"], json!([]), "{found:#}");
    assert!(
        reasons(&found, "forge.example.net").contains("write a pattern"),
        "{found:#}"
    );
}

/// Writes and compares `tests/it/promote/transcript.txt`; `TIDEGATE_BLESS=1` writes it as it is now.
#[test]
fn a_proposal_reads_as_its_transcript() {
    let git = ",\"user_agent.original\":\"git/2.43.0\"";
    let fetch = ",\"tidegate.tool.name\":\"WebFetch\"";
    let mut text = String::new();
    for (session, day) in [("s-1", 20), ("s-2", 21)] {
        for (host, category) in [
            ("beacon.example.net", "telemetry"),
            ("rubygems.org", "package-registry"),
        ] {
            let line = verified(session, session, host, day, "");
            text.push_str(&line.replace("\"unknown\"", &format!("\"{category}\"")));
        }
        for (host, more) in [
            ("docs.example.net", ""),
            ("git.acme.example", git),
            ("stats.example.net", ""),
            ("pastebin.com", ""),
            ("page.example.net", fetch),
        ] {
            text.push_str(&verified(session, session, host, day, more));
        }
    }
    text.push_str(&verified("s-3", "s-3", "once.example.net", 21, ""));
    let folder = folder(&[
        ("tidegate.toml", OBSERVING.as_bytes()),
        ("r.jsonl", text.as_bytes()),
    ]);
    let path = |name: &str| folder.path().join(name);
    let words = ["promote", "r.jsonl", "--config", "tidegate.toml"];
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(words)
        .current_dir(folder.path())
        .output()
        .expect("tidegate");
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/promote/transcript.txt");
    let printed = format!("$ tidegate {}\n{printed}", words.join(" "));
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        std::fs::write(&file, &printed).expect("a file");
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(printed, golden, "TIDEGATE_BLESS=1 writes it");
    // What is written loads, and passes its own tests.
    let config = path("tidegate.toml");
    let written = [
        OsStr::new("promote"),
        path("r.jsonl").as_os_str(),
        OsStr::new("--config"),
        config.as_os_str(),
        OsStr::new("--write"),
    ]
    .map(OsStr::to_owned);
    let written: Vec<&OsStr> = written.iter().map(|it| &**it).collect();
    assert_eq!(tidegate(&written).code, Some(0));
    let said = tidegate(&[OsStr::new("test"), config.as_os_str()]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains("left denied in only"), "{said:?}");
}
