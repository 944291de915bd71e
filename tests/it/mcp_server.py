"""An MCP server with the tools `search` and `delete`, over TLS on a port of its own.

usage: mcp_server.py http|sse CERT KEY LOG

Each request that reaches it is a line of LOG, as JSON: method, path, and the method and tool of its message.
"""

import json
import socket
import sys

import uvicorn
from mcp.server.mcpserver import MCPServer

transport, cert, key, log = sys.argv[1:]
server = MCPServer("docs")


@server.tool()
def search(query: str) -> str:
    """Looks something up."""
    return f"found {query}"


@server.tool()
def delete(name: str) -> str:
    """Removes something."""
    return f"deleted {name}"


def noted(app):
    """Keeps what reaches the application."""

    async def seen(scope, receive, send):
        if scope["type"] != "http":
            return await app(scope, receive, send)
        body, messages = b"", []
        if scope["method"] == "POST":
            more = True
            while more:
                message = await receive()
                messages.append(message)
                body += message.get("body", b"")
                more = message.get("more_body", False)
        try:
            said = json.loads(body)
        except ValueError:
            said = {}
        said = said if isinstance(said, dict) else {}
        line = {
            "http": scope["method"],
            "path": scope["path"],
            "method": said.get("method"),
            "tool": (said.get("params") or {}).get("name"),
        }
        with open(log, "a") as file:
            file.write(json.dumps(line) + "\n")

        async def again():
            return messages.pop(0) if messages else await receive()

        await app(scope, again, send)

    return seen


app = server.sse_app(host="0.0.0.0") if transport == "sse" else server.streamable_http_app(host="0.0.0.0")
listener = socket.create_server(("127.0.0.1", 0))
print("port", listener.getsockname()[1], flush=True)
config = uvicorn.Config(noted(app), ssl_certfile=cert, ssl_keyfile=key, log_level="warning")
uvicorn.Server(config).run(sockets=[listener])
