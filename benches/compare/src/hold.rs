//! Tunnels that rest.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;

use crate::figures::Mode;
use crate::load::{Balanced, Client};
use crate::origin;

/// How many callers the tunnels are of: one may not have all descriptors of a gate.
const CALLERS: usize = 20;
/// Where the tunnels come from, as a balancer does, which names the caller (the PROXY protocol).
const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// The first port that tunnels come from. The kernel gives no such ports to connections that name none: these
/// do not make its search longer.
const FIRST_PORT: u16 = 20_000;

/// Opens `tunnels`, sends one request in each, says `held`, and closes them when its input ends.
pub async fn hold(proxy: SocketAddr, tunnels: usize) -> Result<()> {
    let mut held = Vec::new();
    while held.len() < tunnels {
        let caller = Ipv4Addr::new(192, 0, 2, (held.len() % CALLERS) as u8 + 1);
        let from = Balanced {
            from: (BALANCER, FIRST_PORT + held.len() as u16).into(),
            header: format!(
                "PROXY TCP4 {caller} {} 40000 {}\r\n",
                proxy.ip(),
                proxy.port()
            ),
        };
        let mut client = Client::new(Mode::Tunnel, proxy)
            .through(from)
            .to(origin::RESTING.to_string());
        client.ask_in_time().await?;
        held.push(client);
    }
    println!("held");
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}
