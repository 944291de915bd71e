//! A TCP hop that does to a connection what networks do.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::{Origin, Wire};

/// What the hop does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// Passes everything on late.
    Delays(Duration),
    /// Passes each byte on in a write of its own, both ways.
    Dribbles,
    /// Takes the connection and then is silent for ever.
    Drops,
    /// Resets after so many bytes from the far side.
    ResetsAfter(usize),
}

/// A hop before an origin.
#[derive(Debug)]
pub(crate) struct Faults {
    address: SocketAddr,
}

impl Faults {
    /// Stands before `origin`.
    pub(crate) fn before(origin: &Origin, fault: Fault) -> Self {
        Self::towards(origin.address(), fault)
    }

    /// Stands before any address.
    pub(crate) fn towards(far: SocketAddr, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            let mut kept = Vec::new();
            for near in listener.incoming().flatten() {
                match fault {
                    Fault::Drops => kept.push(near),
                    _ => carry(Wire::plain(near), far, fault),
                }
            }
        });
        Self { address }
    }

    /// Where the hop is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// What both directions of one connection share.
#[derive(Clone, Debug)]
struct Passage {
    fault: Fault,
    cut: Arc<AtomicBool>,
}

fn carry(near: Wire, far: SocketAddr, fault: Fault) {
    let far = Wire::dial(far);
    let (near_again, far_again) = (again(&near), again(&far));
    let passage = Passage { fault, cut: Arc::default() };
    let back = passage.clone();
    thread::spawn(move || passage.one_way(near, far, None));
    let limit = if let Fault::ResetsAfter(count) = fault { Some(count) } else { None };
    thread::spawn(move || back.one_way(far_again, near_again, limit));
}

fn again(wire: &Wire) -> Wire {
    let socket = wire.socket();
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a read timeout");
    let socket = socket.try_clone().expect("a socket");
    Wire::Tcp(socket)
}

impl Passage {
    fn one_way(&self, mut from: Wire, mut to: Wire, mut left: Option<usize>) {
        let mut held = [0; 16 * 1024];
        while !self.cut.load(Ordering::Relaxed) {
            let count = match from.read(&mut held) {
                Ok(0) => return to.half_close(),
                Ok(count) => count,
                Err(error) if is_patience(&error) => continue,
                Err(_) => break,
            };
            let passing = left.map_or(count, |left| left.min(count));
            if self.pass(&held[..passing], &mut to).is_err() {
                break;
            }
            left = left.map(|left| left - passing);
            if left == Some(0) {
                break;
            }
        }
        // The last of the two threads to let go of a socket resets it.
        self.cut.store(true, Ordering::Relaxed);
        from.reset();
        to.reset();
    }

    fn pass(&self, bytes: &[u8], to: &mut Wire) -> io::Result<()> {
        match self.fault {
            Fault::Delays(pause) => {
                let (_held, never) = mpsc::channel::<()>();
                let _ = never.recv_timeout(pause);
                to.write_all(bytes)
            }
            Fault::Dribbles => bytes.iter().try_for_each(|byte| to.write_all(&[*byte])),
            Fault::Drops | Fault::ResetsAfter(_) => to.write_all(bytes),
        }
    }
}

fn is_patience(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
