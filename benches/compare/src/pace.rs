//! New tunnels at a steady pace, each with its time: whether something else delays them.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::figures::Mode;
use crate::load::Client;

/// How many ask, each so often: 500 tunnels in a second.
const CLIENTS: u32 = 10;
const PACE: Duration = Duration::from_millis(20);

/// All that was asked.
#[derive(Default, Deserialize, Serialize)]
pub struct Paced {
    pub flows: Vec<Flow>,
    /// What was wrong with flows that failed.
    pub failed: Vec<String>,
}

/// A flow that was answered, in microseconds.
#[derive(Clone, Copy, Deserialize, Serialize)]
pub struct Flow {
    /// When it was due, since 1970.
    pub due: u64,
    /// From then until it was answered: a client that is late because of the flow before is part of the delay.
    pub took: u64,
}

/// Asks until a line of input comes, then prints a [`Paced`].
pub async fn run(proxy: SocketAddr, authority: String) -> Result<()> {
    let (end, mut ended) = tokio::sync::watch::channel(false);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_line(&mut String::new());
        end.send(true)
    });
    let paced = Rc::new(RefCell::new(Paced::default()));
    let mut asking = tokio::task::JoinSet::new();
    for at in 0..CLIENTS {
        let (paced, ended, authority) = (paced.clone(), ended.clone(), authority.clone());
        let begin = tokio::time::Instant::now() + PACE * at / CLIENTS;
        asking.spawn_local(async move {
            let mut tick = tokio::time::interval_at(begin, PACE);
            while !*ended.borrow() {
                let due = tick.tick().await;
                let mut client = Client::new(Mode::Connect, proxy).to(authority.clone());
                let asked = client.ask_in_time().await;
                let took = due.elapsed();
                let mut paced = paced.borrow_mut();
                match asked {
                    Ok(()) => paced.flows.push(Flow {
                        due: (now() - took).as_micros() as u64,
                        took: took.as_micros() as u64,
                    }),
                    Err(error) => paced.failed.push(format!("{error:#}")),
                }
            }
        });
    }
    println!("begun");
    ended.wait_for(|it| *it).await?;
    while let Some(asked) = asking.join_next().await {
        asked.context("a client failed")?;
    }
    println!("{}", serde_json::to_string(&*paced.borrow())?);
    Ok(())
}

/// Since 1970.
pub fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
