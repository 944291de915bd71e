//! `tidegate approve watch`: asks a reviewer at a terminal about each new request.

use std::collections::HashSet;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use rustix::termios::{QueueSelector, tcflush};
use serde_json::Value;

use super::{Answer, At, Failure, Note, print, text, whole};

/// The interval at which the command asks the gate for new requests.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The note at the start. A process with access to the terminal can type the answer.
const NOTE: &str = "tidegate: waiting for requests; end with Ctrl-C\n  \
    answer at a terminal that no agent can reach: one of another user, or with the agent in a jail \
    (`tidegate help approvals`)\n";

/// Ask here about each request that waits.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Watch {
    /// What `y` allows: `once`, `session`, or a time such as 1h [default: `session`, or `once` for
    /// a caller without a session].
    #[arg(long = "for", value_name = "SCOPE")]
    scope: Option<String>,
    #[command(flatten)]
    at: At,
}

/// The answer of the reviewer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reply {
    Allow,
    Deny,
    /// The request stays open, and is not asked about again.
    Leave,
    /// The terminal is closed.
    End,
}

impl Watch {
    pub(super) fn perform(&self) -> Result<(), Failure> {
        if !io::stdin().is_terminal() {
            let why = "the answers come from a terminal, and the standard input is none: settle \
                       requests with `tidegate approve allow` and `deny`";
            return Err(Failure(Answer::Wrong, why.to_owned()));
        }
        let mut waiting = self.waiting()?;
        print::err(NOTE);
        let mut left = HashSet::new();
        let mut is_lost = false;
        loop {
            for request in &waiting {
                let id = text(request, &["id"]).to_owned();
                if left.contains(&id) {
                    continue;
                }
                match self.ask(request) {
                    Reply::Allow => self.settle(request, "allow", Some(self.scope(request))),
                    Reply::Deny => self.settle(request, "deny", None),
                    Reply::Leave => print::out("it stays open\n"),
                    Reply::End => return Ok(()),
                }
                left.insert(id);
            }
            std::thread::sleep(POLL_INTERVAL);
            waiting = match self.waiting() {
                Ok(waiting) => {
                    is_lost = false;
                    waiting
                }
                Err(Failure(_, why)) => {
                    if !is_lost {
                        print::err(&format!("tidegate: {why}\n"));
                    }
                    is_lost = true;
                    Vec::new()
                }
            };
        }
    }

    fn waiting(&self) -> Result<Vec<Value>, Failure> {
        let mut all = self.at.requests()?;
        all.retain(|request| text(request, &["state"]) == "pending");
        Ok(all)
    }

    fn scope<'a>(&'a self, request: &Value) -> &'a str {
        let has_session = text(request, &["caller", "bound_by"]) == "session";
        let default = if has_session { "session" } else { "once" };
        self.scope.as_deref().unwrap_or(default)
    }

    /// Shows a request, then asks. Keys typed before the question are discarded.
    fn ask(&self, request: &Value) -> Reply {
        print::out(&format!("\n{}", whole(request)));
        let scope = self.scope(request);
        let _ = tcflush(io::stdin(), QueueSelector::IFlush);
        print::out(&format!(
            "allow ({scope})? y: allow, d: deny, else it stays open [N] "
        ));
        let mut line = String::new();
        match io::stdin().read_line(&mut line) {
            Ok(0) | Err(_) => Reply::End,
            Ok(_) => Reply::of(&line),
        }
    }

    /// Settles a request, and prints the result.
    fn settle(&self, request: &Value, verb: &str, scope: Option<&str>) {
        let (id, note) = (text(request, &["id"]), Note { note: None });
        if let Err(Failure(_, why)) = self.at.settle(id, verb, &note, scope) {
            print::err(&format!("tidegate: {why}\n"));
        }
    }
}

impl Reply {
    fn of(line: &str) -> Self {
        match line.trim() {
            "y" | "yes" => Self::Allow,
            "d" | "deny" => Self::Deny,
            _ => Self::Leave,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_word_allows_or_denies() {
        assert_eq!(Reply::of("y\n"), Reply::Allow);
        assert_eq!(Reply::of(" deny\n"), Reply::Deny);
        for line in ["", "\n", "n\n", "Y?\n", "yy\n", "\u{1b}[24;80Ry\n"] {
            assert_eq!(Reply::of(line), Reply::Leave, "{line:?}");
        }
    }
}
