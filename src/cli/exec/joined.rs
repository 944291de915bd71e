//! `exec --join`: runs a command behind a running gate. That gate keeps the records, so this
//! program starts the session and then executes the command in its own place.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::config::AdminAddress;
use crate::gate::SessionRequest;

use super::super::env::{self, Proxy};
use super::super::{admin, print};
use super::{child, joined_trust};

/// The gate's response to the start of a session.
#[derive(Deserialize)]
struct Started {
    session: String,
    token: String,
    tier: String,
    trust: String,
}

/// A running gate.
pub(super) struct Gate<'a> {
    /// The address of the proxy for clients.
    pub(super) proxy: &'a Proxy,
    /// The control socket, which starts sessions.
    pub(super) control: &'a AdminAddress,
    /// The admin listener, which receives the reports of hooks.
    pub(super) admin: &'a AdminAddress,
}

impl Gate<'_> {
    /// Executes the command, whose words depend on its variables; returns the exit code if it could
    /// not be started.
    pub(super) fn run(
        &self,
        request: &SessionRequest,
        words: impl FnOnce(&[(&'static str, String)]) -> Vec<OsString>,
    ) -> anyhow::Result<u8> {
        let started = start(self.control, request)?;
        let mut set = self.variables(&started, request);
        env::add(&mut set, joined_trust::variables(self.control)?);
        let words = words(&set);
        print::err(&format!(
            "tidegate: joined the gate at {}: session {}, tier {} ({})\n",
            print::clean(&self.proxy.with_credentials(None).url(), 64),
            print::clean(&started.session, 64),
            print::clean(&started.tier, 64),
            print::clean(&started.trust, 16),
        ));
        let Some((program, rest)) = words.split_first() else {
            bail!("no command");
        };
        let mut command = Command::new(program);
        let set = child::over_those_of_the_user(&set);
        let error = command.args(rest).envs(set).exec();
        Ok(child::not_begun(&words, &error))
    }

    fn variables(
        &self,
        started: &Started,
        request: &SessionRequest,
    ) -> Vec<(&'static str, String)> {
        let Started { session, token, .. } = started;
        let channel = request.channel.as_deref().unwrap_or("bash");
        let credentials = format!("{session}.{channel}:{token}");
        let mut set = self.proxy.with_credentials(Some(credentials)).variables();
        set.extend([
            ("TIDEGATE_PROXY", self.proxy.with_credentials(None).url()),
            ("TIDEGATE_ADMIN", admin::show_address(self.admin)),
            ("TIDEGATE_SESSION", session.clone()),
            ("TIDEGATE_TOKEN", token.clone()),
        ]);
        set
    }
}

fn start(control: &AdminAddress, request: &SessionRequest) -> anyhow::Result<Started> {
    let place = admin::show_address(control);
    let asked = admin::post(control, "/v1/sessions", None, request, admin::PATIENCE);
    let (status, body) = asked.with_context(|| format!("no gate answers at {place}"))?;
    if status != 201 {
        bail!(
            "the gate at {place} starts no session: {}",
            print::clean(body.trim(), 200)
        );
    }
    serde_json::from_str(&body).with_context(|| format!("the server at {place} is not a gate"))
}
