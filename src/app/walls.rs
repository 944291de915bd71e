//! Checks the walls of a jail while its command runs.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::gate::Gate;
use crate::jail::{Fallen, WallState, Watch};
use crate::record::{Event, SessionFacts};

use super::{Running, banner};

/// The interval between two checks.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// The time limit of one check. If a command slows the check down beyond this limit, the gate ends
/// its flows.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);

impl Running {
    /// Checks the walls of the jail round this command until it ends. If a wall has fallen, the
    /// gate ends every flow and accepts no other; record and standard error name the wall.
    /// `session` is the session of the jail.
    pub fn watch_jail(&self, command: u32, session: SessionFacts) -> io::Result<()> {
        let Some(watch) = Watch::of(command)? else {
            return Ok(());
        };
        let attend = attend(
            self.gate.clone(),
            Arc::new(watch),
            session,
            self.quiet.clone(),
        );
        self.gate.attendants.spawn(attend);
        Ok(())
    }
}

async fn attend(
    gate: Arc<Gate>,
    watch: Arc<Watch>,
    session: SessionFacts,
    quiet: CancellationToken,
) {
    let mut tick = tokio::time::interval(LOOK_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = quiet.cancelled() => return,
        }
        match look(watch.clone()).await {
            WallState::Stand => {}
            WallState::Ended => return,
            WallState::Fell(fallen) => return end_flows(&gate, session, &fallen),
        }
    }
}

async fn look(watch: Arc<Watch>) -> WallState {
    let looked = tokio::task::spawn_blocking(move || watch.look());
    let fallen = |what: &str| {
        WallState::Fell(Fallen {
            promise: "processes",
            what: what.to_owned(),
        })
    };
    match tokio::time::timeout(LOOK_TIMEOUT, looked).await {
        Ok(Ok(walls)) => walls,
        Ok(Err(_)) => fallen("the check itself failed"),
        Err(_) => fallen("the check took longer than 30 s"),
    }
}

fn end_flows(gate: &Gate, mut session: SessionFacts, fallen: &Fallen) {
    session.detail = Some(fallen.to_string().into());
    gate.recorder
        .event(&Event::ContainmentLost(Box::new(session)));
    gate.draining.cancel();
    gate.tasks.close();
    gate.flows.end_all();
    banner::say(&format!(
        "tidegate: the jail no longer holds: {fallen}. Its flows are ended, and no new ones are \
         taken: end the command and start it again\n"
    ));
}
