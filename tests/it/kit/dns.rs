//! A name server that answers what the test says and remembers every question.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// A name server on loopback; its thread ends with the test process.
#[derive(Debug)]
pub(crate) struct Dns {
    address: SocketAddr,
    answers: Arc<Mutex<HashMap<String, Vec<IpAddr>>>>,
    asked: Arc<Mutex<Vec<String>>>,
    held: Arc<(Mutex<bool>, Condvar)>,
}

impl Dns {
    /// Answers these names; every other does not exist.
    pub(crate) fn start(answers: &[(&str, &[&str])]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let dns = Self {
            address: socket.local_addr().expect("an address"),
            answers: Arc::default(),
            asked: Arc::default(),
            held: Arc::default(),
        };
        for (name, addresses) in answers {
            dns.answer(name, addresses);
        }
        let (answers, asked) = (dns.answers.clone(), dns.asked.clone());
        let held = dns.held.clone();
        thread::spawn(move || serve(&socket, &answers, &asked, &held));
        dns
    }

    /// From now on, questions are taken and not answered.
    pub(crate) fn hold(&self) {
        *self.held.0.lock().expect("a switch") = true;
    }

    /// Answers again, what was asked in between first.
    pub(crate) fn release(&self) {
        *self.held.0.lock().expect("a switch") = false;
        self.held.1.notify_all();
    }

    /// From now on, that name has these addresses.
    pub(crate) fn answer(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses
            .iter()
            .map(|text| text.parse().expect("an address"))
            .collect();
        self.answers
            .lock()
            .expect("answers")
            .insert(name.to_owned(), addresses);
    }

    /// What to write under `[dial]`.
    pub(crate) fn section(&self) -> String {
        format!("[dial]\nresolvers = [\"{}\"]\n", self.address)
    }

    /// Every name asked for so far, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("questions").clone()
    }
}

fn serve(
    socket: &UdpSocket,
    answers: &Mutex<HashMap<String, Vec<IpAddr>>>,
    asked: &Mutex<Vec<String>>,
    held: &(Mutex<bool>, Condvar),
) {
    let mut packet = [0; 1500];
    while let Ok((size, from)) = socket.recv_from(&mut packet) {
        let Some((name, kind, question)) = question(&packet[..size]) else {
            continue;
        };
        asked.lock().expect("questions").push(name.clone());
        let (held, released) = held;
        drop(released.wait_while(held.lock().expect("a switch"), |held| *held));
        let known = answers.lock().expect("answers").get(&name).cloned();
        let _ = socket.send_to(&reply(&packet, &question, kind, known.as_deref()), from);
    }
}

/// The name in lower case, the type asked for, and the question's bytes.
fn question(packet: &[u8]) -> Option<(String, u16, Vec<u8>)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]);
    Some((labels.join("."), kind, packet.get(12..at + 4)?.to_vec()))
}

fn reply(packet: &[u8], question: &[u8], kind: u16, known: Option<&[IpAddr]>) -> Vec<u8> {
    let records: Vec<Vec<u8>> = known
        .unwrap_or_default()
        .iter()
        .filter_map(|address| match (kind, address) {
            (1, IpAddr::V4(address)) => Some(record(1, &address.octets())),
            (28, IpAddr::V6(address)) => Some(record(28, &address.octets())),
            _ => None,
        })
        .collect();
    let code = if known.is_some() { 0 } else { 3 };
    let count = u8::try_from(records.len()).expect("a few records");
    let mut reply = packet[..2].to_vec();
    reply.extend([0x85, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
    reply.extend(question);
    reply.extend(records.concat());
    reply
}

/// A resource record for the name of the question, to be forgotten after a second.
fn record(kind: u8, data: &[u8]) -> Vec<u8> {
    let length = u8::try_from(data.len()).expect("an address");
    [&[0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 1, 0, length][..], data].concat()
}
