// A client of another vendor that finds the authorization server at the RFC 8414 location and
// requests a token with client credentials: oauth4webapi or openid-client. Prints the metadata's
// issuer and the token response.
//
//   LIBRARY=oauth4webapi|openid-client METHOD=client_secret_basic|client_secret_post \
//   ISSUER=… CLIENT_ID=… CLIENT_SECRET=… [SCOPE=…] node discovery_client.js
'use strict';

const { importModule, print, setting } = require('./modules.js');

const issuer = new URL(setting('ISSUER'));
const [clientId, secret] = [setting('CLIENT_ID'), setting('CLIENT_SECRET')];
const parameters = process.env.SCOPE ? { scope: process.env.SCOPE } : {};

// The library's implementation of METHOD.
function authentication({ ClientSecretBasic, ClientSecretPost }) {
  const methods = { client_secret_basic: ClientSecretBasic, client_secret_post: ClientSecretPost };
  return methods[setting('METHOD')](secret);
}

async function oauth4webapi() {
  const oauth = await importModule('oauth4webapi');
  // The development server is on loopback, without TLS.
  const insecure = { [oauth.allowInsecureRequests]: true };
  const found = await oauth.discoveryRequest(issuer, { ...insecure, algorithm: 'oauth2' });
  const server = await oauth.processDiscoveryResponse(issuer, found);
  const client = { client_id: clientId };
  const answer = await oauth.clientCredentialsGrantRequest(
    server, client, authentication(oauth), parameters, insecure);
  const token = await oauth.processClientCredentialsResponse(server, client, answer);
  return { issuer: server.issuer, token };
}

async function openidClient() {
  const client = await importModule('openid-client');
  const configuration = await client.discovery(
    issuer, clientId, undefined, authentication(client),
    { algorithm: 'oauth2', execute: [client.allowInsecureRequests] });
  const token = await client.clientCredentialsGrant(configuration, parameters);
  return { issuer: configuration.serverMetadata().issuer, token };
}

const libraries = { oauth4webapi, 'openid-client': openidClient };
libraries[setting('LIBRARY')]().then(print, (error) => {
  process.stderr.write(`${error.stack} ${error.cause ? JSON.stringify(error.cause) : ''}\n`);
  process.exitCode = 1;
});
