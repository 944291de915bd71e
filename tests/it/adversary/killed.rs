//! A gate that is killed right behind its answers: each that a client has seen has its line.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;

use rustix::process::Signal;

use crate::kit::{DEADLINE, Gate, Lines, Origin, TIERS, Visit, names};

/// How often the gate is killed, and how many clients wait for an answer then.
const KILLS: usize = 100;
const CLIENTS: usize = 10;

/// The target of a client: every other one is allowed.
fn target(kill: usize, client: usize) -> (String, bool) {
    let allowed = client % 2 == 1;
    let end = if allowed { "com" } else { "net" };
    (format!("k{kill}-c{client}.example.{end}"), allowed)
}

fn policy(port: u16) -> String {
    let every = (0..KILLS).flat_map(|kill| (0..CLIENTS).map(move |client| target(kill, client)));
    let allowed: Vec<String> = every.filter(|it| it.1).map(|it| it.0).collect();
    let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
    format!(
        "{TIERS}{}\n[[rule]]\nid = \"all\"\nverdict = \"allow\"\nhosts = [\"*.example.com\"]\n\
         ports = [{port}]\naddresses = [\"127.0.0.0/8\"]\n",
        names(&allowed)
    )
}

/// The status that a client reads; `None` where the gate was killed before.
fn status(proxy: SocketAddr, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(proxy).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut line = [0; 12];
    stream.read_exact(&mut line).ok()?;
    Some(String::from_utf8_lossy(&line[9..]).into_owned())
}

#[test]
fn no_line_of_an_answer_is_lost_with_a_gate_that_is_killed_behind_it() {
    let origin = Origin::http(|visit: &mut Visit, _| visit.answer("200 OK", "text/plain", b"a"));
    let port = origin.port();
    let mut gate = Gate::with(&policy(port));
    let answered = Mutex::new(Vec::new());
    for kill in 0..KILLS {
        let running = &gate;
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let answered = &answered;
                scope.spawn(move || {
                    let (host, allowed) = target(kill, client);
                    // Refusals of CONNECT are answered in another place than those of requests.
                    let request = match client % 4 {
                        2 => {
                            format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n")
                        }
                        _ => format!(
                            "GET http://{host}:{port}/ HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"
                        ),
                    };
                    let Some(status) = status(running.proxy(), &request) else {
                        return;
                    };
                    running.signal(Signal::KILL);
                    assert_eq!(status, if allowed { "200" } else { "403" }, "{host}");
                    answered.lock().expect("hosts").push(host);
                });
            }
        });
        gate.ended();
        gate.restart();
    }
    let answered = answered.into_inner().expect("hosts");
    let refused = answered
        .iter()
        .filter(|host| host.contains(".example.net"))
        .count();
    assert!(
        answered.len() >= KILLS && refused > 0,
        "{} answers",
        answered.len()
    );
    eprintln!("{} answers, {refused} of them refusals", answered.len());
    let lines = gate.records().named("decision");
    let known: std::collections::HashSet<_> = lines
        .iter()
        .map(|line| line.text("server.address"))
        .collect();
    let lost: Vec<_> = answered
        .iter()
        .filter(|host| !known.contains(host.as_str()))
        .collect();
    assert!(
        lost.is_empty(),
        "{} of {} lines are lost: {lost:?}",
        lost.len(),
        answered.len()
    );
}
