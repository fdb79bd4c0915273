// Measures verifiers for Node on the same tokens. Reads issuer, audience, tenant, keys and tokens as
// JSON from stdin, and prints a line of JSON for each verifier: nanoseconds for the same token and for
// new tokens.
import { createPublicKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const { issuer, audience, tenant, jwks, one, forged, fresh } = JSON.parse(readFileSync(0, 'utf8'));
const version = (name) => {
  const path = new URL(`./node_modules/${name}/package.json`, import.meta.url);
  return JSON.parse(readFileSync(path, 'utf8')).version;
};

async function appid() {
  const { APIStrategy } = require('ibmcloud-appid');
  require('log4js').configure({
    appenders: { none: { type: 'stderr', layout: { type: 'basic' } } },
    categories: { default: { appenders: ['none'], level: 'off' } },
  });
  const strategy = new APIStrategy({ oauthServerUrl: issuer, tenantId: tenant });
  return (token) => new Promise((resolve, reject) => {
    const request = Object.create(strategy);
    request.success = resolve;
    request.fail = reject;
    request.error = reject;
    request.authenticate({ header: () => `Bearer ${token}`, headers: { authorization: `Bearer ${token}` } }, {});
  });
}

async function jose() {
  const { createLocalJWKSet, jwtVerify } = await import('jose');
  const keys = createLocalJWKSet(jwks);
  return (token) => jwtVerify(token, keys, { issuer, audience, algorithms: ['RS256'] });
}

async function aws() {
  const { JwtVerifier } = await import('aws-jwt-verify');
  const verifier = JwtVerifier.create({ issuer, audience, jwksUri: `${issuer}/certs` });
  verifier.cacheJwks(jwks);
  return (token) => verifier.verifySync(token);
}

async function fast() {
  const { createVerifier } = require('fast-jwt');
  const key = createPublicKey({ key: jwks.keys[0], format: 'jwk' }).export({ type: 'spki', format: 'pem' });
  return createVerifier({
    key, algorithms: ['RS256'], allowedIss: issuer, allowedAud: audience, cache: 10_000,
  });
}

const median = (figures) => figures.sort((a, b) => a - b)[figures.length >> 1];

for (const [name, module, make] of [
  ['ibmcloud-appid, APIStrategy', 'ibmcloud-appid', appid],
  ['jose', 'jose', jose],
  ['aws-jwt-verify', 'aws-jwt-verify', aws],
  ['fast-jwt, cache on', 'fast-jwt', fast],
]) {
  const verify = await make();
  const accepts = async (token) => {
    try {
      await verify(token);
      return true;
    } catch {
      return false;
    }
  };
  if (!(await accepts(one)) || (await accepts(forged))) {
    throw new Error(`${name} accepts a forged token or rejects a good one`);
  }
  const round = async (tokens) => {
    const began = process.hrtime.bigint();
    for (const token of tokens) await verify(token);
    return Number(process.hrtime.bigint() - began) / tokens.length;
  };
  const same = [];
  const never = [];
  const size = Math.max(1, fresh.length >> 4);
  await round(Array(size).fill(one));
  for (let from = 0; from < fresh.length; from += size) {
    same.push(await round(Array(size).fill(one)));
    never.push(await round(fresh.slice(from, from + size)));
  }
  console.log(JSON.stringify({ name, version: version(module), same: median(same), never: median(never) }));
}
process.exit(0);
