//! What bodies say (a sketch).

use crate::name::Path;
use crate::policy::{Deed, Seen};

/// The fields of a head that say how its body is to be read. The values are as they came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields<'a> {
    /// `Content-Type`.
    pub content_type: Option<&'a [u8]>,
    /// `Content-Encoding`, several lines joined by commas.
    pub content_encoding: Option<&'a [u8]>,
    /// `Accept`.
    pub accept: Option<&'a [u8]>,
    /// `Mcp-Method`.
    pub mcp_method: Option<&'a [u8]>,
    /// `Mcp-Name`.
    pub mcp_name: Option<&'a [u8]>,
    /// `MCP-Protocol-Version`.
    pub mcp_protocol_version: Option<&'a [u8]>,
    /// Whether there is an `Mcp-Session-Id`.
    pub mcp_session: bool,
}

/// How far a body was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Progress {
    /// More bytes are needed.
    More,
    /// All that there is to judge: one deed for each thing that it does, at least one.
    Done(Vec<Deed>),
    /// It cannot be what it says: it is refused (400) with this sentence.
    Malformed(&'static str),
}

/// Reads what a body does.
pub fn read(head: &Deed, _: &Fields<'_>, _: &str, _: &Path, _: &[u8], _: bool) -> Progress {
    Progress::Done(vec![whole(head)])
}

/// What is judged where a body is longer than what is read of it.
pub fn too_long(head: &Deed) -> Progress {
    Progress::Done(vec![whole(head)])
}

/// Whether a request may belong to the Model Context Protocol, whatever its host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Suspicion {
    /// It does not look like it.
    No,
    /// It has headers of the protocol.
    Headers,
    /// Its body has to be looked into.
    Body,
}

/// Whether a request looks like the Model Context Protocol, from its head.
pub fn looks_like_mcp(_: &str, _: &Fields<'_>) -> Suspicion {
    Suspicion::No
}

fn whole(head: &Deed) -> Deed {
    Deed {
        seen: Seen::Whole,
        body: None,
        ..head.clone()
    }
}

/// MCP.
pub mod mcp {
    /// Whether a body is a message.
    pub fn is_message(_: &[u8]) -> bool {
        false
    }
}

/// Requests to models.
pub mod model {
    /// What one says.
    #[derive(Clone, Debug, Default)]
    pub struct Said {
        /// Tools.
        pub server_tools: Vec<Box<str>>,
        /// Servers.
        pub mcp_servers: Vec<Box<str>>,
        /// Session.
        pub session: Option<Box<str>>,
    }

    /// What a request says.
    pub fn said(_: &[u8]) -> Option<Said> {
        None
    }
}
