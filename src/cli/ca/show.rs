//! `tidegate ca show`.

use serde_json::json;

use super::super::{Answer, print};
use super::{Done, Which, as_json, lines, now};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Show {
    #[command(flatten)]
    which: Which,
}

impl Show {
    pub(super) fn perform(&self) -> Done {
        let known = self.which.known()?;
        let current = known.current()?;
        let former = known.former(&current, now());
        let missing = current.constraints.missing(&known.names);
        let expired = current.not_after <= now();
        if self.which.json {
            print::json(&json!({
                "certificate": known.cert,
                "authority": as_json(&current),
                "expired": expired,
                "previous": former.iter().map(as_json).collect::<Vec<_>>(),
                "missing": missing,
            }));
        } else {
            print::out(&lines(&known.cert.display().to_string(), &current));
            for former in &former {
                print::out(&lines("still published", former));
            }
        }
        if !missing.is_empty() {
            print::err(&format!(
                "tidegate: the policy inspects what it cannot sign for: {}\n",
                print::clean(&missing.join(", "), 2_000)
            ));
        }
        if expired {
            print::err("tidegate: it has expired\n");
        }
        let good = missing.is_empty() && !expired;
        if !good {
            print::err("tidegate: run `tidegate ca rotate`\n");
        }
        Ok(Answer::whether(good))
    }
}
