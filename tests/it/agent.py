"""An agent that behaves like Claude Code behind `tidegate exec`: its hooks, then one Bash call."""

import json
import os
import subprocess
import sys
import urllib.request

TIDEGATE, WORK, COMMANDS = sys.argv[1], sys.argv[2], sys.argv[3:]
SESSION = os.environ["TIDEGATE_SESSION"]
ENV_FILE = os.path.join(WORK, "claude-env")
os.environ["CLAUDE_ENV_FILE"] = ENV_FILE
os.environ["CLAUDE_PID"] = str(os.getpid())


def told(event, **more):
    return json.dumps(
        {
            "session_id": SESSION,
            "hook_event_name": event,
            "cwd": os.getcwd(),
            "permission_mode": "acceptEdits",
            "prompt_id": "prompt-1",
            **more,
        }
    )


def command_hook(event):
    hook = [TIDEGATE, "session", "hook"]
    subprocess.run(hook, input=told(event, source="startup"), text=True, check=True)


def http_hook(event, **more):
    request = urllib.request.Request(
        f"http://{os.environ['TIDEGATE_ADMIN']}/v1/hooks/claude-code",
        told(event, tool_name="Bash", **more).encode(),
        {
            "Content-Type": "application/json",
            "Authorization": "Bearer " + os.environ["TIDEGATE_TOKEN"],
        },
    )
    # The gate's own listener is not asked through the gate.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=30) as answer:
        return answer.read().decode()


def begin(number, command):
    name = f"toolu_{number}"
    http_hook("PreToolUse", tool_use_id=name, tool_input={"command": command})
    script = f"source {ENV_FILE} && eval \"$1\" </dev/null"
    return subprocess.Popen(["bash", "-c", script, "bash", command], cwd=os.getcwd())


command_hook("SessionStart")
running = [(n, begin(n, command)) for n, command in enumerate(COMMANDS, 1)]
for number, child in running:
    code = child.wait()
    event = "PostToolUse" if code == 0 else "PostToolUseFailure"
    print(number, code, http_hook(event, tool_use_id=f"toolu_{number}", tool_response={}))
command_hook("SessionEnd")
