//! Happy eyeballs (RFC 8305) over addresses that were judged before.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;

use super::alive::keep_alive;

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

/// Connects to the first address that answers.
pub(super) async fn connect(addresses: &[SocketAddr]) -> io::Result<(TcpStream, SocketAddr)> {
    match addresses {
        [only] => connect_one(*only).await,
        many => race(many).await,
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the place that dials")]
async fn connect_one(address: SocketAddr) -> io::Result<(TcpStream, SocketAddr)> {
    let stream = TcpStream::connect(address).await?;
    keep_alive(&stream);
    Ok((stream, address))
}

type Attempt = Pin<Box<dyn Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send>>;

async fn race(addresses: &[SocketAddr]) -> io::Result<(TcpStream, SocketAddr)> {
    let mut waiting = addresses.iter();
    let mut running: Vec<Attempt> = Vec::new();
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address");
    loop {
        let next = waiting.next();
        if let Some(address) = next {
            running.push(Box::pin(connect_one(*address)));
        }
        if running.is_empty() {
            return Err(last);
        }
        let first = first_of(&mut running);
        let ended = match next {
            Some(_) if waiting.len() > 0 => tokio::time::timeout(HEAD_START, first).await.ok(),
            _ => Some(first.await),
        };
        match ended {
            Some(Ok(winner)) => return Ok(winner),
            Some(Err(error)) => last = error,
            None => {}
        }
    }
}

/// Waits for the first attempt to end, and takes it out.
async fn first_of(running: &mut Vec<Attempt>) -> io::Result<(TcpStream, SocketAddr)> {
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

    use super::*;

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
