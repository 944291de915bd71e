//! The admin listener: what it says, and who cannot reach it.

use crate::kit::{Client, Gate, Hello, Origin, Program, TIERS, loopback, names, until};

const HOST: &str = "files.example.net";

#[test]
fn healthz_and_readyz_say_yes() {
    let gate = Gate::with(&loopback(1));

    assert_eq!(gate.ask("/healthz").status(), 200);
    assert_eq!(gate.ask("/readyz").status(), 200);
    assert_eq!(gate.ask("/nothing").status(), 404);
}

#[test]
fn metrics_count_what_happened() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));
    let url = format!("http://{HOST}:{}/", origin.port());
    assert_eq!(
        gate.client()
            .request("POST", &url, "Content-Length: 5\r\n", "hello")
            .status(),
        200
    );
    assert_eq!(gate.client().connect("evil.example.org:443").status(), 403);
    gate.last_close();

    until("four lines", || {
        gate.metrics().sum("tidegate_records_total", &[]) >= 4.0
    });
    let metrics = gate.metrics();
    let decisions = |verdict: &str, reason: &str| {
        metrics.sum(
            "tidegate_decisions_total",
            &[
                ("verdict", verdict),
                ("reason", reason),
                ("tier", "standard"),
                ("mode", "enforce"),
            ],
        )
    };
    assert!(
        (decisions("allow", "allowed") - 1.0).abs() < 0.1,
        "{}",
        metrics.0
    );
    assert!((decisions("deny", "not_allowed") - 1.0).abs() < 0.1);
    assert!(metrics.sum("tidegate_bytes_total", &[("direction", "out")]) >= 5.0);

    // A flow counts until it is gone, which is after its answer.
    until("no flow is active", || {
        gate.metrics().sum("tidegate_flows_active", &[]) < 0.5
    });
    assert!(metrics.has("tidegate_policy_info"));
    assert!(metrics.has("tidegate_build_info"));
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));
    let url = format!("http://{HOST}:{}/", origin.port());
    assert_eq!(gate.client().get(&url).status(), 200);
    assert_eq!(gate.client().connect("evil.example.org:443").status(), 403);
    gate.last_close();
    let text = gate.folder().join("metrics.txt");
    std::fs::write(&text, gate.metrics().0).expect("a file");

    let script = format!("promtool check metrics < {}", text.display());
    crate::kit::need("promtool");
    let outcome = Program::new("sh", gate.folder())
        .args(["-c", &script])
        .run()
        .succeeded();

    assert!(
        outcome.stdout.is_empty() && outcome.stderr.is_empty(),
        "{outcome:?}"
    );
}

#[test]
fn no_label_says_a_host_a_session_or_a_user() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));
    let session = "0195f3c2-7e1a-7bbb-8ccc-0123456789ab";
    let url = format!("http://{HOST}:{}/", origin.port());
    assert_eq!(
        gate.client()
            .known_as(&format!("{session}.main"), "x")
            .get(&url)
            .status(),
        200
    );
    for number in 0..50 {
        gate.client()
            .connect(&format!("host-{number}.example.org:443"));
    }

    let text = gate.metrics().0;
    for word in ["example.org", HOST, session, "127.0.0.1"] {
        assert!(!text.contains(word), "`{word}` is in the metrics");
    }
}

#[test]
fn the_admin_listener_takes_no_proxy_requests() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));

    for request in [
        format!(
            "CONNECT {HOST}:{} HTTP/1.1\r\nHost: x\r\n\r\n",
            origin.port()
        ),
        format!(
            "GET http://{HOST}:{}/ HTTP/1.1\r\nHost: x\r\n\r\n",
            origin.port()
        ),
    ] {
        let mut client = Client::dial(gate.admin());
        client.send(&request);
        if let Ok(answer) = client.try_answer("CONNECT") {
            assert!(answer.status() >= 400, "{request}: {answer:?}");
        }
    }
    origin.saw_nothing();
}

/// Addresses of this machine besides loopback.
fn own_addresses() -> Vec<String> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    // Nothing is sent: connecting a datagram socket only chooses the way out.
    let chosen = socket
        .connect("192.0.2.1:9")
        .and_then(|()| socket.local_addr());
    chosen
        .map(|address| vec![address.ip().to_string()])
        .unwrap_or_default()
}

#[test]
fn no_rule_leads_back_to_the_proxy() {
    let gate = Gate::with(&loopback(1));
    let ports = [gate.proxy().port(), gate.admin().port()];
    let mut hosts: Vec<String> = [
        "127.0.0.1",
        "127.0.0.2",
        "self.example.com",
        "0.0.0.0",
        "::1",
    ]
    .map(str::to_owned)
    .to_vec();
    hosts.extend(own_addresses());
    let listed: Vec<String> = hosts.iter().map(|host| format!("\"{host}\"")).collect();
    gate.reload(&format!(
        "{TIERS}{}\n[[rule]]\nid = \"self\"\nverdict = \"allow\"\nto.hosts = [{}]\n\
         to.ports = [{}, {}]\n\
         grant.addresses = [\"127.0.0.0/8\", \"::1/128\", \"10.0.0.0/8\", \
         \"172.16.0.0/12\", \"192.168.0.0/16\"]\n",
        names(&["self.example.com"]),
        listed.join(", "),
        ports[0],
        ports[1],
    ));
    assert_eq!(gate.generation()["stale"], false, "{}", gate.said());

    hosts.push("localhost".to_owned());
    hosts.push("::ffff:127.0.0.1".to_owned());
    for host in &hosts {
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.clone()
        };
        for port in ports {
            let tunnel = gate.client().connect(&format!("{host}:{port}"));
            assert_eq!(
                (tunnel.status(), tunnel.refusal().as_str()),
                (403, "address_denied"),
                "{host}"
            );
            let plain = gate.client().get(&format!("http://{host}:{port}/metrics"));
            assert_eq!(
                (plain.status(), plain.refusal().as_str()),
                (403, "address_denied"),
                "{host}"
            );
        }
    }
}

#[test]
fn flows_active_goes_up_and_down() {
    let origin = Origin::bytes();
    let gate = Gate::with(&loopback(origin.port()));
    let active = || {
        gate.metrics()
            .sum("tidegate_flows_active", &[("kind", "connect")])
    };
    let hello = Hello::naming(HOST).bytes();

    let mut client = gate.client();
    client
        .tunnel(&format!("{HOST}:{}", origin.port()))
        .send(&hello);
    assert_eq!(client.exactly(hello.len()), hello);
    assert!((active() - 1.0).abs() < 0.1);

    drop(client);
    gate.last_close();
    assert!(active() < 0.1);
}

#[test]
fn a_listener_on_every_interface_is_reached_by_none_of_them() {
    let listeners = "\n[[listener]]\naddress = \"0.0.0.0:0\"\n";
    let gate = Gate::with(&format!("{}{listeners}", loopback(1)));
    let port = gate.listener(1).port();
    let mut hosts = vec!["127.0.0.1".to_owned(), "127.0.0.2".to_owned()];
    hosts.extend(own_addresses());
    let listed: Vec<String> = hosts.iter().map(|host| format!("\"{host}\"")).collect();
    gate.reload(&format!(
        "{TIERS}{listeners}\n[[rule]]\nid = \"self\"\nverdict = \"allow\"\nto.hosts = [{}]\n\
         to.ports = [{port}]\n\
         grant.addresses = [\"127.0.0.0/8\", \"10.0.0.0/8\", \"172.16.0.0/12\", \
         \"192.168.0.0/16\"]\ngrant.raw = true\n",
        listed.join(", ")
    ));
    assert_eq!(gate.generation()["stale"], false, "{}", gate.said());

    for host in hosts {
        let answer = gate.client().connect(&format!("{host}:{port}"));
        assert_eq!(
            (answer.status(), answer.refusal().as_str()),
            (403, "address_denied"),
            "{host}"
        );
    }
}
