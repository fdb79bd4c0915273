// The calling application of the App ID tutorial: the SDK's TokenManager obtains a token,
// validates it, and prints it. `getAppIdentityToken` of the tutorial is a wrapper in the SDK's
// README; the method is `getApplicationIdentityToken`.
//
//   OAUTH_SERVER_URL=… CLIENT_ID=… CLIENT_SECRET=… TENANT_ID=… node token_manager.js
'use strict';

const { appId, print, setting } = require('./modules.js');

const { TokenManager } = appId();
const tokenManager = new TokenManager({
  clientId: setting('CLIENT_ID'),
  tenantId: setting('TENANT_ID'),
  secret: setting('CLIENT_SECRET'),
  oauthServerUrl: setting('OAUTH_SERVER_URL'),
});

tokenManager.getApplicationIdentityToken().then(
  (context) => print(context),
  (error) => {
    process.stderr.write(`${error && error.stack ? error.stack : error}\n`);
    process.exitCode = 1;
  },
);
