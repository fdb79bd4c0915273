// A client of another vendor, openid-client, that calls a resource which requires a recent login
// (RFC 9470): with a token that is too old, and with a fresh one. Prints the status of each
// response, and the challenge of the first as the library reads it.
//
//   RESOURCE=… OLD_TOKEN=… FRESH_TOKEN=… node step_up.js
'use strict';

const { importModule, print, setting } = require('./modules.js');

async function call() {
  const client = await importModule('openid-client');
  const resource = new URL(setting('RESOURCE'));
  const configuration = new client.Configuration({ issuer: resource.origin }, 'web');
  // The resource is on loopback, without TLS.
  client.allowInsecureRequests(configuration);
  const get = (token) => client.fetchProtectedResource(configuration, token, resource, 'GET');
  const refused = await get(setting('OLD_TOKEN')).then(
    () => { throw new Error('the old token is accepted'); },
    (error) => error);
  if (!(refused instanceof client.WWWAuthenticateChallengeError)) {
    throw refused;
  }
  const fresh = await get(setting('FRESH_TOKEN'));
  return { refused: refused.status, challenges: refused.cause, fresh: fresh.status };
}

call().then(print, (error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
});
