// A client of another vendor that knows nothing but the URL of a protected resource and its own
// credentials: oauth4webapi. From the bare 401 it finds the document of the resource (RFC 9728),
// the authorization server (RFC 8414), a token for the resource (RFC 8707), and calls it again.
// Prints what it found.
//
//   RESOURCE=… CLIENT_ID=… CLIENT_SECRET=… node resource_client.js
'use strict';

const { importModule, print, setting } = require('./modules.js');

const resource = setting('RESOURCE');
const clientId = setting('CLIENT_ID');

async function run() {
  const oauth = await importModule('oauth4webapi');
  // The servers are on loopback, without TLS.
  const insecure = { [oauth.allowInsecureRequests]: true };
  const authentication = oauth.ClientSecretBasic(setting('CLIENT_SECRET'));

  // The library always sends a token, so this removes it. The library parses the challenge.
  const bare = (url, { headers: { authorization, ...headers }, ...init }) =>
    fetch(url, { ...init, headers });
  const refused = await oauth.protectedResourceRequest(
    'none', 'GET', new URL(resource), undefined, undefined,
    { ...insecure, [oauth.customFetch]: bare },
  ).then(() => { throw new Error('200 without a token'); }, (error) => error);
  if (!(refused instanceof oauth.WWWAuthenticateChallengeError)) throw refused;
  const challenges = refused.cause;

  let place;
  const located = (url, init) => { place = url; return fetch(url, init); };
  const identifier = new URL(resource);
  const described = await oauth.resourceDiscoveryRequest(
    identifier, { ...insecure, [oauth.customFetch]: located });
  const document = await oauth.processResourceDiscoveryResponse(identifier, described);

  const issuer = new URL(document.authorization_servers[0]);
  const found = await oauth.discoveryRequest(issuer, { ...insecure, algorithm: 'oauth2' });
  const server = await oauth.processDiscoveryResponse(issuer, found);
  const client = { client_id: clientId };
  const parameters = { resource: document.resource, scope: challenges[0].parameters.scope };
  const answer = await oauth.clientCredentialsGrantRequest(
    server, client, authentication, parameters, insecure);
  const token = await oauth.processClientCredentialsResponse(server, client, answer);

  const called = await oauth.protectedResourceRequest(
    token.access_token, 'GET', new URL(resource), undefined, undefined, insecure);
  print({
    refused: refused.status,
    challenges,
    place,
    document,
    scope: token.scope,
    status: called.status,
    body: await called.text(),
  });
}

run().catch((error) => {
  process.stderr.write(`${error.stack} ${error.cause ? JSON.stringify(error.cause) : ''}\n`);
  process.exitCode = 1;
});
