//! The agents that are tried, as users install and start them.

use std::path::{Path, PathBuf};

/// One agent at one version.
pub(super) struct Agent {
    /// Its name and version, as the manual says them.
    pub(super) name: &'static str,
    /// The name that users type.
    pub(super) command: &'static str,
    /// Its program, below the folder of the agents.
    program: &'static str,
    /// What is set for it: keys that are good for nothing.
    pub(super) variables: &'static [(&'static str, &'static str)],
    /// Its command line for one prompt.
    pub(super) words: &'static [&'static str],
    /// Its command line at a terminal.
    pub(super) at_terminal: &'static [&'static str],
    /// How `tidegate init` makes it use a gate that runs already; a command of a shell.
    pub(super) init: &'static str,
    /// How `tidegate init` writes its hooks where `tidegate exec` cannot; a command of a shell.
    pub(super) init_launched: &'static str,
    /// How `tidegate init` writes its hooks for a gate that `tidegate exec` joins; a command of a shell.
    pub(super) init_joined: &'static str,
    /// Files of the home that it gets in a jail.
    pub(super) shares: &'static [&'static str],
    /// Its settings: a path below the home, and a text in which `WORLD` is the folder of the run.
    settings: &'static [(&'static str, &'static str)],
}

impl Agent {
    pub(super) fn is_installed(&self) -> bool {
        self.program(&installed()).exists()
    }

    pub(super) fn program(&self, agents: &Path) -> PathBuf {
        agents.join(self.program)
    }

    pub(super) fn files(&self, world: &Path) -> Vec<(&'static str, String)> {
        let world = world.display().to_string();
        let filled = |(path, text): &(&'static str, &str)| (*path, text.replace("WORLD", &world));
        self.settings.iter().map(filled).collect()
    }
}

/// Where `tests/run` installs agents.
pub(super) fn installed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-agents")
}

/// What Claude Code needs for one prompt without questions, and its own telemetry.
const CLAUDE: &[(&str, &str)] = &[
    ("ANTHROPIC_API_KEY", "sk-ant-no-key"),
    ("ENABLE_TOOL_SEARCH", "false"),
    ("CLAUDE_CODE_ENABLE_TELEMETRY", "1"),
    ("OTEL_LOGS_EXPORTER", "otlp"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
    ("OTEL_LOGS_EXPORT_INTERVAL", "500"),
    ("DISABLE_AUTOUPDATER", "1"),
];
const CLAUDE_WORDS: &[&str] = &["-p", "Go.", "--permission-mode", "bypassPermissions"];
const CLAUDE_INIT: &str = "tidegate init claude-code --write >&2 && ";
/// Questions that Claude Code asks once at a terminal are answered here.
const CLAUDE_SETTINGS: &[(&str, &str)] = &[(
    ".claude.json",
    r#"{"hasCompletedOnboarding":true,"theme":"dark",
            "customApiKeyResponses":{"approved":["sk-ant-no-key"],"rejected":[]},
            "bypassPermissionsModeAccepted":true,
            "projects":{"WORLD/home/web":{"hasTrustDialogAccepted":true}}}"#,
)];

/// The MCP servers of the scenario, as Claude Code reads them: over the network, on loopback, and a
/// program.
pub(super) fn mcp_servers(world: &Path) -> String {
    let servers = r#"{"mcpServers":{
        "remote":{"type":"http","url":"https://mcp.example.com/mcp"},
        "loopback":{"type":"http","url":"http://127.0.0.1:4318/mcp"},
        "program":{"command":"node","args":["WORLD/model/mcp.mjs"]}}}"#;
    servers.replace("WORLD", &world.display().to_string())
}

/// Claude Code as one native program.
pub(super) static CLAUDE_NATIVE: Agent = Agent {
    name: "Claude Code 2.1.332",
    command: "claude",
    program: "node_modules/@anthropic-ai/claude-code/bin/claude.exe",
    variables: CLAUDE,
    words: CLAUDE_WORDS,
    at_terminal: &["--permission-mode", "bypassPermissions"],
    init: CLAUDE_INIT,
    init_launched: "",
    init_joined: "",
    shares: &[],
    settings: CLAUDE_SETTINGS,
};

/// The last Claude Code that runs on Node.
pub(super) static CLAUDE_NODE: Agent = Agent {
    name: "Claude Code 2.1.112",
    command: "claude",
    program: "node_modules/claude-code-js/cli.js",
    variables: CLAUDE,
    words: CLAUDE_WORDS,
    at_terminal: &["--permission-mode", "bypassPermissions"],
    init: CLAUDE_INIT,
    init_launched: "",
    init_joined: "",
    shares: &[],
    settings: CLAUDE_SETTINGS,
};

/// `OpenAI`'s agent.
pub(super) static CODEX: Agent = Agent {
    name: "Codex 0.171.0",
    command: "codex",
    program: "node_modules/@openai/codex/bin/codex.js",
    variables: &[
        ("OPENAI_API_KEY", "sk-no-key"),
        ("CODEX_API_KEY", "sk-no-key"),
    ],
    words: &[
        "exec",
        "--skip-git-repo-check",
        "--dangerously-bypass-approvals-and-sandbox",
        "Go.",
    ],
    at_terminal: &[],
    init: "tidegate init codex --write >&2 && ",
    init_launched: "",
    init_joined: "",
    // What it keeps of a session says which id it has for which command.
    shares: &[".codex"],
    settings: &[(".codex/version.json", "{}")],
};

/// Google's agent.
pub(super) static GEMINI: Agent = Agent {
    name: "Gemini CLI 0.61.0",
    command: "gemini",
    program: "node_modules/@google/gemini-cli/bundle/gemini.js",
    variables: &[("GEMINI_API_KEY", "no-key")],
    words: &[
        "-p",
        "Go.",
        "--yolo",
        "--skip-trust",
        "-m",
        "gemini-2.5-flash",
    ],
    at_terminal: &[],
    init: "tidegate init gemini --write >&2 && ",
    init_launched: "tidegate init gemini --launched --write >&2 && ",
    init_joined: "tidegate init gemini --launched --write >&2 && ",
    shares: &[".gemini/settings.json:ro"],
    settings: &[],
};

/// GitHub's agent, with a model of another vendor: that way it asks for no account.
pub(super) static COPILOT: Agent = Agent {
    name: "Copilot CLI 1.0.102",
    command: "copilot",
    program: "node_modules/@github/copilot/npm-loader.js",
    variables: &[
        ("COPILOT_PROVIDER_BASE_URL", "https://api.anthropic.com"),
        ("COPILOT_PROVIDER_TYPE", "anthropic"),
        ("COPILOT_PROVIDER_API_KEY", "sk-ant-no-key"),
        ("COPILOT_MODEL", "claude-sonnet-4-5"),
        ("COPILOT_AUTO_UPDATE", "false"),
    ],
    words: &["-p", "Go.", "--allow-all-tools", "--allow-all-paths"],
    at_terminal: &[],
    init: "tidegate init copilot --write >&2 && eval \"$(tidegate env)\" && ",
    init_launched: "",
    init_joined: "tidegate init copilot --launched --write >&2 && ",
    shares: &[],
    settings: &[],
};

/// aider, which has no tools: its model answers with text.
pub(super) static AIDER: Agent = Agent {
    name: "aider 0.86.2",
    command: "aider",
    program: "aider/bin/aider",
    variables: &[("ANTHROPIC_API_KEY", "sk-ant-no-key")],
    words: &[
        "--model",
        "anthropic/claude-3-5-sonnet-20241022",
        "--yes-always",
        "--no-git",
        "--no-pretty",
        "--message",
        "Go.",
    ],
    at_terminal: &[],
    init: "",
    init_launched: "",
    init_joined: "",
    shares: &[],
    settings: &[],
};

/// SST's agent.
pub(super) static OPENCODE: Agent = Agent {
    name: "opencode 1.18.33",
    command: "opencode",
    program: "node_modules/opencode-ai/bin/opencode.exe",
    variables: &[("ANTHROPIC_API_KEY", "sk-ant-no-key")],
    words: &["run", "Go.", "-m", "anthropic/claude-sonnet-4-5"],
    at_terminal: &[],
    init: "tidegate init opencode --write >&2 && eval \"$(tidegate env)\" && ",
    init_launched: "",
    init_joined: "tidegate init opencode --write >&2 && ",
    shares: &[],
    settings: &[],
};
