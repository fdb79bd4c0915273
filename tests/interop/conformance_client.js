// Runs the example `mcp_client`, whose path is in PROGRAM, for a scenario of the conformance suite:
// the URL is the argument, and the credentials are in MCP_CONFORMANCE_CONTEXT. An operator knows the
// issuer; here it is read from the metadata of the server.

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

async function main() {
  const url = process.argv[2];
  const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT);
  const metadata = new URL(url);
  metadata.pathname = `/.well-known/oauth-protected-resource${metadata.pathname}`;
  const document = await (await fetch(metadata)).json();
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tower-oauth-'));
  const file = (name, text) => {
    fs.writeFileSync(path.join(folder, name), text, { mode: 0o600 });
    return path.join(folder, name);
  };
  const env = { PATH: process.env.PATH, ISSUER: document.authorization_servers[0] };
  if (context.valid_jwt) {
    env.GRANT_ASSERTION_FILE = file('assertion', context.valid_jwt);
  } else {
    env.CLIENT_ID = context.client_id;
  }
  if (context.client_secret) {
    env.CLIENT_SECRET = context.client_secret;
  }
  if (context.private_key_pem) {
    env.CLIENT_AUTHENTICATION = 'private_key_jwt';
    env.CLIENT_KEY_FILE = file('key.pem', context.private_key_pem);
    env.CLIENT_KEY_ALGORITHM = context.signing_algorithm;
  }
  const { status } = spawnSync(process.env.PROGRAM, [url], { env, stdio: 'inherit' });
  fs.rmSync(folder, { recursive: true });
  process.exit(status ?? 1);
}

main();
