//! `tidegate health`: for containers that contain no other program.

use serde_json::json;

use crate::config::AdminAddress;

use super::{Answer, admin, print};

#[derive(Debug, clap::Args)]
pub(super) struct Health {
    /// The admin listener: ADDRESS:PORT or unix:PATH [default: 127.0.0.1:3130].
    #[arg(long, value_name = "ADDRESS", value_parser = admin::parse_address)]
    admin: Option<AdminAddress>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Health {
    /// Returns `Yes` if the gate reports that it is ready; a gate that does not answer is not
    /// ready.
    pub(super) fn perform(self) -> Answer {
        let address = self.admin.unwrap_or_else(admin::default_address);
        let place = admin::show_address(&address);
        let (ready, detail) = match admin::ask(&address, "/readyz") {
            Ok((200, _)) => (true, "ready".to_owned()),
            Ok((status, body)) => (
                false,
                format!("{status} {}", print::clean(body.trim(), 200)),
            ),
            Err(error) => (false, error.to_string()),
        };
        match (self.json, ready) {
            (true, _) => print::json(&json!({"admin": place, "ready": ready, "detail": detail})),
            (false, true) => print::out("ready\n"),
            (false, false) => print::err(&format!("tidegate: not ready: {place}: {detail}\n")),
        }
        Answer::whether(ready)
    }
}
