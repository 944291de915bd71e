//! The answer of a parent to a CONNECT: the head is read strictly, and no byte after it.

use std::io;

use tokio::io::AsyncReadExt;

use super::super::Stream;
use super::ParentError;

/// Bytes and fields of a head, at most.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_FIELDS: usize = 128;
/// Interim answers, at most: more than a normal parent sends.
const MAX_INTERIM_RESPONSES: usize = 8;
/// The longest reason word taken from an answer.
const WORD: usize = 40;

/// The answer of a parent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Answer {
    /// Its status.
    pub(super) status: u16,
    /// The reason, in one word, if the answer contains one.
    pub(super) word: Option<Box<str>>,
}

impl Answer {
    /// Whether the tunnel is open.
    pub(super) fn is_open(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Reads the answer. The bytes after the head of an opened tunnel belong to the tunnel, even if the
/// head has a length (RFC 9110 section 9.3.6), and stay in the stream.
pub(super) async fn read(stream: &mut Stream) -> Result<Answer, ParentError> {
    for _ in 0..MAX_INTERIM_RESPONSES {
        let answer = parse(&read_head(stream).await?)?;
        match answer.status {
            101 => return Err(ParentError::Garbled("it speaks another protocol")),
            100..200 => {}
            _ => return Ok(answer),
        }
    }
    Err(ParentError::Garbled("it sends more than 8 interim answers"))
}

/// Reads up to the empty line.
async fn read_head(stream: &mut Stream) -> Result<Vec<u8>, ParentError> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let seen = look(stream, &mut piece)
            .await
            .map_err(|error| ParentError::broke(&error))?;
        let seen = piece.get(..seen).unwrap_or_default();
        if seen.is_empty() {
            return Err(ParentError::Garbled("it closed before it answered"));
        }
        let before = head.len();
        let ended = take_over(seen, &mut head)?;
        let taken = head.len() - before;
        forget(stream, taken)
            .await
            .map_err(|error| ParentError::broke(&error))?;
        if ended {
            return Ok(head);
        }
    }
}

/// Adds bytes up to the end of the head; returns whether the head is complete.
fn take_over(seen: &[u8], head: &mut Vec<u8>) -> Result<bool, ParentError> {
    const BEGINNING: &[u8] = b"HTTP/1.";
    for byte in seen {
        if *byte == b'\n' && head.last() != Some(&b'\r') {
            return Err(ParentError::Garbled(
                "a line of its answer ends in a bare LF",
            ));
        }
        head.push(*byte);
        let begun = head.len().min(BEGINNING.len());
        if head.len() <= BEGINNING.len() && head.get(..begun) != BEGINNING.get(..begun) {
            return Err(ParentError::Garbled("it does not answer in HTTP/1"));
        }
        if head.ends_with(b"\r\n\r\n") {
            return Ok(true);
        }
        if head.len() >= MAX_HEAD_BYTES {
            return Err(ParentError::Garbled("the head of its answer is too long"));
        }
    }
    Ok(false)
}

/// Reads available bytes without removing them from a socket. From TLS one byte is removed: reading
/// decrypted bytes costs no system call.
async fn look(stream: &mut Stream, piece: &mut [u8]) -> io::Result<usize> {
    match stream {
        Stream::Tcp(socket) => socket.peek(piece).await,
        other => other.read(piece.get_mut(..1).unwrap_or_default()).await,
    }
}

/// Removes bytes that [`look`] returned.
async fn forget(stream: &mut Stream, mut count: usize) -> io::Result<()> {
    let Stream::Tcp(socket) = stream else {
        return Ok(());
    };
    let mut piece = [0; 1024];
    while count > 0 {
        let most = count.min(piece.len());
        let taken = socket
            .read(piece.get_mut(..most).unwrap_or_default())
            .await?;
        if taken == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        count -= taken;
    }
    Ok(())
}

fn parse(head: &[u8]) -> Result<Answer, ParentError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    let status = match parsed.parse(head) {
        Ok(httparse::Status::Complete(_)) => parsed.code,
        _ => None,
    };
    let status = status.filter(|status| (100..600).contains(status));
    let status = status.ok_or(ParentError::Garbled(
        "the head of its answer is not well-formed",
    ))?;
    Ok(Answer {
        status,
        word: word(parsed.headers),
    })
}

/// The reason of a refusal, in one word: another gate's code, or the word of RFC 9209 or Squid.
fn word(fields: &[httparse::Header<'_>]) -> Option<Box<str>> {
    let value = |name: &str| {
        let found = fields
            .iter()
            .find(|it| it.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok()
    };
    let status = value("proxy-status");
    let parameter = |name: &str| {
        let mut parts = status?.split(';').map(str::trim);
        parts.find_map(|part| part.strip_prefix(name))
    };
    let said = parameter("details=")
        .or_else(|| parameter("error="))
        .or_else(|| value("x-deny-reason"))
        .or_else(|| value("x-squid-error"))?;
    let letters = said.trim_matches('"').chars();
    let word: String = letters
        .take_while(|letter| letter.is_ascii_alphanumeric() || "_-".contains(*letter))
        .take(WORD)
        .collect();
    (!word.is_empty()).then(|| word.to_lowercase().into())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// The result of reading these pieces, and the bytes left in the stream.
    async fn after(pieces: &[&[u8]]) -> (Result<Answer, String>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let talk = async {
            let (mut far, _) = listener.accept().await.unwrap();
            for piece in pieces {
                far.write_all(piece).await.unwrap();
                far.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let listen = async {
            let budget = std::sync::Arc::new(crate::dial::Descriptors::new(1));
            let addresses = [address];
            let connecting = crate::dial::race::connect(&addresses, || budget.take(None, 1));
            let (near, _) = connecting.await.unwrap();
            let mut near = Stream::Tcp(near);
            let answer = read(&mut near).await.map_err(|error| error.to_string());
            let mut rest = Vec::new();
            let _ = near.read_to_end(&mut rest).await;
            (answer, rest)
        };
        tokio::join!(talk, listen).1
    }

    #[tokio::test]
    async fn not_one_byte_behind_the_head_is_taken() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        let whole = [head.as_slice(), b"tunnel"].concat();
        let (answer, rest) = after(&[&whole]).await;
        assert!(answer.unwrap().is_open());
        assert_eq!(rest, b"tunnel");
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        let (answer, rest) = after(&bytes).await;
        assert!(answer.unwrap().is_open());
        assert_eq!(rest, b"tunnel");
        let interim = [b"HTTP/1.1 100 Continue\r\n\r\n", whole.as_slice()].concat();
        assert_eq!(after(&[&interim]).await.1, b"tunnel");
        let long = format!("HTTP/1.0 200\r\nA: {}\r\n\r\nx", "a".repeat(5000));
        assert_eq!(after(&[long.as_bytes()]).await.1, b"x");
    }

    #[tokio::test]
    async fn what_is_no_answer_is_none() {
        let long = format!(
            "HTTP/1.1 200 OK\r\nA: {}\r\n\r\n",
            "a".repeat(MAX_HEAD_BYTES)
        );
        let many = format!(
            "HTTP/1.1 200 OK\r\n{}\r\n",
            "A: b\r\n".repeat(MAX_FIELDS + 1)
        );
        let endless = "HTTP/1.1 100 Continue\r\n\r\n".repeat(MAX_INTERIM_RESPONSES);
        for wrong in [
            "",
            "SSH-2.0-OpenSSH\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\n\n",
            "HTTP/1.1 200 OK\r\nA: b\n\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 999 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
            "HTTP/1.1 101 Switching\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n",
            &long,
            &many,
            &endless,
        ] {
            let (answer, _) = after(&[wrong.as_bytes()]).await;
            assert!(
                answer.is_err(),
                "{:?}",
                wrong.chars().take(60).collect::<String>()
            );
        }
    }

    #[tokio::test]
    async fn a_refusal_says_why_in_a_word_and_no_more() {
        for (fields, expected) in [
            (
                "Proxy-Status: tidegate; error=http_request_denied; details=\"not_allowed\"\r\n",
                Some("not_allowed"),
            ),
            ("proxy-status: a; error=dns_error\r\n", Some("dns_error")),
            (
                "X-Deny-Reason: host_not_allowed\r\n",
                Some("host_not_allowed"),
            ),
            (
                "X-Squid-Error: ERR_ACCESS_DENIED 0\r\n",
                Some("err_access_denied"),
            ),
            ("X-Deny-Reason: <script>\r\n", None),
            ("", None),
        ] {
            let text = format!("HTTP/1.1 403 No\r\n{fields}\r\n");
            let (answer, _) = after(&[text.as_bytes()]).await;
            let answer = answer.unwrap();
            assert_eq!(
                (answer.status, answer.word.as_deref()),
                (403, expected),
                "{fields}"
            );
        }
    }
}
