//! HTTP/2 with clients ([`client`]) and origins ([`carrier`]): each stream is a separate request or
//! tunnel.
//!
//! The same strict reader reads the head of a stream and a head of HTTP/1 ([`head`]), and
//! [`stream`] converts writes to frames. The library bounds the memory that a client can use:
//! streams, heads, reset streams, windows. [`frames`] bounds the work that a client can cause for
//! free.

mod carrier;
mod client;
mod fragments;
mod frames;
mod head;
mod hpack;
mod huffman;
mod stream;

use h2::Reason;

use crate::metrics::Metrics;

pub(crate) use carrier::{
    Carrier as OriginCarrier, Exchange, RequestHalf, ResponseHalf, is_unprocessed,
};
pub(crate) use client::{Arrival, ClientCarrier};
pub(crate) use head::onward_request;
pub(crate) use stream::{ReadHalf, Stream, WriteHalf};

/// Maximum number of concurrent requests and tunnels of one connection. Another one is refused, and
/// the client may retry.
///
/// All heads of one read wait in memory until they are processed: at most this number of header
/// lists.
const STREAMS: u32 = 128;
/// Bytes that a client may send on one stream, and on all, before the gate has passed them on.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Maximum memory overhead, in bytes, of small DATA frames that wait to be read: 256 a frame, so
/// about 2048 frames. The library accepts 100 empty frames in all.
const SMALL_DATA: usize = 512 * 1024;
/// Bytes of one stream that wait to be sent.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that a client may reset before the gate accepts them (CVE-2023-44487); one more ends the
/// connection.
const RESET_EARLY: usize = 32;
/// Reset streams that the gate remembers, to ignore frames in flight: as many as can be open.
const RESET_KEPT: usize = 128;
/// Streams that a peer may force the gate to reset, with malformed frames or too many streams,
/// during a connection (CVE-2025-8671); one more ends the connection.
const RESET_CAUSED: usize = 256;
/// The end reason of a connection with too many frames without content.
pub(crate) const FLOOD: &str = "flood";

/// Counts a connection that ended because of the peer's frames.
pub(crate) fn note(metrics: &Metrics, side: &'static str, error: &h2::Error) {
    if !error.is_library() {
        return;
    }
    let reason = match error.reason() {
        Some(Reason::PROTOCOL_ERROR) => "protocol_error",
        Some(Reason::FLOW_CONTROL_ERROR) => "flow_control_error",
        Some(Reason::STREAM_CLOSED) => "stream_closed",
        Some(Reason::FRAME_SIZE_ERROR) => "frame_size_error",
        Some(Reason::COMPRESSION_ERROR) => "compression_error",
        Some(Reason::ENHANCE_YOUR_CALM) => "enhance_your_calm",
        _ => return,
    };
    metrics.http2_ended(side, reason);
}
