//! Detects dead peers: TCP keep-alive (RFC 9293 section 3.8.4), and a limit for the time that sent
//! bytes wait for their acknowledgement (RFC 5482).
//!
//! A peer that answers probes may be idle for `limits.idle`: probes carry no data and do not count
//! as activity.

use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// The idle time before the first probe.
pub const KEEPALIVE_TIME: Duration = Duration::from_mins(1);
/// The time between an unanswered probe and the next one.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// The number of unanswered probes after which the peer is dead, on a system without
/// [`USER_TIMEOUT`].
pub const KEEPALIVE_PROBES: u32 = 8;
/// How long sent bytes or probes may stay unacknowledged. Linux counts a closed window as well, so
/// the limit is longer than a person pauses a download.
pub const USER_TIMEOUT: Duration = Duration::from_mins(10);

/// Sets keep-alive and the timeout on a connection, or on a listener, whose connections inherit its
/// options (`tcp(7)`).
///
/// An error leaves the defaults of the system: the connection works, but a dead peer is detected
/// later.
pub fn keep_alive<S: AsFd>(socket: &S) {
    let socket = SockRef::from(socket);
    let mut probes = TcpKeepalive::new()
        .with_time(KEEPALIVE_TIME)
        .with_interval(KEEPALIVE_INTERVAL);
    if !is_timeout_set(&socket) {
        probes = probes.with_retries(KEEPALIVE_PROBES);
    }
    if let Err(error) = socket.set_tcp_keepalive(&probes) {
        tracing::debug!(%error, "cannot set TCP keep-alive");
    }
}

/// Sets the timeout; returns whether the system has it. Then unanswered probes end a connection
/// after the timeout, and the system does not read their number (`tcp(7)`).
#[cfg(target_os = "linux")]
fn is_timeout_set(socket: &SockRef<'_>) -> bool {
    let set = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
    if let Err(error) = &set {
        tracing::debug!(%error, "cannot set TCP_USER_TIMEOUT");
    }
    set.is_ok()
}

#[cfg(not(target_os = "linux"))]
fn is_timeout_set(_: &SockRef<'_>) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::dial::{Descriptors, race};

    fn is_set(socket: &TcpStream) {
        let socket = SockRef::from(socket);
        assert!(socket.keepalive().expect("an option"));
        assert_eq!(
            socket.tcp_keepalive_time().expect("an option"),
            KEEPALIVE_TIME
        );
        assert_eq!(
            socket.tcp_keepalive_interval().expect("an option"),
            KEEPALIVE_INTERVAL
        );
        #[cfg(not(target_os = "linux"))]
        assert_eq!(
            socket.tcp_keepalive_retries().expect("an option"),
            KEEPALIVE_PROBES
        );
        #[cfg(target_os = "linux")]
        assert_eq!(
            socket.tcp_user_timeout().expect("an option"),
            Some(USER_TIMEOUT)
        );
    }

    #[tokio::test]
    async fn both_sides_are_probed_and_bounded() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        keep_alive(&listener);
        let address = listener.local_addr().expect("bound");
        let one = [address];
        let budget = Arc::new(Descriptors::new(8));
        let take = || budget.take(None, 1);
        let (dialled, accepted) = tokio::join!(race::connect(&one, take), listener.accept());
        is_set(&dialled.expect("connected").0);
        is_set(&accepted.expect("accepted").0);
        // A race of several addresses sets the same options.
        let dialled = race::connect(&[address, address], take).await;
        is_set(&dialled.expect("connected").0);
    }
}
