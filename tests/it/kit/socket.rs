//! WebSocket (RFC 6455) as far as a test needs it: the handshake, and frames with text.

use std::io;

use base64::Engine as _;

use super::{Client, Message, Visit};

/// The fields with which a client asks for a WebSocket.
pub(crate) const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Takes a WebSocket and gives each text back until the client closes.
pub(crate) fn echo(visit: &mut Visit, request: &Message) -> io::Result<()> {
    let key = request.field("sec-websocket-key").unwrap_or_default();
    let accept = accept(key);
    visit.say(format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ))?;
    loop {
        let (kind, text) = frame(|count| visit.exactly(count))?;
        visit.note(&text);
        visit.say(framed(kind, &text, false))?;
        if kind == CLOSE {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
    }
}

/// Takes one whole frame of a client off what came; the one that answers it, which gives the text
/// back, and whether it is the last.
pub(crate) fn reply(came: &mut Vec<u8>) -> Option<(Vec<u8>, bool)> {
    let mut read = 0;
    let (kind, text) = frame(|count| {
        let part = came.get(read..read + count);
        read += count;
        part.map(<[u8]>::to_vec)
            .ok_or(io::ErrorKind::UnexpectedEof.into())
    })
    .ok()?;
    came.drain(..read);
    Some((framed(kind, &text, false), kind == CLOSE))
}

/// Sends a text as a client does, and reads the one that comes back.
#[track_caller]
pub(crate) fn say(client: &mut Client, text: &str) -> String {
    client.send(framed(TEXT, text.as_bytes(), true));
    let (kind, text) = frame(|count| Ok(client.exactly(count))).expect("a frame");
    assert_eq!(kind, TEXT);
    String::from_utf8(text).expect("text")
}

const TEXT: u8 = 1;
const CLOSE: u8 = 8;

/// What answers to a key (section 4.2.2).
fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let sum = &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY;
    let sum = aws_lc_rs::digest::digest(sum, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(sum)
}

/// One whole frame shorter than 126 bytes.
fn framed(kind: u8, text: &[u8], masked: bool) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("a short text");
    assert!(length < 126, "a short text");
    let mut all = vec![0x80 | kind, length | if masked { 0x80 } else { 0 }];
    if masked {
        // A mask of zeroes leaves the text as it is.
        all.extend([0; 4]);
    }
    all.extend(text);
    all
}

fn frame(mut exactly: impl FnMut(usize) -> io::Result<Vec<u8>>) -> io::Result<(u8, Vec<u8>)> {
    let head = exactly(2)?;
    let (kind, masked) = (head[0] & 0x0f, head[1] & 0x80 != 0);
    let mask = if masked { exactly(4)? } else { vec![0; 4] };
    let text = exactly(usize::from(head[1] & 0x7f))?;
    let clear = text.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b);
    Ok((kind, clear.collect()))
}
