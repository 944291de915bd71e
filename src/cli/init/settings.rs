//! The hooks of the gate in the settings of Claude Code, Copilot CLI and Gemini CLI.

use serde_json::{Value, json};

use super::super::env::Proxy;
use super::json::Json;

/// Tools that reach the network.
const TOOLS: &str = "Bash|PowerShell|WebFetch|WebSearch|mcp__.*";
const SESSION_EVENTS: [&str; 4] = [
    "SessionStart",
    "CwdChanged",
    "UserPromptSubmit",
    "SessionEnd",
];
const TOOL_EVENTS: [&str; 3] = ["PreToolUse", "PostToolUse", "PostToolUseFailure"];
/// How long an agent waits for a hook, in seconds: longer than the hook waits for its gate.
const HOOK_TIMEOUT: u32 = 10;
const COMMAND_END: &str = " session hook";
const GEMINI_COMMAND_END: &str = " session hook --agent gemini-cli";
/// Tools of Gemini CLI that reach the network, as far as the gate can attribute their flows.
const GEMINI_TOOLS: &str = "run_shell_command|web_fetch";
const GEMINI_SESSION_EVENTS: [&str; 3] = ["SessionStart", "BeforeAgent", "SessionEnd"];
const GEMINI_TOOL_EVENTS: [&str; 2] = ["BeforeTool", "AfterTool"];
/// Events of Copilot CLI, with the names for which it reports in the form of Claude Code.
const COPILOT_SESSION_EVENTS: [&str; 3] = ["SessionStart", "UserPromptSubmit", "SessionEnd"];
const COPILOT_TOOLS: &str = "Bash|WebFetch|bash|web_fetch";
/// The end of the URL of HTTP hooks, which earlier versions wrote.
const URL_END: &str = "/v1/hooks/claude-code";

/// The settings to add.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Settings {
    /// The program, as a word of a shell.
    pub(in crate::cli) program: String,
    /// Variables for the agent and its commands.
    pub(in crate::cli) variables: Vec<(&'static str, String)>,
    /// Whether these are the settings of the machine.
    pub(in crate::cli) managed: bool,
}

impl Settings {
    /// Adds them to the existing settings; the other settings stay unchanged.
    pub(in crate::cli) fn put_into(&self, settings: &mut Json) -> Result<(), String> {
        let shape = |what: &str| format!("`{what}` is not of the form that Claude Code reads");
        if !matches!(settings, Json::Object(_)) {
            return Err(shape("{ … }"));
        }
        let nothing = || Json::Object(Vec::new());
        if !self.variables.is_empty() {
            let env = settings.entry("env", nothing());
            let env = env.ok_or_else(|| shape("env"))?;
            for (name, value) in &self.variables {
                env.set(name, Json::text(value))
                    .ok_or_else(|| shape("env"))?;
            }
        }
        let hooks = settings.entry("hooks", nothing());
        let hooks = hooks.ok_or_else(|| shape("hooks"))?;
        for event in SESSION_EVENTS {
            put_hook(hooks, event, self.hook(None)).ok_or_else(|| shape(event))?;
        }
        for event in TOOL_EVENTS {
            put_hook(hooks, event, self.hook(Some(TOOLS))).ok_or_else(|| shape(event))?;
        }
        if self.managed {
            let only = Json::Plain(Value::Bool(true));
            settings.set("allowManagedHooksOnly", only);
        }
        Ok(())
    }

    fn hook(&self, matcher: Option<&str>) -> Json {
        let command = format!("{}{COMMAND_END}", self.program);
        let hooks = json!([{ "type": "command", "command": command, "timeout": HOOK_TIMEOUT }]);
        match matcher {
            Some(matcher) => json!({ "matcher": matcher, "hooks": hooks }).into(),
            None => json!({ "hooks": hooks }).into(),
        }
    }
}

/// Adds the hooks of Gemini CLI to the existing settings.
pub(super) fn put_gemini_hooks(settings: &mut Json, program: &str) -> Result<(), String> {
    let shape = |what: &str| format!("`{what}` is not of the form that Gemini CLI reads");
    let command = format!("{program}{GEMINI_COMMAND_END}");
    let hook = json!([{
        "type": "command", "name": "tidegate", "command": command, "timeout": HOOK_TIMEOUT * 1000,
    }]);
    let hooks = settings.entry("hooks", Json::Object(Vec::new()));
    let hooks = hooks.ok_or_else(|| shape("hooks"))?;
    for event in GEMINI_SESSION_EVENTS {
        let group = json!({ "hooks": hook });
        put_hook(hooks, event, group.into()).ok_or_else(|| shape(event))?;
    }
    for event in GEMINI_TOOL_EVENTS {
        let group = json!({ "matcher": GEMINI_TOOLS, "hooks": hook });
        put_hook(hooks, event, group.into()).ok_or_else(|| shape(event))?;
    }
    Ok(())
}

/// Returns the hooks for Copilot CLI, by event.
pub(in crate::cli) fn copilot_hooks(program: &str) -> Value {
    let command = format!("{program}{COMMAND_END} --agent copilot");
    let hooks = json!([{ "type": "command", "command": command, "timeout": HOOK_TIMEOUT }]);
    let of_session = COPILOT_SESSION_EVENTS.map(|event| (event, json!([{ "hooks": hooks }])));
    let group = json!([{ "matcher": COPILOT_TOOLS, "hooks": hooks }]);
    let of_tool = TOOL_EVENTS.map(|event| (event, group.clone()));
    let all = of_session.into_iter().chain(of_tool);
    all.map(|(event, groups)| (event.to_owned(), groups))
        .collect()
}

/// Returns the variables that make an agent use a proxy. Variables for Java and git are for the
/// agent's commands, which get them from the hook.
pub(super) fn proxy_variables(proxy: &Proxy) -> Vec<(&'static str, String)> {
    let of_commands = ["GIT_CONFIG_PARAMETERS", "JAVA_TOOL_OPTIONS"];
    let mut variables = proxy.variables();
    variables.retain(|(name, _)| !of_commands.contains(name));
    variables.push(("TIDEGATE_PROXY", proxy.with_credentials(None).url()));
    variables
}

/// Replaces the hook of an earlier run, or appends the hook.
fn put_hook(hooks: &mut Json, event: &str, hook: Json) -> Option<()> {
    let Json::Array(groups) = hooks.entry(event, Json::Array(Vec::new()))? else {
        return None;
    };
    match groups.iter_mut().find(|group| is_ours(group)) {
        Some(ours) => *ours = hook,
        None => groups.push(hook),
    }
    Some(())
}

/// Whether a group has one hook, of the gate.
fn is_ours(group: &Json) -> bool {
    let Some(Json::Array(hooks)) = group.get("hooks") else {
        return false;
    };
    let [hook] = hooks.as_slice() else {
        return false;
    };
    let ends = |key: &str, end: &str| {
        let text = hook.get(key).and_then(Json::as_text);
        text.is_some_and(|text| text.ends_with(end))
    };
    let names = ["tidegate", "tidegate'"];
    let command = |name: &&str| {
        let commands = [COMMAND_END, GEMINI_COMMAND_END];
        commands
            .iter()
            .any(|end| ends("command", &format!("{name}{end}")))
    };
    names.iter().any(command) || ends("url", URL_END)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(managed: bool) -> Settings {
        Settings {
            program: "/opt/tidegate".to_owned(),
            variables: proxy_variables(&Proxy::parse("http://127.0.0.1:3128").unwrap()),
            managed,
        }
    }

    fn put(text: &str, managed: bool) -> Result<String, String> {
        let mut json = Json::parse(text)?;
        settings(managed).put_into(&mut json)?;
        Ok(json.pretty())
    }

    #[test]
    fn what_others_wrote_stays_in_its_order() {
        let before = r#"{"zeta":1.50,"env":{"Z":"1","A":"2"},"hooks":{"PreToolUse":[
            {"matcher":"Bash","hooks":[{"type":"command","command":"mine"}]}]},"alpha":[null,{}]}"#;
        let after = put(before, false).unwrap();
        let at = |text: &str| {
            after
                .find(text)
                .unwrap_or_else(|| panic!("{text} in {after}"))
        };
        assert!(at("\"zeta\": 1.5") < at("\"env\"") && at("\"env\"") < at("\"alpha\""));
        assert!(at("\"Z\"") < at("\"A\"") && at("\"mine\"") < at("/opt/tidegate"));
        assert_eq!(
            put(&after, false).unwrap(),
            after,
            "a second time changes nothing"
        );
    }

    #[test]
    fn the_settings_of_a_machine_allow_its_hooks_only() {
        let after: Value = serde_json::from_str(&put("{}", true).unwrap()).unwrap();
        assert_eq!(after["allowManagedHooksOnly"], true);
        assert_eq!(after["env"]["CLAUDE_CODE_PROXY_RESOLVES_HOSTS"], "1");
        let hook = &after["hooks"]["SessionStart"][0]["hooks"][0]["command"];
        assert_eq!(hook, "/opt/tidegate session hook");
    }

    #[test]
    fn hooks_that_an_earlier_version_wrote_are_replaced() {
        let before = r#"{"hooks":{"PreToolUse":[{"matcher":"Bash","hooks":[
            {"type":"http","url":"http://127.0.0.1:3130/v1/hooks/claude-code"}]}],
            "SessionStart":[{"hooks":[{"type":"command","command":"'/a b/tidegate' session hook"}]}]}}"#;
        let after = put(before, false).unwrap();
        assert!(
            !after.contains("http://127.0.0.1:3130") && !after.contains("/a b/"),
            "{after}"
        );
        assert_eq!(
            after.matches("/opt/tidegate session hook").count(),
            7,
            "{after}"
        );
        assert!(
            !after.contains("TIDEGATE_ADMIN") && !after.contains("TIDEGATE_TOKEN"),
            "{after}"
        );
    }

    #[test]
    fn hooks_of_gemini_are_added_once() {
        let mut json = Json::parse(r#"{"ui":{"theme":"dark"}}"#).unwrap();
        put_gemini_hooks(&mut json, "/opt/tidegate").unwrap();
        let once = json.pretty();
        put_gemini_hooks(&mut json, "/opt/tidegate").unwrap();
        assert_eq!(json.pretty(), once);
        let value: Value = serde_json::from_str(&once).unwrap();
        assert_eq!(value["ui"]["theme"], "dark");
        let hook = &value["hooks"]["AfterTool"][0]["hooks"][0];
        assert_eq!(
            hook["command"],
            "/opt/tidegate session hook --agent gemini-cli"
        );
        assert_eq!(hook["timeout"], 10_000);
        assert!(put_gemini_hooks(&mut Json::parse("[]").unwrap(), "x").is_err());
    }

    #[test]
    fn what_cannot_be_added_to_is_refused() {
        for text in [
            "",
            "[]",
            "\"x\"",
            "{\"env\":[]}",
            "{\"hooks\":1}",
            "{\"hooks\":{\"PreToolUse\":{}}}",
            "{\"a\":1,\"a\":2}",
            "{ // a comment\n }",
            &"[".repeat(100_000),
        ] {
            assert!(
                put(text, false).is_err(),
                "{}",
                text.get(..20).unwrap_or(text)
            );
        }
    }
}
