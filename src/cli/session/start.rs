//! `tidegate session start`: starts a session at a gate, or signs its token with a local key.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::config;
use crate::gate::{SessionRequest, by_hand};
use crate::identity::{BoundClaim, NarrowClaim, Signer, Tokens};
use crate::vcs;

use super::super::env::Proxy;
use super::super::shell::Shell;
use super::super::{Answer, admin, print};
use super::{Door, Failure};

/// Default lifetime of tokens made with a local key: the maximum that gates accept by default.
const DEFAULT_LIFETIME: Duration = Duration::from_hours(12);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Start {
    /// The clone URL of the repository it works on.
    #[arg(long, value_name = "URL", conflicts_with = "repo")]
    repository: Option<String>,
    /// The folder it works in: repository, branch and commit are read from git.
    #[arg(long, value_name = "PATH")]
    repo: Option<PathBuf>,
    /// The branch or tag.
    #[arg(long)]
    r#ref: Option<String>,
    /// The commit.
    #[arg(long)]
    commit: Option<String>,
    /// The user.
    #[arg(long)]
    user: Option<String>,
    /// A group of the user; repeat for more.
    #[arg(long)]
    group: Vec<String>,
    /// Its id, a UUID [default: a new one].
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// The agent, e.g. claude-code.
    #[arg(long)]
    agent: Option<String>,
    /// A tier that the session's tier is never looser than; repeat for more.
    #[arg(long, value_name = "TIER")]
    narrow_tier: Vec<String>,
    /// The only category that the session may use; repeat for more.
    #[arg(long, value_name = "CATEGORY[:ACTION]")]
    within: Vec<String>,
    /// The only network from which its token is valid.
    #[arg(long, value_name = "NET", value_parser = network)]
    bind_address: Option<IpNet>,
    /// The only listener at which its token is valid.
    #[arg(long, value_name = "ADDRESS")]
    bind_listener: Option<SocketAddr>,
    /// The lifetime of its token, e.g. 8h [default: the maximum for tokens].
    #[arg(long = "for", value_name = "DURATION")]
    lasting: Option<SignedDuration>,
    /// Make the token here with this private key, without calling a gate.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The audience of a token that is made here: `identity.session.audience` of its gates.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "tidegate",
        requires = "key"
    )]
    audience: String,
    /// Print a JSON object.
    #[arg(long, conflicts_with = "env")]
    json: bool,
    /// Print the variables for a shell, as in eval "$(tidegate session start --env)".
    #[arg(long)]
    env: bool,
    /// The proxy, as clients reach it: http://HOST:PORT.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3128")]
    #[arg(env = "TIDEGATE_PROXY", value_parser = Proxy::parse_short)]
    proxy: Proxy,
    #[command(flatten)]
    door: Door,
}

/// Returns a folder in the form that is sent to a gate: without symbolic links. `None` if it is not
/// UTF-8.
pub(super) fn plain_folder(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    let text = folder.to_str()?;
    (!text.chars().any(char::is_control)).then(|| text.to_owned())
}

fn network(text: &str) -> Result<IpNet, String> {
    let alone = || text.parse::<std::net::IpAddr>().map(IpNet::from);
    let net = text.parse::<IpNet>().ok().or_else(|| alone().ok());
    net.ok_or_else(|| "write a network or an address, e.g. 10.0.0.0/8".to_owned())
}

impl Start {
    pub(super) fn perform(&self) -> Answer {
        let started = self.session_request().and_then(|request| match &self.key {
            Some(_) => self.by_hand(&request),
            None => self.door.post("/v1/sessions", &request, admin::PATIENCE),
        });
        let started = started.and_then(|text| read(&text));
        match started {
            Ok(started) => self.show(&started),
            Err(failure) => failure.show(),
        }
    }

    fn session_request(&self) -> Result<SessionRequest, Failure> {
        let wrong = |why: &str| Failure::new(Answer::Wrong, why);
        let copy = self.repo.as_deref().map(vcs::working_copy);
        let copy = copy.unwrap_or_default();
        if self.repo.is_some() && copy.repository.is_none() {
            return Err(wrong("--repo: no git repository with a remote is there"));
        }
        let lifetime = match self.lasting {
            Some(lasting) => Some(
                u64::try_from(lasting.as_secs())
                    .ok()
                    .filter(|seconds| *seconds > 0)
                    .ok_or_else(|| wrong("--for: write a duration, e.g. 8h"))?,
            ),
            None => None,
        };
        Ok(SessionRequest {
            session: self.session.clone(),
            agent: self.agent.clone(),
            repository: self.repository.clone().or(copy.repository),
            r#ref: self.r#ref.clone().or(copy.branch),
            commit: self.commit.clone().or(copy.commit),
            user: self.user.clone(),
            groups: self.group.clone(),
            narrow: NarrowClaim {
                tiers: self.narrow_tier.clone(),
                within: (!self.within.is_empty()).then(|| self.within.clone()),
            },
            bound: BoundClaim {
                address: self.bind_address,
                listener: self.bind_listener,
            },
            lifetime,
            folder: self.repo.as_deref().and_then(plain_folder),
            working_copy: self.repo.is_some(),
            ..SessionRequest::default()
        })
    }

    fn by_hand(&self, request: &SessionRequest) -> Result<String, Failure> {
        let wrong = |why: String| Failure::new(Answer::Wrong, why);
        let path = self.key.as_deref().unwrap_or_else(|| "".as_ref());
        let key = config::private_key(path).map_err(wrong)?;
        let signer = Signer::from_pkcs8(key.der());
        let signer = signer.ok_or_else(|| wrong("this key cannot sign".to_owned()))?;
        let lifetime = request
            .lifetime
            .map_or(DEFAULT_LIFETIME, Duration::from_secs);
        let tokens = Tokens::new([], self.audience.as_str().into(), lifetime);
        let claims = by_hand(&tokens, request, Clock::system().now());
        let claims = claims.map_err(|error| wrong(error.to_string()))?;
        let token = signer.mint(&claims);
        let token = token.ok_or_else(|| wrong("this cannot be signed".to_owned()))?;
        let expires = jiff::Timestamp::from_second(claims.exp).unwrap_or(jiff::Timestamp::MAX);
        let started = json!({
            "session": claims.sid,
            "token": token,
            "expires": expires.to_string(),
            "repository": claims.repository,
        });
        Ok(started.to_string())
    }

    fn show(&self, started: &Value) -> Answer {
        let text = |name: &str| {
            started
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let token = text("token");
        if self.json {
            print::json(started);
            return Answer::Yes;
        }
        if !self.env {
            print::out(&format!("{token}\n"));
            print::err(&format!(
                "tidegate: session {} until {}\n",
                print::clean(text("session"), 64),
                print::clean(text("expires"), 64)
            ));
            return Answer::Yes;
        }
        let Some(proxy) = self.proxy.in_session("main", token) else {
            return Failure::new(Answer::Failed, "the gate gave no session token").show();
        };
        let admin = self.door.admin.clone();
        let admin = admin::show_address(&admin.unwrap_or_else(admin::default_address));
        let ours = [
            ("TIDEGATE_SESSION", text("session").to_owned()),
            ("TIDEGATE_TOKEN", token.to_owned()),
            ("TIDEGATE_ADMIN", admin),
            ("TIDEGATE_PROXY", self.proxy.with_credentials(None).url()),
        ];
        let variables = proxy.variables().into_iter().chain(ours);
        let lines = variables.map(|(name, value)| Shell::Bash.export(name, &value) + "\n");
        print::out(&lines.collect::<String>());
        Answer::Yes
    }
}

fn read(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text)
        .map_err(|_| Failure::new(Answer::Failed, "the server that answered is not a gate"))
}
