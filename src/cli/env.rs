//! `tidegate env`: the variables that make clients use the proxy.
//!
//! Clients read different variables: curl reads `http_proxy` in lower case only, wget `https_proxy`
//! in lower case only, yarn variables of its own. Node reads none without an option, Java reads none
//! at all, and git sends credentials only after a 407. So every variable is set, to the same value.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::config;
use crate::diag;
use crate::name::{Host, Target, TargetError};

use crate::tls::Bundle;

use super::shell::Shell;
use super::{Answer, ca, load, print};

/// The value that every client reads in the same way: exact names, no networks, no leading dots.
const NO_PROXY: &str = "localhost,127.0.0.1,::1";

#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(super) struct Env {
    /// The shell that reads the output, as in eval "$(tidegate env)".
    #[arg(long, value_enum, default_value = "bash")]
    shell: Shell,
    /// Print lines for `docker run --env-file`.
    #[arg(long, conflicts_with_all = ["github", "json", "shell"])]
    docker: bool,
    /// Print lines to append to `$GITHUB_ENV`.
    #[arg(long, conflicts_with_all = ["json", "shell"])]
    github: bool,
    /// Print a JSON object.
    #[arg(long, conflicts_with = "shell")]
    json: bool,
    /// The proxy, as clients reach it: http://[USER:SECRET@]HOST:PORT.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3128")]
    #[arg(env = "TIDEGATE_PROXY", value_parser = Proxy::parse_short)]
    proxy: Proxy,
    /// The configuration of the gate: if it inspects, the authority to trust is printed as well
    /// [default: `$TIDEGATE_CONFIG`, /etc/tidegate/tidegate.toml,
    /// ~/.config/tidegate/tidegate.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the variables that switch the telemetry of agents off as well.
    #[arg(long)]
    no_telemetry: bool,
    /// Mark flows with the part of an agent that they come from; needs the token of a session.
    #[arg(long, value_parser = ["hook", "lsp", "main", "mcp", "plugin"])]
    channel: Option<String>,
    /// The token of the session.
    #[arg(long, env = "TIDEGATE_TOKEN", hide = true, hide_env_values = true)]
    token: Option<String>,
}

impl Env {
    pub(super) fn perform(mut self) -> Answer {
        if let Some(channel) = &self.channel {
            let token = self.token.as_deref();
            let proxy = token.and_then(|token| self.proxy.in_session(channel, token));
            let Some(proxy) = proxy else {
                print::err(
                    "tidegate: --channel needs TIDEGATE_TOKEN: see `tidegate session start`\n",
                );
                return Answer::Wrong;
            };
            self.proxy = proxy;
        }
        let mut variables = self.proxy.variables();
        match self.trusted() {
            Ok(Some(bundle)) => add(&mut variables, ca::variables(&bundle)),
            Ok(None) => {}
            Err(answer) => return answer,
        }
        if self.no_telemetry {
            variables.extend(no_telemetry());
        }
        if self.json {
            let object = variables
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.into()));
            print::json(&Value::Object(object.collect()));
            return Answer::Yes;
        }
        if self.docker && matches!(&self.proxy.target.host, Host::Address(own) if own.is_loopback())
        {
            print::err(
                "tidegate: in a container, 127.0.0.1 is the container itself: \
                 name the proxy with --proxy http://NAME:3128\n",
            );
        }
        if self.github {
            // The GitHub runner reads commands from both outputs; the other output goes to a file.
            print::err(&self.proxy.github_masks());
        }
        // No value has a line break: the proxy URL is parsed, and this program writes the others.
        let bare = self.docker || self.github;
        let line = |(name, value): (&str, String)| {
            if bare {
                format!("{name}={value}\n")
            } else {
                format!("{}\n", self.shell.export(name, &value))
            }
        };
        print::out(&variables.into_iter().map(line).collect::<String>());
        Answer::Yes
    }
}

impl Env {
    /// Returns the authority that clients have to trust, if the gate inspects. A default
    /// configuration that cannot be read gives only a warning: it may belong to another user's
    /// gate.
    fn trusted(&self) -> Result<Option<Bundle>, Answer> {
        let named = self.config.is_some();
        let Some(path) = load::find(self.config.as_deref(), self.json).path else {
            return Ok(None);
        };
        let (config, findings) = config::load(&path);
        let Some(config) = config else {
            if named {
                print::err(&diag::render(&findings, print::colour()));
                return Err(Answer::Wrong);
            }
            print::err(&format!(
                "tidegate: {} does not load, so the authority to trust is not known; \
                 see http://tidegate.internal/ through the proxy\n",
                path.display()
            ));
            return Ok(None);
        };
        match ca::trusted(&config).transpose() {
            Ok(bundle) => Ok(bundle),
            Err(error) => {
                print::err(&format!("tidegate: {error}\n"));
                if named { Err(Answer::Failed) } else { Ok(None) }
            }
        }
    }
}

/// Returns the variables that disable the agents' own telemetry. Telemetry that a user configures
/// (OTLP) is unchanged.
pub(super) fn no_telemetry() -> impl Iterator<Item = (&'static str, String)> {
    NO_TELEMETRY
        .into_iter()
        .map(|(name, value)| (name, value.to_owned()))
}

/// From the agents' documentation, and tested with real agents.
const NO_TELEMETRY: [(&str, &str); 7] = [
    // Claude Code: statistics, error reports, surveys, and checks for newer versions.
    ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
    ("DISABLE_TELEMETRY", "1"),
    ("DISABLE_ERROR_REPORTING", "1"),
    // Gemini CLI.
    ("GEMINI_TELEMETRY_ENABLED", "false"),
    // aider.
    ("AIDER_ANALYTICS", "false"),
    // opencode: a check for newer versions at each start.
    ("OPENCODE_DISABLE_AUTOUPDATE", "1"),
    // A convention of many programs (consoledonottrack.com).
    ("DO_NOT_TRACK", "1"),
];

/// Adds variables; appends to a list of options.
pub(super) fn add(variables: &mut Vec<(&'static str, String)>, more: Vec<(&'static str, String)>) {
    for (name, value) in more {
        match variables.iter_mut().find(|(known, _)| *known == name) {
            Some((_, before)) => *before = format!("{before} {value}"),
            None => variables.push((name, value)),
        }
    }
}

/// The URL of a proxy, restricted to spellings that every client reads in the same way.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Proxy {
    /// `user:secret`, percent-encoded.
    credentials: Option<String>,
    target: Target,
}

impl Proxy {
    /// Returns the URL with a session token as its secret; `None` if `token` is not a session
    /// token.
    pub(super) fn in_session(&self, channel: &str, token: &str) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Claims {
            sid: String,
        }
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
        // The token is only written into a URL here; the gate verifies it.
        let Claims { sid } = serde_json::from_slice(&claims).ok()?;
        let credentials = format!("{sid}.{channel}:{token}");
        decode(&credentials)?;
        Some(self.with_credentials(Some(credentials)))
    }

    /// Returns the URL with other credentials, percent-encoded.
    pub(super) fn with_credentials(&self, credentials: Option<String>) -> Self {
        Self {
            credentials,
            target: self.target.clone(),
        }
    }

    /// Like [`Self::parse`], but also accepts HOST:PORT without a scheme, as launchers set
    /// `TIDEGATE_PROXY`.
    pub(super) fn parse_short(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return Self::parse(text);
        }
        Self::parse(&format!("http://{text}"))
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let rest = text
            .strip_prefix("http://")
            .ok_or("write http://HOST:PORT")?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, authority) = match rest.rsplit_once('@') {
            Some((credentials, authority)) => (Some(credentials), authority),
            None => (None, rest),
        };
        if credentials.is_some_and(|text| decode(text).is_none()) {
            return Err(
                "percent-encode all but letters, digits and -._~ in the user and secret".to_owned(),
            );
        }
        let target = Target::from_connect(authority.as_bytes()).map_err(|error| match error {
            TargetError::MissingPort => "name the port: clients have different defaults".to_owned(),
            error => error.to_string(),
        })?;
        Ok(Self {
            credentials: credentials.map(str::to_owned),
            target,
        })
    }

    pub(super) fn url(&self) -> String {
        match &self.credentials {
            Some(credentials) => format!("http://{credentials}@{}", self.target),
            None => format!("http://{}", self.target),
        }
    }

    /// `HOST:PORT`.
    pub(super) fn place(&self) -> String {
        self.target.to_string()
    }

    /// Returns the value of `Proxy-Authorization`, if there are credentials.
    pub(super) fn authorization(&self) -> Option<String> {
        let (user, secret) = decode(self.credentials.as_deref()?)?;
        Some(format!(
            "Basic {}",
            STANDARD.encode(format!("{user}:{secret}"))
        ))
    }

    /// Returns commands for the runner of GitHub Actions that mask the credentials in its logs, in
    /// each form in which a variable or a client may show them.
    fn github_masks(&self) -> String {
        let Some(credentials) = &self.credentials else {
            return String::new();
        };
        let encoded = credentials.split_once(':').map(|(_, secret)| secret);
        let decoded = decode(credentials).map(|(_, secret)| secret);
        let pair = decode(credentials).map(|(user, secret)| format!("{user}:{secret}"));
        let basic = pair.map(|pair| STANDARD.encode(pair));
        let mut forms: Vec<_> = encoded.map(str::to_owned).into_iter().collect();
        forms.extend([decoded, basic].into_iter().flatten());
        forms.retain(|form| !form.is_empty());
        forms.dedup();
        let mask = |form: &String| format!("::add-mask::{}\n", form.replace('%', "%25"));
        forms.iter().map(mask).collect()
    }

    /// Returns every variable, by name.
    pub(super) fn variables(&self) -> Vec<(&'static str, String)> {
        let url = self.url();
        let same = URLS.iter().map(|name| (*name, url.clone()));
        let without = [
            "NO_PROXY",
            "no_proxy",
            "npm_config_noproxy",
            "GLOBAL_AGENT_NO_PROXY",
        ]
        .map(|name| (name, NO_PROXY.to_owned()));
        let mut variables: Vec<_> = same.chain(without).collect();
        variables.extend([
            // Node 22.21, 24 and later; earlier versions read no proxy variable.
            ("NODE_USE_ENV_PROXY", "1".to_owned()),
            ("ELECTRON_GET_USE_PROXY", "1".to_owned()),
            // The proxy resolves names, if at all.
            ("CLAUDE_CODE_PROXY_RESOLVES_HOSTS", "1".to_owned()),
            // Without it, git sends no credentials before a 407.
            (
                "GIT_CONFIG_PARAMETERS",
                "'http.proxyAuthMethod=basic'".to_owned(),
            ),
            ("JAVA_TOOL_OPTIONS", self.java_options()),
            ("CLOUDSDK_PROXY_TYPE", "http".to_owned()),
            ("CLOUDSDK_PROXY_ADDRESS", self.target.host.to_string()),
            ("CLOUDSDK_PROXY_PORT", self.target.port.to_string()),
        ]);
        if let Some((user, secret)) = self.credentials.as_deref().and_then(decode) {
            variables.push(("CLOUDSDK_PROXY_USERNAME", user));
            variables.push(("CLOUDSDK_PROXY_PASSWORD", secret));
        }
        variables
    }

    /// Returns the options of Java. Java sends no credentials to a proxy unless Basic is enabled
    /// for tunnels.
    fn java_options(&self) -> String {
        let Target { host, port } = &self.target;
        format!(
            "-Dhttp.proxyHost={host} -Dhttp.proxyPort={port} \
             -Dhttps.proxyHost={host} -Dhttps.proxyPort={port} \
             -Dhttp.nonProxyHosts=localhost|127.0.0.1|[::1] \
             -Djdk.http.auth.tunneling.disabledSchemes="
        )
    }
}

/// Variables that hold the URL of the proxy.
const URLS: [&str; 16] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "YARN_HTTPS_PROXY",
    "YARN_HTTP_PROXY",
    "npm_config_https_proxy",
    "npm_config_proxy",
    "DOCKER_HTTPS_PROXY",
    "DOCKER_HTTP_PROXY",
    "GLOBAL_AGENT_HTTPS_PROXY",
    "GLOBAL_AGENT_HTTP_PROXY",
    "GRPC_PROXY",
    "grpc_proxy",
];

/// Returns user and secret of `user[:secret]`, percent-decoded. `None` if a character lacks its
/// escape, or an escape is a control character.
fn decode(credentials: &str) -> Option<(String, String)> {
    let (user, secret) = credentials.split_once(':').unwrap_or((credentials, ""));
    Some((decode_part(user)?, decode_part(secret)?))
}

fn decode_part(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = match (byte, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
                after
            }
            (b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~', after) => {
                bytes.push(*byte);
                after
            }
            _ => return None,
        };
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(proxy: &str, name: &str) -> Option<String> {
        let variables = Proxy::parse(proxy).unwrap().variables();
        variables
            .into_iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    #[test]
    fn a_runner_is_told_every_form_of_the_secret() {
        let proxy = Proxy::parse("http://ana:s%2Fx@proxy.example:3128").unwrap();
        assert_eq!(
            proxy.github_masks(),
            "::add-mask::s%252Fx\n::add-mask::s/x\n::add-mask::YW5hOnMveA==\n"
        );
        let proxy = Proxy::parse("http://proxy.example:3128").unwrap();
        assert_eq!(proxy.github_masks(), "");
    }

    #[test]
    fn all_proxy_variables_say_the_same() {
        for name in URLS {
            assert_eq!(
                value("http://ana.4f0c:s%2Fx@proxy.example:3128/", name).as_deref(),
                Some("http://ana.4f0c:s%2Fx@proxy.example:3128")
            );
        }
    }

    #[test]
    fn what_goes_past_the_proxy_is_exact_and_local() {
        let excepted = value("http://127.0.0.1:3128", "NO_PROXY").unwrap();
        assert!(
            !excepted.contains(['/', '*', ' ']) && !excepted.contains(",."),
            "{excepted}"
        );
        for entry in excepted.split(',') {
            let local = entry == "localhost"
                || entry
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|address| address.is_loopback());
            assert!(local, "{entry}");
        }
    }

    #[test]
    fn clients_with_settings_of_their_own_get_the_parts() {
        let proxy = "http://ana:s%2Fx@[fd00::7]:3128";
        assert_eq!(
            value(proxy, "CLOUDSDK_PROXY_ADDRESS").as_deref(),
            Some("fd00::7")
        );
        assert_eq!(value(proxy, "CLOUDSDK_PROXY_PORT").as_deref(), Some("3128"));
        assert_eq!(
            value(proxy, "CLOUDSDK_PROXY_USERNAME").as_deref(),
            Some("ana")
        );
        assert_eq!(
            value(proxy, "CLOUDSDK_PROXY_PASSWORD").as_deref(),
            Some("s/x")
        );
        assert_eq!(value("http://127.0.0.1:1", "CLOUDSDK_PROXY_USERNAME"), None);
        let java = value("http://proxy.example:3128", "JAVA_TOOL_OPTIONS").unwrap();
        assert!(
            java.contains("-Dhttps.proxyHost=proxy.example -Dhttps.proxyPort=3128"),
            "{java}"
        );
        let git = value("http://127.0.0.1:1", "GIT_CONFIG_PARAMETERS");
        assert_eq!(git.as_deref(), Some("'http.proxyAuthMethod=basic'"));
    }

    #[test]
    fn a_proxy_that_clients_would_read_differently_is_refused() {
        for text in [
            "",
            "127.0.0.1:3128",
            "https://proxy.example:3128",
            "socks5://127.0.0.1:1080",
            "http://proxy.example",
            "http://proxy.example:3128/path",
            "http://proxy.example:3128?x",
            "http://proxy.example:0",
            "http://a b:c@proxy.example:3128",
            "http://a@b@proxy.example:3128",
            "http://a:b'$(x)@proxy.example:3128",
            "http://a:b%0aX=y@proxy.example:3128",
            "http://a:b%zz@proxy.example:3128",
            "http://a:b:c@proxy.example:3128",
            "http://proxy.example:3128\nX=y",
        ] {
            assert!(Proxy::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn no_value_has_a_line_break_or_control_character() {
        let proxy = Proxy::parse("http://a:%C3%A9@proxy.example:3128").unwrap();
        for (name, value) in proxy.variables() {
            assert!(!value.chars().any(char::is_control), "{name}");
        }
    }
}
