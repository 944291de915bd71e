//! The scenario kit: origins, clients, a certificate authority, a name server, faults of the
//! network and the proxy itself, each one line to start.
//!
//! Everything is blocking and has a deadline; a test reads like the story it tells.

mod by_hand;
mod chain;
mod client;
mod control;
mod dns;
mod eventually;
mod executable;
mod faults;
mod frames;
mod gate;
mod hello;
mod inside;
mod message;
mod metrics;
mod origin;
mod origin2;
mod pki;
mod policy;
#[expect(dead_code, reason = "tests of the store use the rest")]
pub(crate) mod postgres;
mod program;
mod records;
mod registry;
mod replayed;
mod service;
pub(crate) mod socket;
mod squid;
mod web;
mod wire;

pub(crate) use chain::log_files;
pub(crate) use client::Client;
pub(crate) use control::Session;
pub(crate) use dns::Dns;
pub(crate) use eventually::{DEADLINE, eventually, until};
pub(crate) use executable::{copy_program, script};
pub(crate) use faults::{Fault, Faults};
pub(crate) use frames::{Ended, Frame, Http2, fields, flag, kind};
pub(crate) use gate::{Gate, command as tidegate};
pub(crate) use hello::Hello;
pub(crate) use inside::{CREDENTIAL_KEY, Inside, inspected};
pub(crate) use message::{Message, Reader};
pub(crate) use metrics::Metrics;
pub(crate) use origin::{Origin, Visit};
pub(crate) use origin2::Origin2;
pub(crate) use pki::{Pki, RevocationList};
pub(crate) use policy::{TIERS, allow, allow_more, loopback, names};
pub(crate) use program::{Outcome, Program, need};
pub(crate) use records::{Line, Lines, read as read_log};
pub(crate) use registry::{
    cargo, cargo_registry, github, npm_package, npm_registry, npm_registry_of, oci_image,
    oci_registry, pypi_registry, pypi_registry_of, wheel,
};
pub(crate) use replayed::difference;
pub(crate) use service::Service;
pub(crate) use squid::Squid;
pub(crate) use web::{Site, git_backend};
pub(crate) use wire::Wire;
