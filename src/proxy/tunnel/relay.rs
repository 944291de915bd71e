//! Relays bytes between two sockets, in both directions: counts them, limits the idle time, and
//! forwards half-closes.
//!
//! Both directions are in one future, so a tunnel costs one task. An idle direction owns no buffer:
//! it borrows one only when its socket is readable. A direction that fills its small buffer again
//! and again gets a large one, because for bulk the cost of a byte depends on the size of the
//! buffer. After 512 KiB, the kernel moves the rest alone ([`splice`](super::splice)). Bytes that
//! the reader does not take are kept, and no more are read until it has taken them: this is the
//! back-pressure.
//!
//! `copy_bidirectional` is not used: it owns two buffers during the whole life of a tunnel, which
//! are either too small for bulk or too large for ten thousand idle tunnels.

mod way;

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::dial::Stream;
use crate::gate::Counters;

use self::way::{Sink, Source, Way};
use super::buffers::Buffers;

use crate::http::http2;
use crate::proxy::connection::client::{ClientRead, ClientStream, ClientWrite};
use crate::proxy::request::origin::{OriginRead, OriginStream, OriginWrite, split};

/// The end of a relay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Relayed {
    /// Both sides ended, `first` before the other.
    Closed {
        /// The side that ended first.
        first: Side,
    },
    /// No byte moved for the idle time.
    Idle,
    /// A side broke off.
    Reset {
        /// The side.
        side: Side,
        /// The error of the system.
        error: io::ErrorKind,
    },
}

/// A side of a tunnel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    /// The client that opened the tunnel.
    Client,
    /// The destination of the tunnel.
    Upstream,
}

/// Moves bytes both ways until both sides are done, one breaks off, or both are idle for `idle`.
/// Then the caller closes both sockets: a plain socket passes the end of the direction that ends last
/// on only when the socket is closed.
///
/// The early bytes were read before, and are sent first; they are released once they are written,
/// so that an idle tunnel does not keep them. The result is `Idle` between `idle` and five quarters
/// of it after the last byte. Dropping the future stops at once; `counters` has the bytes moved
/// until then.
pub(crate) async fn relay(
    client: &mut ClientStream,
    upstream: &mut Stream,
    early: Early,
    buffers: &Buffers,
    counters: &Counters,
    idle: Duration,
) -> Relayed {
    let both = Both {
        early,
        buffers,
        counters,
        idle,
    };
    // Boxed: state that only some tunnels need must not cost the others memory.
    match (client, upstream) {
        (ClientStream::Plain(client), Stream::Tcp(upstream)) => {
            both.run(client.split(), upstream.split()).await
        }
        (client, upstream) => Box::pin(both.run_other(client, split(upstream))).await,
    }
}

/// Like [`relay`], for an upgraded request, whose origin may be an HTTP/2 stream.
pub(crate) async fn relay_upgraded(
    client: &mut ClientStream,
    upstream: &mut OriginStream,
    early: Early,
    buffers: &Buffers,
    counters: &Counters,
    idle: Duration,
) -> Relayed {
    if let OriginStream::Wire(upstream) = upstream {
        return relay(client, upstream, early, buffers, counters, idle).await;
    }
    let both = Both {
        early,
        buffers,
        counters,
        idle,
    };
    Box::pin(both.run_other(client, upstream.split())).await
}

impl Source for ClientRead<'_> {
    fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(socket) => Some(socket.as_ref()),
            _ => None,
        }
    }
}

impl Sink for ClientWrite<'_> {
    fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(socket) => Some(socket.as_ref()),
            _ => None,
        }
    }
}

impl Source for OriginRead<'_> {
    fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(socket) => Some(socket.as_ref()),
            _ => None,
        }
    }
}

impl Sink for OriginWrite<'_> {
    fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(socket) => Some(socket.as_ref()),
            _ => None,
        }
    }
}

impl Source for http2::ReadHalf<'_> {}
impl Sink for http2::WriteHalf<'_> {}

/// The bytes that were read from each side before the relay.
#[derive(Default)]
pub(crate) struct Early {
    /// From the client.
    pub(crate) to_upstream: Bytes,
    /// From the destination.
    pub(crate) to_client: Bytes,
}

/// One relay, without its sides.
struct Both<'a> {
    early: Early,
    buffers: &'a Buffers,
    counters: &'a Counters,
    idle: Duration,
}

impl Both<'_> {
    /// A plain function with one future that is polled in place: an `async fn` would keep its
    /// arguments beside its state, in every idle tunnel.
    fn run(
        self,
        (from_client, to_client): (impl Source, impl Sink),
        (from_upstream, to_upstream): (impl Source, impl Sink),
    ) -> impl Future<Output = Relayed> {
        let Self {
            early,
            buffers,
            counters,
            idle,
        } = self;
        let mut out = Way::new(
            from_client,
            to_upstream,
            Side::Client,
            &counters.out,
            buffers,
        );
        let mut back = Way::new(
            from_upstream,
            to_client,
            Side::Upstream,
            &counters.back,
            buffers,
        );
        (out.early, back.early) = (early.to_upstream, early.to_client);
        let mut silence = Box::pin(silence(counters, idle));
        let mut first = None;
        poll_fn(move |cx| {
            if let Some(end) = look(out.poll(cx), Side::Client, &mut first) {
                return Poll::Ready(end);
            }
            back.is_last = out.is_done();
            if let Some(end) = look(back.poll(cx), Side::Upstream, &mut first) {
                return Poll::Ready(end);
            }
            out.is_last = back.is_done();
            match first {
                Some(first) if out.is_done() && back.is_done() => {
                    Poll::Ready(Relayed::Closed { first })
                }
                _ => silence.as_mut().poll(cx).map(|()| Relayed::Idle),
            }
        })
    }

    /// Like [`Both::run`], for other kinds of streams; an HTTP/2 client is detected as gone even
    /// without a read or write.
    async fn run_other(
        self,
        client: &mut ClientStream,
        upstream: (OriginRead<'_>, OriginWrite<'_>),
    ) -> Relayed {
        let ClientStream::Http2(stream) = client else {
            return self.run(client.split(), upstream).await;
        };
        let gone = stream.gone();
        tokio::select! {
            biased;
            relayed = self.run(stream.split(), upstream) => relayed,
            error = gone => Relayed::Reset { side: Side::Client, error: error.kind() },
        }
    }
}

/// Sets the direction that ended first; returns the end if one broke off.
fn look(turn: Poll<Result<(), Relayed>>, side: Side, first: &mut Option<Side>) -> Option<Relayed> {
    match turn {
        Poll::Ready(Err(end)) => return Some(end),
        Poll::Ready(Ok(())) if first.is_none() => *first = Some(side),
        _ => {}
    }
    None
}

/// Waits until no byte has been counted for `idle`, with a tolerance of a quarter.
async fn silence(counters: &Counters, idle: Duration) {
    let mut silence = Silence::since(counters);
    while !silence.lasts(counters) {
        tokio::time::sleep(idle / 4).await;
    }
}

/// Detects that no byte was counted for a time: checks the counters four times in it, instead of
/// setting a timer for every byte.
pub(crate) struct Silence {
    seen: u64,
    looks: u8,
}

impl Silence {
    /// Starts at the present count.
    pub(crate) fn since(counters: &Counters) -> Self {
        Self {
            seen: counters.total(),
            looks: 0,
        }
    }

    /// Called now and after each quarter of the time; `true` when no byte was counted during the
    /// whole time.
    pub(crate) fn lasts(&mut self, counters: &Counters) -> bool {
        let total = counters.total();
        if total != self.seen {
            (self.seen, self.looks) = (total, 1);
        }
        self.looks += 1;
        self.looks > 5
    }
}

impl Side {
    /// The other side.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Client => Self::Upstream,
            Self::Upstream => Self::Client,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use socket2::SockRef;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use tokio::io::{AsyncRead, AsyncWrite};

    use super::super::buffers::Size;
    use super::*;
    use crate::clock::Clock;

    const LONG: Duration = Duration::from_mins(1);

    type Tunnel = (TcpStream, ClientStream, Stream, TcpStream);

    /// A tunnel: its near end, both sockets inside, its far end.
    async fn tunnel() -> Tunnel {
        let ((near, client), (upstream, far)) = tokio::join!(pair(), pair());
        (
            near,
            ClientStream::Plain(client),
            Stream::Tcp(upstream.into()),
            far,
        )
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .await
            .expect("bound");
        let here = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("up");
        here.set_nonblocking(true).expect("a socket");
        let (there, _) = listener.accept().await.expect("connected");
        (TcpStream::from_std(here).expect("a socket"), there)
    }

    /// Runs a relay beside `talk`, and waits for both, within a limit.
    async fn beside(
        client: &mut ClientStream,
        upstream: &mut Stream,
        counters: &Counters,
        talk: impl Future<Output = ()>,
    ) -> Relayed {
        beside_with(Early::default(), (client, upstream), counters, talk).await
    }

    /// Like [`beside`], with bytes that were read before.
    async fn beside_with(
        early: Early,
        (client, upstream): (&mut ClientStream, &mut Stream),
        counters: &Counters,
        talk: impl Future<Output = ()>,
    ) -> Relayed {
        let buffers = Buffers::default();
        let relay = async {
            let end = relay(client, upstream, early, &buffers, counters, LONG).await;
            // Closes both sockets, as dropping a tunnel does.
            let _ = tokio::join!(client.shutdown(), upstream.shutdown());
            end
        };
        let both = async { tokio::join!(relay, talk).0 };
        tokio::time::timeout(LONG, both).await.expect("in time")
    }

    async fn read_all(from: &mut TcpStream) -> Vec<u8> {
        let mut all = Vec::new();
        from.read_to_end(&mut all).await.expect("an end");
        all
    }

    fn reset(socket: TcpStream) {
        SockRef::from(&socket)
            .set_linger(Some(Duration::ZERO))
            .expect("a socket");
        drop(socket);
    }

    /// A wrapper that takes one slice at a time makes TLS above it write each record on its own.
    #[tokio::test]
    async fn each_layer_below_tls_takes_several_records_at_once() {
        let (mut near, client, mut upstream, mut far) = tunnel().await;
        let mut client = crate::tls::Rewound::new(Bytes::new(), client);
        let records = [io::IoSlice::new(b"one"), io::IoSlice::new(b"two")];
        assert!(client.is_write_vectored() && upstream.is_write_vectored());
        assert_eq!(client.write_vectored(&records).await.expect("written"), 6);
        assert_eq!(upstream.write_vectored(&records).await.expect("written"), 6);
        for end in [&mut near, &mut far] {
            let mut whole = [0; 6];
            end.read_exact(&mut whole).await.expect("read");
            assert_eq!(&whole, b"onetwo");
        }
    }

    #[tokio::test]
    async fn an_answer_comes_whole_after_the_client_has_said_its_last() {
        let (mut near, mut client, mut upstream, mut far) = tunnel().await;
        let counters = Counters::default();
        let talk = async {
            near.write_all(b"question").await.expect("open");
            near.shutdown().await.expect("open");
            let answer = async {
                assert_eq!(read_all(&mut far).await, b"question");
                far.write_all(&vec![7; 1_000_000]).await.expect("half open");
                far.shutdown().await.expect("half open");
            };
            assert_eq!(
                tokio::join!(answer, read_all(&mut near)).1,
                vec![7; 1_000_000]
            );
        };
        let end = beside(&mut client, &mut upstream, &counters, talk).await;
        assert_eq!(
            end,
            Relayed::Closed {
                first: Side::Client
            }
        );
        assert_eq!(
            (counters.out.into_inner(), counters.back.into_inner()),
            (8, 1_000_000)
        );
    }

    #[tokio::test]
    async fn a_client_may_speak_on_after_the_other_side_has_ended() {
        let (mut near, mut client, mut upstream, mut far) = tunnel().await;
        let talk = async {
            far.write_all(b"bye").await.expect("open");
            far.shutdown().await.expect("open");
            assert_eq!(read_all(&mut near).await, b"bye");
            near.write_all(b"one more thing").await.expect("half open");
            near.shutdown().await.expect("half open");
            assert_eq!(read_all(&mut far).await, b"one more thing");
        };
        let end = beside(&mut client, &mut upstream, &Counters::default(), talk).await;
        assert_eq!(
            end,
            Relayed::Closed {
                first: Side::Upstream
            }
        );
    }

    #[tokio::test]
    async fn early_bytes_go_first_and_are_counted() {
        let (mut near, mut client, mut upstream, mut far) = tunnel().await;
        let counters = Counters::default();
        let early = Early {
            to_upstream: Bytes::from_static(b"hello "),
            to_client: Bytes::from_static(b"HI "),
        };
        let talk = async {
            near.write_all(b"world").await.expect("open");
            near.shutdown().await.expect("open");
            far.write_all(b"WORLD").await.expect("open");
            far.shutdown().await.expect("open");
            assert_eq!(read_all(&mut far).await, b"hello world");
            assert_eq!(read_all(&mut near).await, b"HI WORLD");
        };
        beside_with(early, (&mut client, &mut upstream), &counters, talk).await;
        assert_eq!(
            (counters.out.into_inner(), counters.back.into_inner()),
            (11, 8)
        );
    }

    /// Bytes that differ by position: the period is prime to every buffer size.
    fn pattern() -> Vec<u8> {
        (0..251 * 2048)
            .map(|at| u8::try_from(at % 251).expect("small"))
            .collect()
    }

    async fn send(to: &mut (impl AsyncWrite + Unpin), total: usize) {
        let pattern = pattern();
        let mut left = total;
        while left > 0 {
            let piece = pattern.len().min(left);
            to.write_all(&pattern[..piece]).await.expect("open");
            left -= piece;
        }
        to.shutdown().await.expect("open");
    }

    /// Reads to the end; returns the number of bytes that match the pattern.
    async fn check(from: &mut (impl AsyncRead + Unpin)) -> usize {
        let (pattern, mut buffer, mut total) = (pattern(), vec![0; 200_000], 0);
        loop {
            let len = from.read(&mut buffer).await.expect("open");
            if len == 0 {
                return total;
            }
            let start = total % 251;
            assert!(
                buffer[..len] == pattern[start..start + len],
                "wrong byte after {total}"
            );
            total += len;
        }
    }

    #[tokio::test]
    async fn bulk_arrives_byte_for_byte_both_ways_at_once() {
        const BULK: usize = 64 * 1024 * 1024;
        let (mut near, mut client, mut upstream, mut far) = tunnel().await;
        let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (near.split(), far.split());
        let counters = Counters::default();
        let talk = async {
            let (.., there, back) = tokio::join!(
                send(&mut near_out, BULK),
                send(&mut far_out, BULK),
                check(&mut far_in),
                check(&mut near_in)
            );
            assert_eq!((there, back), (BULK, BULK));
        };
        let end = beside(&mut client, &mut upstream, &counters, talk).await;
        assert!(matches!(end, Relayed::Closed { .. }));
        assert_eq!(counters.total(), 2 * BULK as u64);
    }

    #[tokio::test]
    async fn bulk_goes_through_pipes_that_are_given_back_at_rest() {
        let (mut near, mut client, mut upstream, mut far) = tunnel().await;
        let (counters, buffers) = (Counters::default(), Buffers::default());
        let relay = relay(
            &mut client,
            &mut upstream,
            Early::default(),
            &buffers,
            &counters,
            LONG,
        );
        let talk = async {
            let (pattern, mut seen) = (pattern(), vec![0; 64 * pattern().len()]);
            let send = async {
                for _ in 0..64 {
                    near.write_all(&pattern).await.expect("open");
                }
            };
            let ((), read) = tokio::join!(send, far.read_exact(&mut seen));
            read.expect("open");
            assert!(seen.chunks(pattern.len()).all(|piece| piece == pattern));
            assert_eq!(buffers.pipes().idle(), 1);
            far.write_all(b"small talk").await.expect("open");
            near.read_exact(&mut [0; 10]).await.expect("open");
            drop((near, far));
        };
        tokio::join!(relay, talk);
        assert_eq!(buffers.pipes().idle(), 1);
    }

    #[tokio::test]
    async fn a_pipe_that_a_reset_left_full_is_thrown_away() {
        let (mut near, mut client, mut upstream, mut far) = tunnel().await;
        let (counters, buffers) = (Counters::default(), Buffers::default());
        let relay = relay(
            &mut client,
            &mut upstream,
            Early::default(),
            &buffers,
            &counters,
            LONG,
        );
        let talk = async {
            let (pattern, stop) = (pattern(), Duration::from_millis(500));
            let mut seen = vec![0; 16 * 1024 * 1024];
            let flood = async {
                while tokio::time::timeout(stop, near.write_all(&pattern))
                    .await
                    .is_ok()
                {}
            };
            let ((), read) = tokio::join!(flood, far.read_exact(&mut seen));
            read.expect("open");
            reset(far);
        };
        let (end, ()) = tokio::join!(relay, talk);
        assert!(
            matches!(
                end,
                Relayed::Reset {
                    side: Side::Upstream,
                    ..
                }
            ),
            "{end:?}"
        );
        assert_eq!(buffers.pipes().idle(), 0);
    }

    #[tokio::test]
    async fn a_reader_that_stops_stops_the_writer_and_loses_nothing() {
        const STOP: Duration = Duration::from_millis(500);
        let (mut near, mut client, mut upstream, mut far) = tunnel().await;
        let (pattern, counters) = (pattern(), Counters::default());
        let talk = async {
            let mut sent = 0;
            while let Ok(written) =
                tokio::time::timeout(STOP, near.write(&pattern[sent % 251..])).await
            {
                sent += written.expect("open");
                assert!(sent < 256 * 1024 * 1024, "no back-pressure");
            }
            near.shutdown().await.expect("open");
            assert_eq!(check(&mut far).await, sent);
            far.shutdown().await.expect("open");
        };
        let end = beside(&mut client, &mut upstream, &counters, talk).await;
        assert_eq!(
            end,
            Relayed::Closed {
                first: Side::Client
            }
        );
    }

    #[tokio::test]
    async fn a_tunnel_at_rest_is_small_and_holds_no_buffer() {
        let (mut near, mut client, mut upstream, mut far) = tunnel().await;
        let (counters, buffers) = (Counters::default(), Buffers::default());
        let relay = relay(
            &mut client,
            &mut upstream,
            Early::default(),
            &buffers,
            &counters,
            LONG,
        );
        assert!(size_of_val(&relay) <= 1024, "{}", size_of_val(&relay));
        let talk = async {
            near.write_all(b"ping").await.expect("open");
            far.read_exact(&mut [0; 4]).await.expect("open");
            far.write_all(b"pong").await.expect("open");
            near.read_exact(&mut [0; 4]).await.expect("open");
            assert_eq!(
                buffers.idle(Size::Small),
                1,
                "both ways used one, and gave it back"
            );
            drop((near, far));
        };
        tokio::join!(relay, talk);
    }

    #[tokio::test]
    async fn silence_ends_a_tunnel_but_traffic_does_not() {
        const IDLE: Duration = Duration::from_millis(200);
        let (mut near, mut client, mut upstream, mut far) = tunnel().await;
        let (counters, buffers, clock) = (Counters::default(), Buffers::default(), Clock::system());
        let began = clock.instant();
        let relay = relay(
            &mut client,
            &mut upstream,
            Early::default(),
            &buffers,
            &counters,
            IDLE,
        );
        let talk = async {
            while began.elapsed() < IDLE * 3 {
                near.write_all(b"ping").await.expect("kept open by traffic");
                far.read_exact(&mut [0; 4])
                    .await
                    .expect("kept open by traffic");
            }
        };
        let both = async { tokio::join!(relay, talk).0 };
        let end = tokio::time::timeout(LONG, both).await.expect("in time");
        assert_eq!(end, Relayed::Idle);
        assert!(began.elapsed() >= IDLE * 4);
    }

    #[tokio::test]
    async fn the_side_that_breaks_off_is_named() {
        let (near, mut client, mut upstream, far) = tunnel().await;
        let end = beside(&mut client, &mut upstream, &Counters::default(), async {
            reset(near);
        })
        .await;
        assert!(
            matches!(
                end,
                Relayed::Reset {
                    side: Side::Client,
                    ..
                }
            ),
            "{end:?}"
        );
        drop(far);

        let (near, mut client, mut upstream, far) = tunnel().await;
        let end = beside(&mut client, &mut upstream, &Counters::default(), async {
            reset(far);
        })
        .await;
        assert!(
            matches!(
                end,
                Relayed::Reset {
                    side: Side::Upstream,
                    ..
                }
            ),
            "{end:?}"
        );
        drop(near);
    }

    #[tokio::test]
    async fn a_reader_that_is_gone_is_named() {
        let (mut near, mut client, mut upstream, far) = tunnel().await;
        let counters = Counters::default();
        let talk = async {
            drop(far);
            // The first write provokes the reset, a later one fails.
            for _ in 0..64 {
                near.write_all(b"x")
                    .await
                    .expect("the client's own side is open");
                tokio::task::yield_now().await;
            }
        };
        let end = beside(&mut client, &mut upstream, &counters, talk).await;
        assert!(
            matches!(
                end,
                Relayed::Reset {
                    side: Side::Upstream,
                    ..
                }
            ),
            "{end:?}"
        );
    }
}
