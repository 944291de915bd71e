"""Asks an MCP server what it can do, and does it.

usage: mcp_client.py sse|legacy|VERSION URL
"""

import asyncio
import sys

from mcp import Client
from mcp.client.sse import sse_client

mode, url = sys.argv[1:]


async def call(client, tool, arguments):
    try:
        result = await asyncio.wait_for(client.call_tool(tool, arguments), 20)
        print("called", tool, [part.text for part in result.content], flush=True)
    except Exception as error:
        print("refused", tool, type(error).__name__, error, flush=True)


async def main():
    server = sse_client(url) if mode == "sse" else url
    async with Client(server, mode="legacy" if mode == "sse" else mode) as client:
        tools = await client.list_tools()
        print("tools", sorted(tool.name for tool in tools.tools), flush=True)
        await call(client, "search", {"query": "a-private-question"})
        await call(client, "delete", {"name": "everything"})
        await call(client, "search", {"query": "again"})


asyncio.run(asyncio.wait_for(main(), 60))
