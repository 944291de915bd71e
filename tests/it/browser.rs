//! A whole browser through the gate: a page, a script's requests, HTTP/2, a WebSocket.

use crate::kit::{
    Inside, Lines, Message, Origin, Origin2, Pki, Service, TIERS, Visit, inspected, need, socket,
    until,
};

const PAGE: &str = "page.example.com";
const API: &str = "api.example.com";

/// What the page does: asks over HTTP/2, talks over a WebSocket of HTTP/1.1 and one on a stream of
/// HTTP/2, and reports all of it.
fn page(page: u16, api: u16) -> String {
    format!(
        "<!DOCTYPE html><title>test</title><script>
const report = text => fetch('/report?' + encodeURIComponent(text), {{ method: 'POST' }});
(async () => {{
  try {{
    await report('fetched ' + (await fetch('/data')).status);
    const away = await fetch('https://{API}:{api}/hello', {{ mode: 'no-cors', credentials: 'include' }});
    await report('asked ' + away.type);
    const socket = new WebSocket('wss://{PAGE}:{page}/ws');
    socket.onopen = () => socket.send('from the browser');
    socket.onmessage = message => report('said ' + message.data);
    socket.onerror = () => report('no socket');
    const stream = new WebSocket('wss://{API}:{api}/frames');
    stream.onopen = () => stream.send('on a stream');
    stream.onmessage = message => report('streamed ' + message.data);
    stream.onerror = () => report('no socket on a stream');
  }} catch (error) {{
    report('failed ' + error);
  }}
}})();
</script>"
    )
}

fn serve(visit: &mut Visit, request: &Message, html: &str) -> std::io::Result<()> {
    match request.target() {
        "/" => visit.answer("200 OK", "text/html", html.as_bytes()),
        "/data" => visit.answer("200 OK", "text/plain", b"data"),
        "/ws" => socket::echo(visit, request),
        path if path.starts_with("/report?") => visit.answer("200 OK", "text/plain", b""),
        _ => visit.answer("404 Not Found", "text/plain", b""),
    }
}

#[test]
fn a_browser_loads_a_page_asks_over_http_2_and_talks_over_a_websocket() {
    let pki = Pki::new();
    let api = Origin2::start(pki.serving(&[API], |_| {}), true);
    let html = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let later = html.clone();
    let origin = Origin::https(&pki, &[PAGE], move |visit, request| {
        serve(visit, request, later.get().expect("a page"))
    });
    html.set(page(origin.port(), api.port())).expect("set once");
    let rules = inspected("page", PAGE, origin.port(), "grant.upgrade = true\n")
        + &inspected("api", API, api.port(), "grant.upgrade = true\n");
    let inside = Inside::start(&pki, &[PAGE, API], &format!("{TIERS}{rules}"));
    trust(&inside);

    let url = format!("https://{PAGE}:{}/", origin.port());
    let words = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--remote-debugging-port=0",
    ];
    let more = [
        format!("--proxy-server={}", inside.gate.url()),
        format!(
            "--user-data-dir={}",
            inside.home().join("profile").display()
        ),
        url,
    ];
    let words = words.map(str::to_owned).into_iter().chain(more);
    let _browser = Service::start("chromium", inside.home(), words);
    let reported = |what: &str| {
        let asked = origin.asked();
        asked.iter().any(|line| line.contains(what))
    };
    for what in [
        "fetched%20200",
        "asked%20opaque",
        "said%20from%20the%20browser",
        "streamed%20on%20a%20stream",
    ] {
        until(what, || {
            assert!(
                !reported("no%20socket") && !reported("failed"),
                "{:?}",
                origin.asked()
            );
            reported(what)
        });
    }
    assert_eq!(origin.received(), b"from the browser");
    assert_eq!(api.request("/hello").method(), "GET");
    assert_eq!(api.request("/frames").method(), "CONNECT");
    let judged = inside.judged();
    for (host, what) in [(PAGE, "the page"), (API, "HTTP/2")] {
        let passed = judged
            .iter()
            .any(|line| line.text("server.address") == host && line.verdict() == "allow");
        assert!(passed, "{what}: {judged:?}");
    }
    // Whatever else a browser asks for by itself has no rule here.
    let others = inside.gate.records().named("decision");
    let ours = |line: &&crate::kit::Line| [PAGE, API].contains(&line.text("server.address"));
    assert!(
        others
            .iter()
            .filter(|line| !ours(line))
            .all(|line| line.verdict() == "deny")
    );
}

/// Has the browser of that home trust the gate's authority.
fn trust(inside: &Inside) {
    let folder = inside.home().join(".pki/nssdb");
    std::fs::create_dir_all(&folder).expect("a folder");
    let database = format!("sql:{}", folder.display());
    let ca = inside.ca().display().to_string();
    let run = |words: &[&str]| {
        let certutil = crate::kit::Program::at(&need("certutil"), inside.home());
        certutil.args(words).run().succeeded()
    };
    run(&["-d", &database, "-N", "--empty-password"]);
    run(&[
        "-d", &database, "-A", "-t", "C,,", "-n", "tidegate", "-i", &ca,
    ]);
}
