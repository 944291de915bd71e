// Asks an MCP server what it can do, and does it: mcp_client.mjs MODULES sse|http URL
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [modules, transport, url] = process.argv.slice(2);
const require = createRequire(pathToFileURL(modules + '/'));
const load = name => import(pathToFileURL(require.resolve(name)));
const { EnvHttpProxyAgent, setGlobalDispatcher } = require('undici');
const { Client } = await load('@modelcontextprotocol/sdk/client/index.js');
const { SSEClientTransport } = await load('@modelcontextprotocol/sdk/client/sse.js');
const { StreamableHTTPClientTransport } = await load('@modelcontextprotocol/sdk/client/streamableHttp.js');
setGlobalDispatcher(new EnvHttpProxyAgent());

const Transport = transport === 'sse' ? SSEClientTransport : StreamableHTTPClientTransport;
const client = new Client({ name: 'test', version: '1' });
await client.connect(new Transport(new URL(url)));
console.log('tools', (await client.listTools()).tools.map(tool => tool.name).sort());
for (const [name, args] of [['search', { query: 'a' }], ['delete', { name: 'b' }], ['search', { query: 'c' }]]) {
  try {
    const result = await client.callTool({ name, arguments: args }, undefined, { timeout: 20000 });
    console.log('called', name, result.content);
  } catch (error) {
    console.log('refused', name, error.message);
  }
}
process.exit(0);
