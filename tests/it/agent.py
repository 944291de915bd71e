"""An agent that behaves like Claude Code behind `tidegate exec`: its hooks, then its Bash calls."""

import json
import os
import socket
import subprocess
import sys

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


def hook(event, **more):
    """Runs a hook as Claude Code does: by a shell, with one end of a socket pair as its input."""
    own, its = socket.socketpair()
    child = subprocess.Popen(
        f"'{TIDEGATE}' session hook", shell=True, stdin=its, stdout=subprocess.PIPE, text=True
    )
    its.close()
    own.sendall(told(event, **more).encode())
    own.close()
    answer = child.communicate(timeout=60)[0]
    assert child.returncode == 0
    return answer


def begin(number, command):
    name = f"toolu_{number}"
    hook("PreToolUse", tool_name="Bash", tool_use_id=name, tool_input={"command": command})
    script = f"source {ENV_FILE} && eval \"$1\" </dev/null"
    return subprocess.Popen(["bash", "-c", script, "bash", command], cwd=os.getcwd())


hook("SessionStart", source="startup")
running = [(n, begin(n, command)) for n, command in enumerate(COMMANDS, 1)]
for number, child in running:
    code = child.wait()
    event = "PostToolUse" if code == 0 else "PostToolUseFailure"
    name = f"toolu_{number}"
    print(number, code, hook(event, tool_name="Bash", tool_use_id=name, tool_response={}))
hook("SessionEnd")
