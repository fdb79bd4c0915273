// An authorization server of another vendor: Better Auth with its OAuth provider, whose issuer has a
// path and signs with Ed25519. Prints the settings of client and resource server; then, for each
// line on stdin, adds a key that signs from then on, and prints its kid. Exits on SIGTERM or when
// stdin closes.
//
//   [PORT=0] node better_auth.js
'use strict';

const crypto = require('node:crypto');
const http = require('node:http');
const readline = require('node:readline');

const { endWithParent, importModule, print } = require('./modules.js');

const audience = 'https://reports.example/';

async function start() {
  const { betterAuth } = await importModule('better-auth');
  const { memoryAdapter } = await importModule('better-auth/adapters/memory');
  const { toNodeHandler } = await importModule('better-auth/node');
  const { createJwk, jwt } = await importModule('better-auth/plugins/jwt');
  const { oauthProvider } = await importModule('@better-auth/oauth-provider');

  // The issuer identifier contains the port, so the server listens first.
  const server = http.createServer();
  await new Promise((resolve, reject) => {
    server.once('error', reject).listen(Number(process.env.PORT || 0), '127.0.0.1', resolve);
  });
  const origin = `http://127.0.0.1:${server.address().port}`;
  const issuer = `${origin}/api/auth`;

  const models = ['user', 'session', 'account', 'verification', 'jwks', 'rateLimit', 'oauthClient',
    'oauthResource', 'oauthClientResource', 'oauthAccessToken', 'oauthRefreshToken',
    'oauthConsent', 'oauthClientAssertion'];
  const auth = betterAuth({
    baseURL: origin,
    basePath: '/api/auth',
    secret: crypto.randomBytes(32).toString('base64'),
    database: memoryAdapter(Object.fromEntries(models.map((model) => [model, []]))),
    emailAndPassword: { enabled: true },
    rateLimit: { enabled: false },
    telemetry: { enabled: false },
    plugins: [
      jwt(),
      oauthProvider({
        loginPage: '/login',
        consentPage: '/consent',
        clientPrivileges: () => true,
        scopes: ['openid', 'reports.read', 'reports.write'],
        enforcePerClientResources: false,
        resources: [audience],
        silenceWarnings: { oauthAuthServerConfig: true, openidConfig: true },
      }),
    ],
  });
  server.on('request', toNodeHandler(auth));

  // Clients belong to a user.
  const { headers } = await auth.api.signUpEmail({
    body: { name: 'Admin', email: 'admin@reports.example', password: crypto.randomUUID() },
    returnHeaders: true,
  });
  const client = await auth.api.adminCreateOAuthClient({
    headers: new Headers({ cookie: headers.get('set-cookie').split(';')[0] }),
    body: {
      client_name: 'caller',
      grant_types: ['client_credentials'],
      client_credentials_scopes: ['reports.read', 'reports.write'],
      token_endpoint_auth_method: 'client_secret_basic',
    },
  });
  const context = await auth.$context;
  readline.createInterface({ input: process.stdin }).on('line', async () => {
    const key = await createJwk({ context }, {});
    print({ kid: key.id });
  });
  print({
    issuer,
    clientId: client.client_id,
    clientSecret: client.client_secret,
    audience,
  });
}

endWithParent();
start().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
