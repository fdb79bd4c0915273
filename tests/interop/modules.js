// Finds the npm packages, which are installed outside of the tracked tree (see install.sh).
'use strict';

const { createRequire } = require('node:module');
const path = require('node:path');
const { pathToFileURL } = require('node:url');

const installed = process.env.INTEROP_DIR || path.join(__dirname, '..', '..', 'target', 'interop');
const load = createRequire(path.join(path.resolve(installed), 'package.json'));

// The App ID SDK. By itself it logs to stdout, which is for what these programs print.
function appId() {
  process.env.LOG4JS_CONFIG ||= path.join(__dirname, 'log4js.json');
  return load('ibmcloud-appid');
}

// A package that is an ECMAScript module; `require` does not take it on every Node 20.
function importModule(name) {
  return import(pathToFileURL(load.resolve(name)).href);
}

// The value of an environment variable; without it the program ends.
function setting(name) {
  const value = process.env[name];
  if (!value) {
    process.stderr.write(`${name} is missing\n`);
    process.exit(2);
  }
  return value;
}

// Ends the program when it is asked to, or when whoever started it is gone.
function endWithParent() {
  const end = () => process.exit(0);
  process.on('SIGTERM', end);
  process.stdin.on('end', end).on('close', end).on('error', end).resume();
}

// One line of JSON on stdout.
function print(value) {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

module.exports = { appId, endWithParent, importModule, load, print, setting };
