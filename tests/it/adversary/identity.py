# Ways at the identity, from a command behind a gate: each asks for a target of its own, which is
# refused. The record names the caller that the gate saw.

import base64
import urllib.parse
import urllib.request

PROXY = urllib.parse.urlsplit(os.environ["http_proxy"])
NAME, TOKEN = PROXY.username, urllib.parse.unquote(PROXY.password or "")
SESSION, _, CHANNEL = NAME.partition(".")
ADMIN = os.environ["TIDEGATE_ADMIN"]


def ask(target, name=NAME, word=TOKEN, fields=()):
    who = base64.b64encode(f"{name}:{word}".encode()).decode()
    lines = [f"GET http://{target}/ HTTP/1.1", f"Host: {target}", "Connection: close"]
    if name is not None:
        lines.append(f"Proxy-Authorization: Basic {who}")
    lines += [*fields, "", ""]
    with socket.create_connection((PROXY.hostname, PROXY.port), 20) as client:
        client.sendall("\r\n".join(lines).encode())
        client.settimeout(20)
        answer = b""
        while part := client.recv(65536):
            answer += part
    return answer[:12].decode()


def post(path, value, token=TOKEN):
    request = urllib.request.Request(
        f"http://{ADMIN}{path}",
        json.dumps(value).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=20) as answer:
        return answer.status


def hook(session):
    """Says that a tool call of that session's agent has begun."""
    told = {
        "session_id": session,
        "hook_event_name": "PreToolUse",
        "tool_use_id": "toolu_1",
        "tool_name": "Bash",
        "prompt_id": "prompt-of-the-adversary",
        "tool_input": {"command": "true"},
    }
    return post("/v1/hooks/claude-code", told)


def changed(token):
    """The token with another session in it, and the old signature."""
    parts = token.split(".")
    at = max(range(len(parts)), key=lambda place: len(parts[place]))
    parts[at] = parts[at][:10] + ("A" if parts[at][10] != "A" else "B") + parts[at][11:]
    return ".".join(parts)


OTHER, STOLEN = aims["other"], aims["stolen"]
TRIES = {
    "own": lambda: ask("own.example.net"),
    "name": lambda: ask("name.example.net", f"{OTHER}.{CHANNEL}"),
    "bare-name": lambda: ask("bare-name.example.net", OTHER, ""),
    "stolen": lambda: ask("stolen.example.net", f"{OTHER}.{CHANNEL}", STOLEN),
    "stolen-own-name": lambda: ask("stolen-own-name.example.net", NAME, STOLEN),
    "changed": lambda: ask("changed.example.net", f"{OTHER}.{CHANNEL}", changed(TOKEN)),
    "header": lambda: ask(
        "header.example.net", fields=[f"x-claude-code-session-id: {OTHER}"]
    ),
    "forwarded": lambda: ask(
        "forwarded.example.net", fields=["X-Forwarded-For: 10.9.8.7", "Forwarded: for=10.9.8.7"]
    ),
    "channel": lambda: ask("channel.example.net", f"{SESSION}.main"),
    "hook": lambda: hook(SESSION),
    "hook-of-other": lambda: hook(OTHER),
}
for name, function in TRIES.items():
    print(json.dumps({"way": name, **outcome(function)}), flush=True)
