//! A policy that changes while flows are open.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::kit::{
    Client, Dns, Fault, Faults, Gate, Hello, Lines, Origin, TIERS, allow, allow_more, loopback,
    names, tidegate, until,
};

const HOST: &str = "files.example.net";

/// As [`loopback`], with a host more each time.
fn growing(port: u16, number: usize) -> String {
    let more = allow("more", &format!("host-{number}.example.com"), 443);
    format!("{}{more}", loopback(port))
}

/// A client whose request was sent.
fn ask(gate: &Gate, origin: &Origin) -> Client {
    let mut client = gate.client();
    client.send(format!(
        "GET http://{HOST}:{}/ HTTP/1.1\r\nHost: x\r\n\r\n",
        origin.port()
    ));
    client
}

fn nothing_allowed() -> String {
    format!("{TIERS}{}", names(&[HOST]))
}

#[test]
fn sighup_loads_the_new_policy() {
    let origin = Origin::echo();
    let gate = Gate::with(&nothing_allowed());
    let url = format!("http://{HOST}:{}/", origin.port());
    assert_eq!(gate.client().get(&url).status(), 403);

    gate.reload(&loopback(origin.port()));

    assert_eq!(gate.client().get(&url).status(), 200);
    assert_eq!(gate.generation()["generation"], 2);
    let loaded = gate.records().named("policy_loaded");
    assert_eq!(loaded.len(), 2);
    let digest = |place: usize| loaded[place].text("tidegate.policy.digest").to_owned();
    assert_ne!(digest(0), digest(1));
    assert_eq!(gate.generation()["digest"], digest(1).as_str());
}

#[test]
fn a_changed_file_is_loaded_without_a_signal() {
    let origin = Origin::echo();
    let gate = Gate::with(&nothing_allowed());
    let url = format!("http://{HOST}:{}/", origin.port());

    gate.rewrite(&loopback(origin.port()));

    until("the new policy", || gate.client().get(&url).status() == 200);
}

#[test]
fn a_changed_include_is_loaded_without_a_signal() {
    let origin = Origin::echo();
    let text = format!("include = [\"rules.toml\"]\n{}", nothing_allowed());
    let gate = Gate::plan(&text).file("rules.toml", "").start();
    let url = format!("http://{HOST}:{}/", origin.port());
    assert_eq!(gate.client().get(&url).status(), 403);

    let rule = allow("files", HOST, origin.port());
    std::fs::write(gate.folder().join("rules.toml"), rule).expect("a file");

    until("the new policy", || gate.client().get(&url).status() == 200);
}

#[test]
fn a_broken_file_keeps_the_last_good_policy_and_says_so() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));
    let url = format!("http://{HOST}:{}/", origin.port());

    gate.reload("[[rule]]\nid = \"x\"\nverdict = \"allwo\"\n");

    assert_eq!(
        gate.client().get(&url).status(),
        200,
        "the last good one goes on"
    );
    assert_eq!(gate.client().get("http://evil.example.org/").status(), 403);
    let metrics = gate.metrics();
    assert!(metrics.sum("tidegate_policy_stale", &[]) > 0.5);
    let generation = gate.generation();
    assert_eq!(
        (&generation["generation"], &generation["stale"]),
        (&1.into(), &true.into())
    );
    let rejected = gate.line("a policy_rejected", |line| line.name() == "policy_rejected");
    assert!(
        rejected.text("tidegate.detail").contains("tidegate.toml:"),
        "{rejected:?}"
    );
    assert!(
        gate.said().contains("allwo"),
        "the log shows what is wrong: {}",
        gate.said()
    );
    let check = tidegate(&["check".as_ref(), gate.config().as_os_str()]);
    assert_eq!(check.code, Some(2));
    check.showed("allwo");

    gate.reload(&loopback(origin.port()));
    until("no longer stale", || {
        gate.metrics().sum("tidegate_policy_stale", &[]) < 0.5
    });
    assert_eq!(gate.generation()["stale"], false);
}

#[test]
fn a_policy_that_breaks_an_invariant_does_not_load_and_the_last_good_one_stays() {
    let origin = Origin::echo();
    let never = format!("[[never]]\nto.hosts = [\"{HOST}\"]\nverdict = \"allow\"\n");
    let gate = Gate::with(&format!("{}{never}", nothing_allowed()));
    let url = format!("http://{HOST}:{}/", origin.port());
    assert_eq!(gate.client().get(&url).status(), 403);

    gate.reload(&format!("{}{never}", loopback(origin.port())));

    let rejected = gate.line("a policy_rejected", |line| line.name() == "policy_rejected");
    let detail = rejected.text("tidegate.detail");
    assert!(detail.contains("`[[never]]` does not hold"), "{rejected:?}");
    assert_eq!(gate.client().get(&url).status(), 403);
    let check = tidegate(&["check".as_ref(), gate.config().as_os_str()]);
    assert_eq!(check.code, Some(2));
    check.showed("never-broken").showed(HOST);
    let file = gate.config();
    let words = ["explain", HOST, "--config"].map(AsRef::as_ref);
    let explained = tidegate(&[words.as_slice(), &[file.as_os_str()]].concat());
    explained.showed("never-broken").showed("CONNECT");
}

#[test]
fn a_new_policy_is_on_record_with_what_changes_and_kept_for_an_auditor() {
    let gate = Gate::with(&nothing_allowed());
    gate.reload(&format!(
        "{}{}",
        nothing_allowed(),
        allow("files", HOST, 8443)
    ));

    until("both policies are on record", || {
        gate.records().named("policy_loaded").len() == 2
    });
    let loaded = gate.records().named("policy_loaded");
    let said = |at: usize| loaded[at].text("tidegate.policy.change").to_owned();
    assert_eq!(said(0), "the first policy of this gate");
    let wider = format!("wider: allow instead of deny for {HOST} at 8443 in ");
    assert!(said(1).starts_with(&wider), "{}", said(1));
    let copies = [0, 1].map(|at: usize| loaded[at].text("tidegate.policy.copy").to_owned());

    let file = gate.config();
    let policy = |words: &[&str]| {
        let words: Vec<&OsStr> = words.iter().map(AsRef::as_ref).collect();
        let of = ["--config".as_ref(), file.as_os_str()];
        tidegate(&[&["policy".as_ref()], words.as_slice(), &of].concat())
    };
    let listed = policy(&["list"]).succeeded();
    assert!(
        copies.iter().all(|it| listed.shows(&it[..16])),
        "{listed:#?}"
    );
    policy(&["show", &copies[1]]).succeeded().showed(HOST);
    let compared = policy(&["diff", &copies[0], &copies[1]]).succeeded();
    compared.showed("WIDENS").showed(HOST);

    // A copy that another process rewrites no longer has its name.
    let copy = gate.folder().join(format!("policies/{}.toml", copies[1]));
    std::fs::write(&copy, "[tiers]\n").expect("a file");
    assert_eq!(policy(&["show", &copies[1]]).code, Some(1));
}

#[test]
fn an_open_tunnel_that_would_no_longer_pass_is_closed() {
    let origin = Origin::bytes();
    let gate = Gate::with(&loopback(origin.port()));
    let hello = Hello::naming(HOST).bytes();
    let mut client = gate.client();
    client
        .tunnel(&format!("{HOST}:{}", origin.port()))
        .send(&hello);
    assert_eq!(client.exactly(hello.len()), hello);

    gate.reload(&nothing_allowed());

    assert_eq!(client.rest(), b"");
    let close = gate.last_close();
    assert_eq!(close.text("error.type"), "revoked");
    assert_eq!(close.text("tidegate.end"), "cancelled");
    assert_eq!(close.text("tidegate.blame"), "policy");
}

#[test]
fn an_open_tunnel_that_still_passes_stays() {
    let origin = Origin::bytes();
    let gate = Gate::with(&loopback(origin.port()));
    let hello = Hello::naming(HOST).bytes();
    let mut client = gate.client();
    client
        .tunnel(&format!("{HOST}:{}", origin.port()))
        .send(&hello);
    assert_eq!(client.exactly(hello.len()), hello);

    gate.reload(&growing(origin.port(), 1));
    client.send(b"still here");

    assert_eq!(client.exactly(10), b"still here");
}

#[test]
fn an_open_response_that_would_no_longer_pass_is_closed() {
    let origin = Origin::http(|visit, _| {
        visit.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
        let _ = visit.exactly(1)?;
        Ok(())
    });
    let gate = Gate::with(&loopback(origin.port()));
    let mut client = ask(&gate, &origin);
    assert_eq!(client.head().status(), 200);
    assert_eq!(client.chunk(), b"first");

    gate.reload(&nothing_allowed());

    let rest = client.rest();
    assert!(
        !rest.ends_with(b"0\r\n\r\n"),
        "cut, not ended as if it were whole"
    );
    assert_eq!(gate.last_close().text("error.type"), "revoked");
}

#[test]
fn a_request_that_would_no_longer_pass_is_refused_while_its_origin_is_silent() {
    let origin = Origin::http(|visit, _| {
        let _ = visit.exactly(1)?;
        Ok(())
    });
    let gate = Gate::with(&loopback(origin.port()));
    let mut client = ask(&gate, &origin);
    until("the request at its origin", || {
        !origin.requests().is_empty()
    });

    gate.reload(&nothing_allowed());

    let answer = client.answer("GET");
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (403, "revoked")
    );
    let close = gate.last_close();
    assert_eq!(close.text("error.type"), "revoked");
    assert_eq!(close.text("tidegate.end"), "refused");
    assert_eq!(close.text("tidegate.blame"), "policy");
    assert!(close.text("tidegate.detail").contains("may have carried"));
}

#[test]
fn what_a_reload_denies_while_its_name_is_resolved_is_not_dialled() {
    let (origin, dns) = (Origin::bytes(), Dns::start(&[(HOST, &["127.0.0.1"])]));
    let raw = allow_more("files", HOST, origin.port(), "grant.raw = true");
    let gate = Gate::with(&format!("{TIERS}{}{raw}", dns.section()));
    dns.hold();
    let mut client = gate.client();
    let target = format!("{HOST}:{}", origin.port());
    client.send(format!("CONNECT {target} HTTP/1.1\r\n\r\nearly"));
    until("a question", || !dns.asked().is_empty());

    gate.reload(&format!("{TIERS}{}", dns.section()));
    dns.release();

    let answer = client.answer("CONNECT");
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (403, "revoked")
    );
    client.is_closed();
    origin.saw_nothing();
    let close = gate.last_close();
    assert_eq!(close.text("error.type"), "revoked");
    assert_eq!(close.text("tidegate.blame"), "policy");
}

#[test]
fn a_connection_that_was_judged_by_the_old_policy_is_not_reused_under_the_new() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));
    let mut client = gate.client();
    let url = format!("http://{HOST}:{}/", origin.port());
    assert_eq!(client.get(&url).status(), 200);

    gate.reload(&nothing_allowed());

    assert_eq!(
        client.get(&url).status(),
        403,
        "the same connection, judged anew"
    );
    assert_eq!(origin.requests().len(), 1);
}

/// 200 reloads; 1,000 with `TIDEGATE_SLOW=1`.
#[test]
fn reloads_under_load_fail_no_flow() {
    let rounds = if std::env::var_os("TIDEGATE_SLOW").is_some() {
        1000
    } else {
        200
    };
    let origin = Origin::http(|visit, _| visit.answer("200 OK", "text/plain", b"ok"));
    let gate = Gate::with(&loopback(origin.port()));
    let (proxy, url) = (gate.proxy(), format!("http://{HOST}:{}/", origin.port()));
    let (stop, passed) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (stop, passed, url) = (stop.clone(), passed.clone(), url.clone());
            thread::spawn(move || {
                let mut client = Client::dial(proxy);
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(client.get(&url).status(), 200);
                    assert_eq!(Client::dial(proxy).get(&url).status(), 200);
                    passed.fetch_add(2, Ordering::Relaxed);
                }
            })
        })
        .collect();

    for number in 0..rounds {
        gate.reload(&growing(origin.port(), number));
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.join().expect("no failed flow");
    }

    let passed = passed.load(Ordering::Relaxed);
    assert!(passed > 0);
    assert!(
        gate.metrics()
            .sum("tidegate_policy_reloads_total", &[("result", "ok")])
            >= 1.0
    );
    let lines = gate.eventually_records("every end", |lines| {
        lines.named("close").len() == lines.named("decision").len()
    });
    assert_eq!(lines.named("decision").len(), passed);
    assert!(
        lines
            .named("close")
            .iter()
            .all(|line| line.text("tidegate.end") == "closed")
    );
}

#[test]
fn a_slow_client_is_served_by_the_policy_it_began_with_or_closed() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));
    let hop = Faults::towards(gate.proxy(), Fault::Dribbles);
    let mut client = Client::dial(hop.address());

    gate.reload(&growing(origin.port(), 1));

    assert_eq!(
        client
            .get(&format!("http://{HOST}:{}/", origin.port()))
            .status(),
        200
    );
}
