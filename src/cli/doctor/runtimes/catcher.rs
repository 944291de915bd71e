//! A test proxy on loopback that refuses every request and records the requested names.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_millis(500);
/// Maximum bytes of a request that are read, and maximum number of names.
const HEAD: usize = 2048;
const NAMES: usize = 64;

/// The proxy, until it is dropped.
pub(super) struct Catcher {
    address: SocketAddr,
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    seen: Mutex<BTreeSet<String>>,
    over: AtomicBool,
}

impl Catcher {
    /// Listens on a free port.
    pub(super) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let inner = Arc::new(Inner::default());
        let own = inner.clone();
        thread::Builder::new().spawn(move || {
            // One client at a time: the first bytes of a client are few, and the wait for them is
            // short.
            for stream in listener.incoming() {
                if own.over.load(Ordering::Acquire) {
                    break;
                }
                let _ = stream.and_then(|stream| own.refuse(stream));
            }
        })?;
        Ok(Self { address, inner })
    }

    /// Returns the port.
    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Whether a client requested that host.
    pub(super) fn saw(&self, host: &str) -> bool {
        let seen = self
            .inner
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        seen.contains(host)
    }
}

impl Drop for Catcher {
    fn drop(&mut self) {
        self.inner.over.store(true, Ordering::Release);
        // Wakes the thread, which then notices the end.
        let _ = TcpStream::connect_timeout(&self.address, PATIENCE);
    }
}

impl Inner {
    fn refuse(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut head = [0; HEAD];
        let length = stream.read(&mut head)?;
        let line = String::from_utf8_lossy(head.get(..length).unwrap_or_default()).into_owned();
        if let Some(host) = host(&line) {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.len() < NAMES {
                seen.insert(host);
            }
        }
        stream.write_all(
            b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        )
    }
}

/// Returns the host of `CONNECT host:port` or `GET scheme://host/`.
fn host(head: &str) -> Option<String> {
    let target = head.split_whitespace().nth(1)?;
    let rest = target.split_once("://").map_or(target, |(_, rest)| rest);
    let host = rest.split([':', '/']).next()?;
    Some(host.to_ascii_lowercase())
}
