//! The certificate of our own changes while callers are served.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Scope};

use rustix::process::Signal;

use crate::kit::{Client, Gate, Message, Origin, Pki, RevocationList, eventually, until};

use super::bench::{Bench, HOST, serial_shown};
use super::through::{PLAIN, gate_with, rule};

/// A service that answers with the serial number that it is shown, and a gate in front of it.
struct World {
    bench: Bench,
    list: RevocationList,
    origin: Origin,
    trust: Pki,
    gate: Gate,
}

impl World {
    fn start() -> Self {
        let (bench, trust) = (Bench::new(), Pki::for_leaves());
        let list = bench.pki.list(&[]);
        let config = Arc::new(bench.pki.server_with_list(&[HOST], &list));
        let origin = Origin::https_with(config, |visit, _| {
            let serial = serial_shown(visit).to_string();
            visit.answer("200 OK", "text/plain", serial.as_bytes())
        });
        let port = origin.port();
        let rules = rule("tls", port, "grant.inspect = true\n") + &rule("plain", PLAIN, "");
        let gate = gate_with(&bench, &trust, port, &rules);
        Self {
            bench,
            list,
            origin,
            trust,
            gate,
        }
    }

    fn tunnel(&self) -> Client {
        let mut client = self.gate.client();
        client.tunnel(&format!("{HOST}:{}", self.origin.port()));
        client.enter(&self.trust, HOST)
    }

    fn inside(&self, client: &mut Client) -> std::io::Result<Message> {
        let host = format!("{HOST}:{}", self.origin.port());
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        client.try_answer("GET")
    }

    fn plain(client: &mut Client) -> std::io::Result<Message> {
        client.send(format!(
            "GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
        ));
        client.try_answer("GET")
    }

    /// Each file in one step; between them they do not fit together.
    fn put(&self, serial: u64) {
        self.bench.agent(serial, |_| ());
        for name in ["agent.pem", "agent.key"] {
            let (from, to) = (self.bench.path(name), self.gate.folder().join(name));
            let next = to.with_extension("next");
            std::fs::copy(from, &next).expect("a file");
            std::fs::rename(next, to).expect("a file");
        }
    }

    fn loaded(&self) -> f64 {
        let labels = [("result", "ok")];
        self.gate
            .metrics()
            .sum("tidegate_policy_reloads_total", &labels)
    }

    /// Puts a new certificate in place and waits until it is in force: told to look, or seen by
    /// the gate itself.
    fn rotate(&self, serial: u64, told: bool) {
        let before = self.loaded();
        self.put(serial);
        if told {
            self.gate.signal(Signal::HUP);
        }
        until("a reload", || self.loaded() > before);
    }
}

/// Callers who ask without a pause until they are told to stop, or the test ends otherwise.
#[derive(Default)]
struct Load {
    over: AtomicBool,
    answers: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Load {
    /// Asks on one connection after the other, so often on each.
    fn ask<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        times: usize,
        open: impl Fn() -> Client + Send + 'scope,
        ask: impl Fn(&mut Client) -> std::io::Result<Message> + Send + 'scope,
    ) {
        scope.spawn(move || {
            while !self.over.load(Ordering::Acquire) {
                let mut client = open();
                for _ in 0..times {
                    match ask(&mut client) {
                        Ok(answer) if answer.status() == 200 => {
                            self.answers.fetch_add(1, Ordering::Relaxed);
                        }
                        other => {
                            let failure = format!("{other:?}");
                            self.failures.lock().expect("failures").push(failure);
                            break;
                        }
                    }
                    if self.over.load(Ordering::Acquire) {
                        break;
                    }
                }
            }
        });
    }

    /// Waits until so many more were answered.
    fn goes_on(&self, more: usize) {
        let before = self.answers.load(Ordering::Relaxed);
        until("more answers", || {
            self.answers.load(Ordering::Relaxed) >= before + more
        });
    }
}

/// Ends the load also where the test fails: a scope waits for its threads.
struct Stop<'l>(&'l Load);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
    }
}

/// The serial number that the service was shown.
fn shown(answer: std::io::Result<Message>) -> u64 {
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), 200, "{answer:?}");
    answer.text().parse().expect("a number")
}

#[test]
fn rotating_the_certificate_under_load_fails_no_request() {
    let (world, load) = (World::start(), Load::default());
    let (open, tunnel) = (|| world.gate.client(), || world.tunnel());
    let inside = |client: &mut Client| world.inside(client);
    thread::scope(|scope| {
        let _stop = Stop(&load);
        load.ask(scope, 1, open, World::plain);
        load.ask(scope, usize::MAX, open, World::plain);
        load.ask(scope, 1, tunnel, inside);
        load.ask(scope, usize::MAX, tunnel, inside);
        let (mut kept, mut plain) = (world.tunnel(), world.gate.client());
        assert_eq!(shown(world.inside(&mut kept)), 7);
        assert_eq!(shown(World::plain(&mut plain)), 7);
        for (serial, told) in [(8, true), (9, true), (10, false), (11, true)] {
            load.goes_on(50);
            let mut unused = world.tunnel();
            world.rotate(serial, told);
            // From the next request on, however the connection came about.
            assert_eq!(shown(world.inside(&mut kept)), serial);
            assert_eq!(shown(World::plain(&mut plain)), serial);
            assert_eq!(shown(world.inside(&mut unused)), serial);
            assert_eq!(shown(world.inside(&mut world.tunnel())), serial);
        }
        load.goes_on(50);
    });
    let failures = load.failures.into_inner().expect("failures");
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn a_certificate_that_is_revoked_after_it_was_rotated_gives_a_refusal_that_says_so() {
    let world = World::start();
    let mut kept = world.tunnel();
    assert_eq!(shown(world.inside(&mut kept)), 7);
    world.rotate(8, true);
    assert_eq!(shown(world.inside(&mut kept)), 8);
    world.bench.pki.revoke(&world.list, &[8]);

    let refused = world.inside(&mut world.tunnel()).expect("an answer");
    assert_eq!((refused.status(), &*refused.refusal()), (502, "tls_failed"));
    let text = refused.text();
    assert!(text.contains("client_certificate_revoked"), "{text}");
    assert!(text.contains("our client certificate is revoked"), "{text}");
    let flow = refused.field("x-tidegate-flow").unwrap_or_default();
    let close = world.gate.close(flow);
    let said = (close.text("error.type"), close.reason());
    assert_eq!(said, ("client_certificate_revoked", "tls_failed"));
    assert_eq!(close.text("tidegate.upstream"), "internal", "{close:?}");

    // The next one is taken again, and nobody has to begin anew.
    world.rotate(9, true);
    eventually("the service", || {
        let answer = world.inside(&mut kept).expect("an answer");
        (answer.status() == 200).then_some(())
    });
    assert_eq!(shown(world.inside(&mut kept)), 9);
}
