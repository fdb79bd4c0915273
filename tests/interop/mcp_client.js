// An MCP client of another vendor that knows the URL of a server and its own credentials: npm
// @modelcontextprotocol/sdk (protocol 2025-11-25) or @modelcontextprotocol/client (2026-07-28).
// Calls each tool. Prints the requests, with their statuses, and what the tools returned.
//
//   LIBRARY=sdk|client MCP_URL=… CLIENT_ID=… CLIENT_SECRET=… [VERSION=2026-07-28] node mcp_client.js
'use strict';

const { importModule, print, setting } = require('./modules.js');

async function sdk() {
  const { Client } = await importModule('@modelcontextprotocol/sdk/client/index.js');
  const { StreamableHTTPClientTransport } =
    await importModule('@modelcontextprotocol/sdk/client/streamableHttp.js');
  const { ClientCredentialsProvider } =
    await importModule('@modelcontextprotocol/sdk/client/auth-extensions.js');
  return { Client, StreamableHTTPClientTransport, ClientCredentialsProvider };
}

async function client() {
  return importModule('@modelcontextprotocol/client');
}

const requests = [];

// Records each request: its method, URL and status.
async function recordingFetch(url, init) {
  const response = await fetch(url, init);
  const sent = new Request(url, { ...init, body: undefined });
  requests.push({
    method: sent.method,
    url: sent.url,
    status: response.status,
    bearer: (sent.headers.get('authorization') || '').startsWith('Bearer '),
    mcpMethod: sent.headers.get('mcp-method'),
  });
  return response;
}

async function main() {
  const { Client, StreamableHTTPClientTransport, ClientCredentialsProvider } =
    await { sdk, client }[setting('LIBRARY')]();
  const authProvider = new ClientCredentialsProvider({
    clientId: setting('CLIENT_ID'),
    clientSecret: setting('CLIENT_SECRET'),
  });
  const transport = new StreamableHTTPClientTransport(new URL(setting('MCP_URL')), {
    authProvider, fetch: recordingFetch });
  const pin = process.env.VERSION;
  const options = pin ? { versionNegotiation: { mode: { pin } } } : {};
  const mcp = new Client({ name: 'interop', version: '1' }, options);
  await mcp.connect(transport);
  const { tools } = await mcp.listTools();
  const results = {};
  for (const { name } of tools) {
    results[name] = (await mcp.callTool({ name, arguments: {} })).structuredContent;
  }
  await mcp.close();
  print({ requests, results });
}

main().then(() => process.exit(0), (error) => {
  process.stderr.write(`${error.stack}\n${JSON.stringify(requests)}\n`);
  process.exit(1);
});
