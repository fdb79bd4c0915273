// Loads the npm packages, which install.sh installs outside of the tracked tree.
'use strict';

const { createRequire } = require('node:module');
const path = require('node:path');
const { pathToFileURL } = require('node:url');

const installed = process.env.INTEROP_DIR || path.join(__dirname, '..', '..', 'target', 'interop');
const load = createRequire(path.join(path.resolve(installed), 'package.json'));

// The App ID SDK. By default it logs to stdout, which is reserved for the output of these programs.
function appId() {
  process.env.LOG4JS_CONFIG ||= path.join(__dirname, 'log4js.json');
  return load('ibmcloud-appid');
}

// Loads an ECMAScript module; `require` does not support that on every Node 20.
function importModule(name) {
  return import(pathToFileURL(load.resolve(name)).href);
}

// The value of an environment variable; exits if it is not set.
function setting(name) {
  const value = process.env[name];
  if (!value) {
    process.stderr.write(`${name} is missing\n`);
    process.exit(2);
  }
  return value;
}

// Exits on SIGTERM, or when stdin closes because the parent process has exited.
function endWithParent() {
  const end = () => process.exit(0);
  process.on('SIGTERM', end);
  process.stdin.on('end', end).on('close', end).on('error', end).resume();
}

// Prints one line of JSON to stdout.
function print(value) {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

module.exports = { appId, endWithParent, importModule, load, print, setting };
