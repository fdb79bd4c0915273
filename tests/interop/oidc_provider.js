// An authorization server of another vendor: oidc-provider, which issues RFC 9068 access tokens to
// one client. Prints the settings of client and resource server; exits on SIGTERM or when stdin
// closes. ALG selects the signature: RS256 (default), PS256, ES256, EdDSA.
//
//   [PORT=0] [ALG=ES256] node oidc_provider.js
'use strict';

const crypto = require('node:crypto');
const http = require('node:http');

const { endWithParent, importModule, print } = require('./modules.js');

const audience = 'https://reports.example/';
const client = {
  client_id: 'interop:caller',
  // Every character that RFC 6749 §2.3.1 requires to be form-urlencoded in Basic credentials.
  client_secret: `${crypto.randomBytes(24).toString('base64')}+/=:%&`,
  token_endpoint_auth_method: 'client_secret_basic',
  grant_types: ['client_credentials'],
  response_types: [],
  redirect_uris: [],
};

function privateKey(kid, type, options) {
  const { privateKey: key } = crypto.generateKeyPairSync(type, options);
  return { ...key.export({ format: 'jwk' }), kid, use: 'sig' };
}

async function start() {
  const { Provider, errors } = await importModule('oidc-provider');

  // The issuer identifier contains the port, so the server listens first.
  const server = http.createServer();
  await new Promise((resolve, reject) => {
    server.once('error', reject).listen(Number(process.env.PORT || 0), '127.0.0.1', resolve);
  });
  const issuer = `http://127.0.0.1:${server.address().port}`;

  const resourceServer = {
    audience,
    scope: 'reports.read reports.write',
    accessTokenTTL: 600,
    accessTokenFormat: 'jwt',
    jwt: { sign: { alg: process.env.ALG || 'RS256' } },
  };
  const provider = new Provider(issuer, {
    clients: [client],
    jwks: {
      keys: [
        privateKey('rsa', 'rsa', { modulusLength: 2048 }),
        privateKey('p-256', 'ec', { namedCurve: 'P-256' }),
        privateKey('ed25519', 'ed25519'),
      ],
    },
    enabledJWA: { idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256', 'EdDSA'] },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => audience,
        getResourceServerInfo: (_context, resource) => {
          if (resource !== audience) throw new errors.InvalidTarget();
          return resourceServer;
        },
      },
    },
  });
  provider.on('server_error', (_context, error) => process.stderr.write(`${error.stack}\n`));

  server.on('request', provider.callback());
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
