//! Happy eyeballs (RFC 8305) over checked addresses.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;

use super::alive::keep_alive;
use super::{NoDescriptor, Socket, Taken};

/// The head start of an address before the next is tried as well (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Orders addresses by alternating families, IPv6 first (RFC 8305 section 4).
pub(super) fn interleave(addresses: impl Iterator<Item = IpAddr>) -> impl Iterator<Item = IpAddr> {
    let (six, four): (Vec<IpAddr>, Vec<IpAddr>) = addresses.partition(IpAddr::is_ipv6);
    let longest = six.len().max(four.len());
    (0..longest)
        .flat_map(move |at| [six.get(at).copied(), four.get(at).copied()])
        .flatten()
}

/// Connects to the first address that answers. `take` gives the descriptor of each attempt; a
/// second attempt runs beside the first only if there is a descriptor for it as well.
pub(super) async fn connect(
    addresses: &[SocketAddr],
    take: impl Fn() -> Option<Taken>,
) -> io::Result<(Socket, SocketAddr)> {
    match addresses {
        [only] => {
            let taken = take().ok_or_else(NoDescriptor::error)?;
            connect_one(*only, taken).await
        }
        many => race(many, take).await,
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the place that dials")]
async fn connect_one(address: SocketAddr, taken: Taken) -> io::Result<(Socket, SocketAddr)> {
    let stream = TcpStream::connect(address).await?;
    keep_alive(&stream);
    Ok((Socket::new(stream, taken), address))
}

type Attempt = Pin<Box<dyn Future<Output = io::Result<(Socket, SocketAddr)>> + Send>>;

async fn race(
    addresses: &[SocketAddr],
    take: impl Fn() -> Option<Taken>,
) -> io::Result<(Socket, SocketAddr)> {
    let mut waiting = addresses.iter();
    let mut running: Vec<Attempt> = Vec::new();
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address");
    loop {
        let taken = waiting.as_slice().first().and_then(|_| take());
        let next = taken.and_then(|taken| Some((waiting.next()?, taken)));
        let goes_on = next.is_some() && waiting.len() > 0;
        if let Some((address, taken)) = next {
            running.push(Box::pin(connect_one(*address, taken)));
        }
        if running.is_empty() {
            return Err(if waiting.len() > 0 {
                NoDescriptor::error()
            } else {
                last
            });
        }
        let first = first_of(&mut running);
        let ended = if goes_on {
            tokio::time::timeout(HEAD_START, first).await.ok()
        } else {
            Some(first.await)
        };
        match ended {
            Some(Ok(winner)) => return Ok(winner),
            Some(Err(error)) => last = error,
            None => {}
        }
    }
}

/// Waits until one attempt ends, and removes it.
async fn first_of(running: &mut Vec<Attempt>) -> io::Result<(Socket, SocketAddr)> {
    std::future::poll_fn(|context| {
        for at in 0..running.len() {
            let Some(attempt) = running.get_mut(at) else {
                break;
            };
            if let Poll::Ready(ended) = attempt.as_mut().poll(context) {
                drop(running.swap_remove(at));
                return Poll::Ready(ended);
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use std::sync::Arc;

    use super::super::Descriptors;
    use super::*;

    async fn connect(addresses: &[SocketAddr]) -> io::Result<(Socket, SocketAddr)> {
        let budget = Arc::new(Descriptors::new(8));
        super::connect(addresses, || budget.take(None, 1)).await
    }

    #[tokio::test]
    async fn without_a_descriptor_nothing_is_dialled() {
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = open.local_addr().unwrap();
        for addresses in [&[address][..], &[address, address]] {
            let error = super::connect(addresses, || None).await.unwrap_err();
            assert!(NoDescriptor::is_in(&error), "{error}");
        }
    }

    #[tokio::test]
    async fn with_one_descriptor_addresses_are_tried_one_after_the_other() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr();
        let closed = closed.unwrap();
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = open.local_addr().unwrap();
        let budget = Arc::new(Descriptors::new(1));
        let dialled = super::connect(&[closed, address], || budget.take(None, 1)).await;
        assert_eq!(dialled.unwrap().1, address);
        assert!(!budget.is_spent());
    }

    #[test]
    fn families_alternate_beginning_with_ipv6() {
        let addresses = ["1.1.1.1", "2.2.2.2", "2606::1"].map(|text| text.parse().unwrap());
        let order: Vec<IpAddr> = interleave(addresses.into_iter()).collect();
        assert_eq!(
            order,
            ["2606::1", "1.1.1.1", "2.2.2.2"].map(|text| text.parse::<IpAddr>().unwrap())
        );
    }

    #[tokio::test]
    async fn an_address_that_refuses_gives_way_to_the_next() {
        let closed = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open_address = open.local_addr().unwrap();
        let (_, winner) = connect(&[closed, open_address]).await.unwrap();
        assert_eq!(winner, open_address);
    }

    #[tokio::test]
    async fn when_all_refuse_the_last_error_is_told() {
        let closed = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let error = connect(&[closed, closed]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
