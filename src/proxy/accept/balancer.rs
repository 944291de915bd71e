//! The PROXY protocol, versions 1 and 2: reads the client address that a balancer sends.
//!
//! The header is read only from balancers in the configuration, and no byte after it: those bytes
//! belong to the client. Any deviation from the format ends the connection.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// The first bytes of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of a header of version 1 with its line end, at most.
const MAX_LINE_BYTES: usize = 107;
/// Bytes after the addresses in a header of version 2, at most.
const MAX_HEADER_BYTES: usize = 2048;

/// Reads a header. Returns the client address; `None` for a check by the balancer itself or an
/// unknown client.
pub(in crate::proxy) async fn read(
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<SocketAddr>> {
    let mut start = [0; 12];
    from.read_exact(&mut start).await?;
    if start == SIGNATURE {
        return version2(from).await;
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\n") {
        if line.len() >= MAX_LINE_BYTES {
            return Err(malformed());
        }
        line.push(from.read_u8().await?);
    }
    version1(&line).ok_or_else(malformed)
}

#[expect(
    clippy::option_option,
    reason = "malformed, and unknown, are not the same"
)]
fn version1(line: &[u8]) -> Option<Option<SocketAddr>> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix("\r\n")?;
    if line.contains('\n') {
        return None;
    }
    let mut words = line.split(' ');
    if words.next() != Some("PROXY") {
        return None;
    }
    let is_v6 = match words.next()? {
        "TCP4" => false,
        "TCP6" => true,
        "UNKNOWN" => return Some(None),
        _ => return None,
    };
    let [source, target, source_port, target_port] = [(); 4].map(|()| words.next());
    let address = |text: Option<&str>| {
        let address: IpAddr = text?.parse().ok()?;
        (address.is_ipv6() == is_v6).then_some(address)
    };
    let (source, _) = (address(source)?, address(target)?);
    let (source_port, _) = (port(source_port?)?, port(target_port?)?);
    let done = words.next().is_none();
    done.then_some(Some(SocketAddr::new(source.to_canonical(), source_port)))
}

/// A port in digits, without leading zeros.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|_| plain)?;
    (text == "0" || !text.starts_with('0')).then_some(port)
}

async fn version2(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let command = from.read_u8().await?;
    let family = from.read_u8().await?;
    let length = usize::from(from.read_u16().await?);
    if length > MAX_HEADER_BYTES {
        return Err(malformed());
    }
    let mut rest = vec![0; length];
    from.read_exact(&mut rest).await?;
    let client = match (command, family) {
        (0x21, 0x11) => addresses::<4>(&rest),
        (0x21, 0x21) => addresses::<16>(&rest),
        // A health check of the balancer itself, an unknown client, or one on a Unix socket.
        (0x20, _) | (0x21, 0x00 | 0x31) => return Ok(None),
        _ => None,
    };
    client.map(Some).ok_or_else(malformed)
}

/// The source of two addresses and two ports; the rest must be well-formed.
fn addresses<const N: usize>(rest: &[u8]) -> Option<SocketAddr>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = rest.split_first_chunk::<N>()?;
    let (_, rest) = rest.split_first_chunk::<N>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let (_, rest) = rest.split_first_chunk::<2>()?;
    let address = IpAddr::from(*source).to_canonical();
    are_whole(rest).then(|| SocketAddr::new(address, u16::from_be_bytes(*port)))
}

/// Whether the bytes are a sequence of type, length and value.
fn are_whole(mut rest: &[u8]) -> bool {
    while let [_, high, low, values @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(after) = values.get(length..) else {
            return false;
        };
        rest = after;
    }
    rest.is_empty()
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no PROXY header")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The result of reading a header, and the bytes left behind it.
    fn said(bytes: &[u8]) -> (io::Result<Option<SocketAddr>>, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let mut from = bytes;
        let said = runtime.block_on(read(&mut from));
        (said, from.to_vec())
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x34, 1, 187];

    #[test]
    fn a_header_is_read_and_not_one_byte_more() {
        let client: SocketAddr = "192.0.2.1:4660".parse().unwrap();
        let (line, left) = said(b"PROXY TCP4 192.0.2.1 10.0.0.1 4660 443\r\nGET /");
        assert_eq!((line.unwrap(), &left[..]), (Some(client), &b"GET /"[..]));
        let (binary, left) = said(&[v2(0x21, 0x11, &V4), b"GET /".to_vec()].concat());
        assert_eq!((binary.unwrap(), &left[..]), (Some(client), &b"GET /"[..]));
        let (six, _) = said(b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n");
        assert_eq!(six.unwrap(), Some("[2001:db8::1]:1".parse().unwrap()));
        let more = [&V4[..], &[4, 0, 2, 0, 0]].concat();
        assert_eq!(said(&v2(0x21, 0x11, &more)).0.unwrap(), Some(client));
    }

    #[test]
    fn a_balancer_may_speak_for_itself() {
        let unix = [0; 216];
        for header in [
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(),
            v2(0x20, 0, &[]),
            v2(0x20, 0x11, &V4),
            v2(0x21, 0, &[]),
            v2(0x21, 0x31, &unix),
        ] {
            assert_eq!(said(&header).0.unwrap(), None, "{header:?}");
        }
    }

    #[test]
    fn what_is_not_exactly_a_header_is_refused() {
        let truncated = [&V4[..], &[4, 0, 9, 0]].concat();
        for header in [
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 4660 443\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 4660\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 +660 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 04660 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 66000 443\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::2 1 2\r\n".to_vec(),
            b"PROXY  TCP4 192.0.2.1 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2 3\r\n".to_vec(),
            [&b"PROXY TCP4 "[..], &[b'1'; 200], b"\r\n"].concat(),
            v2(0x11, 0x11, &V4),
            v2(0x22, 0x11, &V4),
            v2(0x21, 0x12, &V4),
            v2(0x21, 0x11, &V4[..11]),
            v2(0x21, 0x21, &V4),
            v2(0x21, 0x11, &truncated),
            v2(0x21, 0x11, &[0; 4096]),
            v2(0x21, 0x11, &V4)[..20].to_vec(),
        ] {
            assert!(
                said(&header).0.is_err(),
                "{:?}",
                String::from_utf8_lossy(&header)
            );
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>, rest: Vec<u8>, family: u8) {
            let _ = said(&bytes);
            let _ = said(&v2(0x21, family, &rest));
            let _ = said(&[b"PROXY TCP4 ".to_vec(), bytes].concat());
        }
    }
}
