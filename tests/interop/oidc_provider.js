// An authorization server of another vendor: oidc-provider, which issues RFC 9068 access tokens to
// one client. Prints the settings of client and resource server; exits on SIGTERM or when stdin
// closes. ALG selects the signature: RS256 (default), PS256, ES256, EdDSA.
//
// CLIENTS, an array of JSON, has more clients (RFC 7591 §2). CERTIFICATE and KEY, files of PEM,
// select https. A second port then accepts certificates of clients: the metadata name it in
// `mtls_endpoint_aliases`. CLIENT_CA is the authority of `tls_client_auth`.
//
//   [PORT=0] [ALG=ES256] [CLIENTS=[…]] [CERTIFICATE=… KEY=… CLIENT_CA=…] node oidc_provider.js
'use strict';

const crypto = require('node:crypto');
const { readFileSync } = require('node:fs');
const http = require('node:http');
const https = require('node:https');

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

// Through PEM: Node 20 can hang in the export of a key object whose generation is being collected.
function privateKey(kid, type, options) {
  const privateKeyEncoding = { type: 'pkcs8', format: 'pem' };
  const publicKeyEncoding = { type: 'spki', format: 'pem' };
  const encodings = { privateKeyEncoding, publicKeyEncoding };
  const { privateKey: pem } = crypto.generateKeyPairSync(type, { ...options, ...encodings });
  return { ...crypto.createPrivateKey(pem).export({ format: 'jwk' }), kid, use: 'sig' };
}

// Listens on loopback. Returns the port.
async function listen(server, port) {
  await new Promise((resolve, reject) => {
    server.once('error', reject).listen(port, '127.0.0.1', resolve);
  });
  return server.address().port;
}

// The algorithms of `private_key_jwt` that oidc-provider and OpenSSL know.
const assertionAlgorithms = ['RS', 'PS', 'ES'].flatMap((family) =>
  ['256', '384', '512'].map((size) => family + size),
);
assertionAlgorithms.push('EdDSA');

// The client's certificate proves who it is (RFC 8705 §2).
const mTLS = {
  enabled: true,
  tlsClientAuth: true,
  selfSignedTlsClientAuth: true,
  certificateBoundAccessTokens: true,
  getCertificate: (context) => context.socket.getPeerX509Certificate?.(),
  // Not for a self-signed certificate that CLIENT_CA does not have.
  certificateAuthorized: (context) => context.socket.authorized,
  certificateSubjectMatches: (context, property, expected) =>
    property === 'tls_client_auth_subject_dn' &&
    context.socket.getPeerX509Certificate().subject === expected,
};

async function start() {
  const { Provider, errors } = await importModule('oidc-provider');

  const { CERTIFICATE, KEY, CLIENT_CA } = process.env;
  const tls = CERTIFICATE && { cert: readFileSync(CERTIFICATE), key: readFileSync(KEY) };
  // The issuer identifier contains the port, so the server listens first.
  const server = tls ? https.createServer(tls) : http.createServer();
  const port = await listen(server, Number(process.env.PORT || 0));
  const issuer = tls ? `https://localhost:${port}` : `http://127.0.0.1:${port}`;
  const servers = [server];
  const discovery = {};
  if (tls) {
    const ca = readFileSync(CLIENT_CA);
    const requestCert = true;
    const mutual = https.createServer({ ...tls, ca, requestCert, rejectUnauthorized: false });
    const alias = `https://localhost:${await listen(mutual, 0)}`;
    servers.push(mutual);
    discovery.mtls_endpoint_aliases = { token_endpoint: `${alias}/token` };
  }

  const resourceServer = {
    audience,
    scope: 'reports.read reports.write',
    accessTokenTTL: 600,
    accessTokenFormat: 'jwt',
    jwt: { sign: { alg: process.env.ALG || 'RS256' } },
  };
  const provider = new Provider(issuer, {
    clients: [client, ...JSON.parse(process.env.CLIENTS || '[]')],
    clientAuthMethods: [
      'client_secret_basic',
      'private_key_jwt',
      ...(tls ? ['tls_client_auth', 'self_signed_tls_client_auth'] : []),
    ],
    discovery,
    jwks: {
      keys: [
        privateKey('rsa', 'rsa', { modulusLength: 2048 }),
        privateKey('p-256', 'ec', { namedCurve: 'P-256' }),
        privateKey('ed25519', 'ed25519'),
      ],
    },
    enabledJWA: {
      idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256', 'EdDSA'],
      clientAuthSigningAlgValues: assertionAlgorithms,
    },
    features: {
      ...(tls ? { mTLS } : {}),
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

  for (const each of servers) each.on('request', provider.callback());
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
