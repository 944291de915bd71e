//! HTTP/2 with clients ([`client`]) and origins ([`carrier`]): each stream is a request or a tunnel
//! of its own.
//!
//! The head of a stream is read by the same strict reader as a head of HTTP/1 ([`head`]), and what
//! is written to a stream is turned into frames at the edge ([`stream`]). The library bounds what a client can make us keep: streams, heads, streams that
//! were reset, windows. What it can make us do for nothing is bounded in [`frames`].

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

/// Requests and tunnels of one connection at once. One more is refused, and may be tried again.
///
/// Every head that came in one read waits in memory until it is looked at: this many times the
/// header list at most.
const STREAMS: u32 = 128;
/// Bytes that a client may send on one stream, and on all, before we have passed them on.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes that small DATA frames may cost us beyond what is in them while they wait to be read: 256 a
/// frame, so about 2048 frames. Of empty ones the library takes 100 in all.
const SMALL_DATA: usize = 512 * 1024;
/// Bytes of one stream that wait to be sent.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that a client may reset before we looked at them (CVE-2023-44487); one more ends the
/// connection.
const RESET_EARLY: usize = 32;
/// Streams that we reset and still remember, so that what was on its way is passed over: all that
/// can be open.
const RESET_KEPT: usize = 128;
/// Streams that a peer may make us reset with frames that are wrong, or by opening more than it may,
/// while a connection lasts (CVE-2025-8671); one more ends it.
const RESET_CAUSED: usize = 256;
/// Why a connection ended that sent too many frames that carry nothing.
pub(crate) const FLOOD: &str = "flood";

/// Counts a connection that was ended for what the other side sent.
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
