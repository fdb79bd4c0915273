// A client library of another vendor, oauth4webapi or openid-client, that authenticates in the ways
// that the jobs on stdin describe. A job is one line of JSON, and so is the outcome of each.
//
//   LIBRARY=oauth4webapi|openid-client node client_library.js
//
// A job has the members
//
//   issuer, client_id, secret, and key: { pem, alg, kid }
//   methods     as the metadata name them, or client_secret_jwt; a client may use only one
//   grant       the grant_type, or introspection
//   parameters  of the request
//   header, claims  what differs in the assertion; null removes a member
//   unsigned    whether the assertion has alg none, and no signature
//   assertion   what is sent instead of an assertion of the library
//   form        what differs in the request when the credentials are in it
//
// With the jwt-bearer grant the assertion is the grant, and the client does not authenticate.
'use strict';

const readline = require('node:readline');
const { importModule, print, setting } = require('./modules.js');

const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';

// Sets members of an object, and removes those that are null.
function change(object, members = {}) {
  for (const [name, value] of Object.entries(members)) {
    if (value === null) {
      delete object[name];
    } else {
      object[name] = value;
    }
  }
}

// The library's methods of the job, one after the other.
async function authentication(library, jose, job) {
  const modify = {
    [library.modifyAssertion]: (header, claims) => {
      change(header, job.header);
      change(claims, job.claims);
    },
  };
  const key = async () => {
    const { pem, alg, kid } = job.key;
    return { key: await jose.importPKCS8(pem, alg), kid };
  };
  const methods = {
    client_secret_basic: () => library.ClientSecretBasic(job.secret),
    client_secret_jwt: () => library.ClientSecretJwt(job.secret, modify),
    client_secret_post: () => library.ClientSecretPost(job.secret),
    private_key_jwt: async () => library.PrivateKeyJwt(await key(), modify),
  };
  const steps = await Promise.all(job.methods.map((name) => methods[name]()));
  return async (server, client, body, headers) => {
    for (const step of steps) {
      await step(server, client, body, headers);
    }
    if (job.unsigned) {
      const claims = jose.decodeJwt(body.get('client_assertion'));
      body.set('client_assertion', new jose.UnsecuredJWT(claims).encode());
    }
    if (job.assertion) {
      body.set('client_assertion', job.assertion);
    }
  };
}

// The assertion that the library would authenticate with.
async function assertion(authenticate, job) {
  const body = new URLSearchParams();
  await authenticate({ issuer: job.issuer }, { client_id: job.client_id }, body, new Headers());
  return body.get('client_assertion');
}

// Adds what differs in the request.
function withForm(authenticate, job) {
  return async (server, client, body, headers) => {
    await authenticate(server, client, body, headers);
    for (const [name, value] of Object.entries(job.form ?? {})) {
      body.set(name, value);
    }
  };
}

async function oauth4webapi(oauth, job, authenticate) {
  // The development server is on loopback, without TLS.
  const insecure = { [oauth.allowInsecureRequests]: true };
  const issuer = new URL(job.issuer);
  const found = await oauth.discoveryRequest(issuer, { ...insecure, algorithm: 'oauth2' });
  const server = await oauth.processDiscoveryResponse(issuer, found);
  const client = { client_id: job.client_id };
  if (job.grant === 'introspection') {
    const { token } = job.parameters;
    const answer = await oauth.introspectionRequest(server, client, authenticate, token, insecure);
    return oauth.processIntrospectionResponse(server, client, answer);
  }
  if (job.grant === 'client_credentials') {
    const answer = await oauth.clientCredentialsGrantRequest(
      server, client, authenticate, job.parameters, insecure);
    return oauth.processClientCredentialsResponse(server, client, answer);
  }
  const answer = await oauth.genericTokenEndpointRequest(
    server, client, authenticate, job.grant, job.parameters, insecure);
  return oauth.processGenericTokenEndpointResponse(server, client, answer);
}

async function openidClient(client, job, authenticate) {
  const configuration = await client.discovery(
    new URL(job.issuer), job.client_id, undefined, authenticate,
    { algorithm: 'oauth2', execute: [client.allowInsecureRequests] });
  if (job.grant === 'introspection') {
    return client.tokenIntrospection(configuration, job.parameters.token);
  }
  if (job.grant === 'client_credentials') {
    return client.clientCredentialsGrant(configuration, job.parameters);
  }
  return client.genericGrantRequest(configuration, job.grant, job.parameters);
}

const libraries = { oauth4webapi, 'openid-client': openidClient };

async function run(library, jose, job) {
  let authenticate = await authentication(library, jose, job);
  if (job.grant === JWT_BEARER) {
    job.parameters.assertion = await assertion(authenticate, job);
    authenticate = library.None();
  }
  try {
    const send = libraries[setting('LIBRARY')];
    return { status: 200, body: await send(library, job, withForm(authenticate, job)) };
  } catch (error) {
    if (error instanceof library.WWWAuthenticateChallengeError) {
      const scheme = error.cause[0].scheme;
      return { status: error.status, challenge: scheme, body: await error.response.json() };
    }
    if (error instanceof library.ResponseBodyError) {
      return { status: error.status, body: error.cause };
    }
    throw error;
  }
}

async function main() {
  const library = await importModule(setting('LIBRARY'));
  const jose = await importModule('jose');
  for await (const line of readline.createInterface({ input: process.stdin })) {
    print(await run(library, jose, JSON.parse(line)));
  }
}

main().catch((error) => {
  process.stderr.write(`${error.stack} ${error.cause?.stack ?? ''}\n`);
  process.exitCode = 1;
});
