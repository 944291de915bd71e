//! Measures HTTP forward proxies side by side on one machine, over loopback. README.md says how to read it.

mod callgrind;
mod certificates;
mod client;
mod cost;
mod counting;
mod counts;
mod cpu;
mod draw;
mod figures;
mod hold;
mod load;
mod origin;
mod pace;
mod peer;
mod program;
mod relay;
mod scale;
mod suite;
mod table;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Measures HTTP forward proxies side by side, over loopback")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure the peers in turn; write the figures, a table and a picture
    Run(suite::Options),
    /// Count the instructions of one operation of tidegate, and compare them with those of before
    Cost(cost::Options),
    /// Measure what many hosts, many tunnels, a reload and several workers change for tidegate
    Scale(scale::Options),
    /// Draw the table and the picture of figures that were measured before
    Draw { figures: PathBuf },
    /// The server that requests are for
    #[command(hide = true)]
    Origin { certificates: PathBuf },
    /// The client: prints its figures as JSON
    #[command(hide = true)]
    Load(load::Options),
    /// Opens tunnels, which rest until its input ends
    #[command(hide = true)]
    Hold { proxy: SocketAddr, tunnels: usize },
    /// Asks for new tunnels at a steady pace until its input ends
    #[command(hide = true)]
    Pace {
        proxy: SocketAddr,
        authority: String,
    },
    /// A proxy without policy, log or deadlines: what a proxy can be compared to
    #[command(hide = true)]
    Relay {
        port: u16,
        /// Ends TLS on both sides, with these certificates
        #[arg(long)]
        tls: Option<PathBuf>,
    },
    /// Keeps a processor from resting
    #[command(hide = true)]
    Spin,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Run(options) => suite::run(&options),
        Command::Cost(options) => cost::run(&options),
        Command::Scale(options) => scale::run(&options),
        Command::Hold { proxy, tunnels } => block_on(hold::hold(proxy, tunnels)),
        Command::Pace { proxy, authority } => block_on(pace::run(proxy, authority)),
        Command::Draw { figures } => suite::draw(&figures),
        Command::Origin { certificates } => block_on(origin::serve(&certificates)),
        Command::Load(options) => block_on(load::run(options)),
        Command::Relay { port, tls: None } => relay::serve(port),
        Command::Relay {
            port,
            tls: Some(certificates),
        } => block_on(tls::relay(port, &certificates)),
        Command::Spin => loop {
            std::hint::spin_loop();
        },
    }
}

fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}
