//! The yardstick: one thread, epoll, recv and send through one shared buffer; no policy, no log, no
//! deadlines, only 127.0.0.1. What a forward proxy on this machine can be compared to.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};

use anyhow::{Context as _, Result};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};

const LISTENER: Token = Token(usize::MAX);
const EVENTS: usize = 1024;
const BUFFER: usize = 256 << 10;

/// One side of a flow.
struct Side {
    stream: TcpStream,
    /// Read from the other side, and not yet taken by this one.
    pending: Vec<u8>,
    /// Whether this side has sent all.
    ended: bool,
}

/// A client and, once its head is read, the origin.
struct Flow {
    sides: [Option<Side>; 2],
    head: Vec<u8>,
}

/// Serves on `port` of loopback until it is ended.
pub fn serve(port: u16) -> Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut flows = Flows {
        flows: Vec::new(),
        free: Vec::new(),
        buffer: vec![0; BUFFER],
    };
    let mut events = Events::with_capacity(EVENTS);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                flows.accept(&listener, poll.registry())?;
                continue;
            }
            let (index, side) = (event.token().0 / 2, event.token().0 % 2);
            if flows
                .step(
                    index,
                    side,
                    event.is_readable(),
                    event.is_writable(),
                    poll.registry(),
                )
                .is_err()
            {
                flows.close(index);
            }
        }
    }
}

struct Flows {
    flows: Vec<Option<Flow>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
}

impl Flows {
    fn accept(&mut self, listener: &TcpListener, registry: &Registry) -> Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            stream.set_nodelay(true)?;
            let index = self.free.pop().unwrap_or_else(|| {
                self.flows.push(None);
                self.flows.len() - 1
            });
            registry.register(
                &mut stream,
                Token(index * 2),
                Interest::READABLE | Interest::WRITABLE,
            )?;
            self.flows[index] = Some(Flow {
                sides: [Some(Side::new(stream)), None],
                head: Vec::new(),
            });
        }
    }

    fn close(&mut self, index: usize) {
        if self.flows[index].take().is_some() {
            self.free.push(index);
        }
    }

    /// Moves what one side can give or take now.
    fn step(
        &mut self,
        index: usize,
        side: usize,
        readable: bool,
        writable: bool,
        registry: &Registry,
    ) -> Result<()> {
        let Some(flow) = &mut self.flows[index] else {
            return Ok(());
        };
        if flow.sides[1].is_none() {
            return if readable {
                flow.read_head(&mut self.buffer, index, registry)
            } else {
                Ok(())
            };
        }
        if writable && flow.flush(side)? {
            flow.carry(1 - side, &mut self.buffer)?;
        }
        if readable {
            flow.carry(side, &mut self.buffer)?;
        }
        if flow
            .sides
            .iter()
            .flatten()
            .all(|it| it.ended && it.pending.is_empty())
        {
            self.close(index);
        }
        Ok(())
    }
}

impl Flow {
    fn read_head(&mut self, buffer: &mut [u8], index: usize, registry: &Registry) -> Result<()> {
        let client = self.sides[0].as_mut().context("no client")?;
        loop {
            match client.stream.read(buffer) {
                Ok(0) => anyhow::bail!("ended before its head"),
                Ok(count) => self.head.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
            if self.head.ends_with(b"\r\n\r\n") {
                break;
            }
        }
        if !self.head.ends_with(b"\r\n\r\n") {
            return Ok(());
        }
        let line = self
            .head
            .split(|it| *it == b'\r')
            .next()
            .unwrap_or_default();
        let (is_connect, target) = target(line)?;
        let stream = std::net::TcpStream::connect(target)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let mut stream = TcpStream::from_std(stream);
        registry.register(
            &mut stream,
            Token(index * 2 + 1),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let mut origin = Side::new(stream);
        if is_connect {
            client.send(b"HTTP/1.1 200 OK\r\n\r\n")?;
        } else {
            origin.send(&self.head)?;
        }
        self.head = Vec::new();
        self.sides[1] = Some(origin);
        Ok(())
    }

    /// Whether nothing waits for `side` any more.
    fn flush(&mut self, side: usize) -> Result<bool> {
        let Some(side) = &mut self.sides[side] else {
            return Ok(false);
        };
        let pending = std::mem::take(&mut side.pending);
        side.send(&pending)?;
        Ok(side.pending.is_empty() && !pending.is_empty())
    }

    /// Reads from `from` until it has no more or the other side takes no more.
    fn carry(&mut self, from: usize, buffer: &mut [u8]) -> Result<()> {
        let [Some(a), Some(b)] = &mut self.sides else {
            return Ok(());
        };
        let (from, to) = if from == 0 { (a, b) } else { (b, a) };
        while to.pending.is_empty() && !from.ended {
            match from.stream.read(buffer) {
                Ok(0) => {
                    from.ended = true;
                    let _ = to.stream.shutdown(Shutdown::Write);
                }
                Ok(count) => to.send(&buffer[..count])?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Side {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            pending: Vec::new(),
            ended: false,
        }
    }

    fn send(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.pending.extend_from_slice(bytes);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Whether a request line is of CONNECT, and its target.
fn target(line: &[u8]) -> Result<(bool, SocketAddr)> {
    let line = std::str::from_utf8(line)?;
    let mut words = line.split(' ');
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().context("no target")?,
    );
    let authority = target
        .strip_prefix("http://")
        .unwrap_or(target)
        .split('/')
        .next()
        .unwrap_or_default();
    Ok((method == "CONNECT", authority.parse()?))
}
