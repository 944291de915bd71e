//! What Claude Code's settings have to say, put among what they say already.

use serde_json::{Value, json};

use super::super::env::Proxy;
use super::json::Json;

/// Tools that reach the network.
const TOOLS: &str = "Bash|PowerShell|WebFetch|WebSearch|mcp__.*";
const COMMAND_EVENTS: [&str; 3] = ["SessionStart", "CwdChanged", "SessionEnd"];
const TOOL_EVENTS: [&str; 3] = ["PreToolUse", "PostToolUse", "PostToolUseFailure"];
const COMMAND_END: &str = " session hook";
const URL_END: &str = "/v1/hooks/claude-code";
const TOKEN: &str = "TIDEGATE_TOKEN";

/// What the settings have to say.
pub(super) struct Settings {
    /// The program, as a word of a shell.
    pub(super) program: String,
    /// The URL of the HTTP hooks.
    pub(super) hooks: String,
    /// The admin listener.
    pub(super) admin: String,
    /// The proxy.
    pub(super) proxy: Proxy,
    /// Whether the launcher of the agent sets the variables.
    pub(super) launched: bool,
    /// Whether these are the settings of the machine.
    pub(super) managed: bool,
}

impl Settings {
    /// Puts it among what is there; what is not ours stays as it is, where it is.
    pub(super) fn put_into(&self, settings: &mut Json) -> Result<(), String> {
        let shape = |what: &str| format!("`{what}` is not of the form that Claude Code reads");
        if !matches!(settings, Json::Object(_)) {
            return Err(shape("{ … }"));
        }
        let nothing = || Json::Object(Vec::new());
        if !self.launched {
            let env = settings.entry("env", nothing());
            let env = env.ok_or_else(|| shape("env"))?;
            for (name, value) in self.variables() {
                env.set(name, Json::text(value))
                    .ok_or_else(|| shape("env"))?;
            }
        }
        let hooks = settings.entry("hooks", nothing());
        let hooks = hooks.ok_or_else(|| shape("hooks"))?;
        for event in COMMAND_EVENTS {
            put_hook(hooks, event, self.command()).ok_or_else(|| shape(event))?;
        }
        for event in TOOL_EVENTS {
            put_hook(hooks, event, self.http()).ok_or_else(|| shape(event))?;
        }
        // A list of what is allowed takes away all else: it is added to, and made for machines only.
        for (key, value) in [
            ("httpHookAllowedEnvVars", TOKEN),
            ("allowedHttpHookUrls", &self.hooks),
        ] {
            if self.managed || settings.get(key).is_some() {
                let list = settings.entry(key, Json::Array(Vec::new()));
                let Some(Json::Array(items)) = list else {
                    return Err(shape(key));
                };
                if !items.iter().any(|item| item.as_text() == Some(value)) {
                    items.push(Json::text(value));
                }
            }
        }
        if self.managed {
            let only = Json::Plain(Value::Bool(true));
            settings.set("allowManagedHooksOnly", only);
        }
        Ok(())
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        // What starts Java or git in the process of the agent is for its commands, which get it.
        let of_commands = ["GIT_CONFIG_PARAMETERS", "JAVA_TOOL_OPTIONS"];
        let mut variables = self.proxy.variables();
        variables.retain(|(name, _)| !of_commands.contains(name));
        variables.push(("TIDEGATE_PROXY", self.proxy.with_credentials(None).url()));
        variables.push(("TIDEGATE_ADMIN", self.admin.clone()));
        variables
    }

    fn command(&self) -> Json {
        let command = format!("{}{COMMAND_END}", self.program);
        json!({ "hooks": [{ "type": "command", "command": command }] }).into()
    }

    fn http(&self) -> Json {
        json!({
            "matcher": TOOLS,
            "hooks": [{
                "type": "http",
                "url": self.hooks,
                "timeout": 5,
                "headers": { "Authorization": format!("Bearer ${TOKEN}") },
                "allowedEnvVars": [TOKEN],
            }]
        })
        .into()
    }
}

/// Puts a hook in the place of the one that we wrote before, else behind the others.
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

/// A group with one hook, which we wrote.
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
    let command = |name: &&str| ends("command", &format!("{name}{COMMAND_END}"));
    names.iter().any(command) || ends("url", URL_END)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(managed: bool) -> Settings {
        Settings {
            program: "/opt/tidegate".to_owned(),
            hooks: "http://127.0.0.1:3130/v1/hooks/claude-code".to_owned(),
            admin: "127.0.0.1:3130".to_owned(),
            proxy: Proxy::parse("http://127.0.0.1:3128").unwrap(),
            launched: false,
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
        assert!(at("\"Z\"") < at("\"A\"") && at("\"mine\"") < at(URL_END));
        assert!(
            !after.contains("allowedHttpHookUrls"),
            "others have HTTP hooks, too"
        );
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
        assert_eq!(after["httpHookAllowedEnvVars"], json!([TOKEN]));
        assert_eq!(after["allowedHttpHookUrls"], json!([settings(true).hooks]));
        assert_eq!(after["env"]["CLAUDE_CODE_PROXY_RESOLVES_HOSTS"], "1");
        let hook = &after["hooks"]["SessionStart"][0]["hooks"][0]["command"];
        assert_eq!(hook, "/opt/tidegate session hook");
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
            "{\"allowedHttpHookUrls\":{}}",
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
