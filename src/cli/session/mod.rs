//! `tidegate session`: start, end and revoke sessions, make keys, and answer an agent's hooks.

mod block;
mod hook;
mod keygen;
mod start;

use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::config::{self, AdminAddress};

use super::{Answer, admin, print};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Session {
    /// Start a session and print its token.
    Start(Box<start::Start>),
    /// Revoke a session or a token by its id: its open flows end.
    Revoke(Revoke),
    /// End the session of `TIDEGATE_TOKEN`.
    End(End),
    /// Make a pair of keys: FILE signs tokens, FILE.pub verifies them.
    Keygen(keygen::Keygen),
    /// The command for hooks of an agent (Claude Code): it reads the event on standard input.
    Hook(hook::Hook),
}

#[derive(Debug, clap::Args)]
pub(super) struct Revoke {
    /// The id of a session or of a token.
    name: String,
    #[command(flatten)]
    door: Door,
}

#[derive(Debug, clap::Args)]
pub(super) struct End {
    #[command(flatten)]
    door: Door,
}

/// Where a gate is asked: at its control socket, or, in the name of a session, at its admin
/// listener.
#[derive(Debug, clap::Args)]
struct Door {
    /// The control socket: unix:PATH [default: that of a gate without configuration].
    #[arg(long, env = "TIDEGATE_CONTROL", value_name = "ADDRESS")]
    #[arg(value_parser = admin::parse_address)]
    control: Option<AdminAddress>,
    /// The admin listener, for a call with `TIDEGATE_TOKEN` [default: 127.0.0.1:3130].
    #[arg(long, env = "TIDEGATE_ADMIN", value_name = "ADDRESS")]
    #[arg(value_parser = admin::parse_address)]
    admin: Option<AdminAddress>,
    /// The user that the gate runs as, by name or number, beside this user and root: a token goes to
    /// no other user's process at a local port.
    #[arg(long, env = "TIDEGATE_GATE_USER", value_name = "USER")]
    gate_user: Option<String>,
    /// The token of the session that asks.
    #[arg(long, env = "TIDEGATE_TOKEN", hide = true, hide_env_values = true)]
    token: Option<String>,
}

/// The failure of a request to a gate.
struct Failure {
    answer: Answer,
    why: String,
}

impl Session {
    pub(super) fn perform(self) -> Answer {
        match self {
            Self::Start(start) => start.perform(),
            Self::Revoke(revoke) => revoke.perform(),
            Self::End(end) => end.perform(),
            Self::Keygen(keygen) => keygen.perform(),
            Self::Hook(hook) => hook.perform(),
        }
    }
}

impl Revoke {
    fn perform(&self) -> Answer {
        let control = self.door.control();
        let body = json!({ "name": self.name });
        answer(control.and_then(|control| {
            Door::exchange(
                &control,
                None,
                "/v1/sessions/revoke",
                &body,
                admin::PATIENCE,
            )
        }))
    }
}

impl End {
    fn perform(&self) -> Answer {
        if self.door.token.is_none() {
            print::err("tidegate: TIDEGATE_TOKEN says which session ends, and it is not set\n");
            return Answer::Wrong;
        }
        answer(
            self.door
                .post("/v1/sessions/end", &json!({}), admin::PATIENCE),
        )
    }
}

fn answer(result: Result<String, Failure>) -> Answer {
    match result {
        Ok(_) => Answer::Yes,
        Err(failure) => failure.show(),
    }
}

impl Failure {
    fn new(answer: Answer, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { answer, why }
    }

    fn show(&self) -> Answer {
        print::err(&format!("tidegate: {}\n", self.why));
        self.answer
    }
}

impl Door {
    /// Returns the token of the calling session, if there is one.
    fn token(&self) -> Option<&str> {
        self.token.as_deref().filter(|token| !token.is_empty())
    }

    /// Sends the request with the token if there is one, otherwise as the owner of the control
    /// socket.
    fn post(
        &self,
        path: &str,
        body: &impl Serialize,
        patience: Duration,
    ) -> Result<String, Failure> {
        let address = match self.token() {
            Some(_) => self.admin.clone().unwrap_or_else(admin::default_address),
            None => self.control()?,
        };
        let bearer = self.token().map(|token| admin::Bearer {
            token,
            recipient: admin::Recipient::Gate(self.gate_user.as_deref()),
        });
        Self::exchange(&address, bearer, path, body, patience)
    }

    fn control(&self) -> Result<AdminAddress, Failure> {
        let usual = || config::embedded().listen.control;
        let found = self
            .control
            .clone()
            .or_else(|| usual().map(|control| AdminAddress::Unix(control.path)));
        found.ok_or_else(|| {
            let why = "no control socket is known: name it with --control unix:PATH";
            Failure::new(Answer::Wrong, why)
        })
    }

    fn exchange(
        address: &AdminAddress,
        bearer: Option<admin::Bearer<'_>>,
        path: &str,
        body: &impl Serialize,
        patience: Duration,
    ) -> Result<String, Failure> {
        let place = admin::show_address(address);
        let answered = admin::post(address, path, bearer, body, patience);
        let (status, body) = answered.map_err(|error| {
            let why = format!("no gate answers at {place}: {error}");
            Failure::new(Answer::Failed, why)
        })?;
        if (200..300).contains(&status) {
            return Ok(body);
        }
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        let detail = problem.get("detail").and_then(|detail| detail.as_str());
        let detail = print::clean(detail.unwrap_or(body.trim()), 200);
        let kind = match status {
            400..500 => Answer::Wrong,
            _ => Answer::Failed,
        };
        Err(Failure::new(
            kind,
            format!("{place} answered {status}: {detail}"),
        ))
    }
}
