// The protected resource of the App ID tutorial, step 3: express and passport with the
// SDK's APIStrategy. Prints its URL; exits on SIGTERM or when stdin closes.
//
//   OAUTH_SERVER_URL=… TENANT_ID=… [PORT=0] [SCOPE=…] [AUDIENCE=…] node api_strategy.js
'use strict';

const { appId, endWithParent, load, print, setting } = require('./modules.js');

const { APIStrategy } = appId();
const express = load('express');
const passport = load('passport');

const app = express();
app.use(passport.initialize());

passport.use(new APIStrategy({
  oauthServerUrl: setting('OAUTH_SERVER_URL'),
  tenantId: setting('TENANT_ID'),
}));

// Beyond the tutorial: the strategy's two options, for a route with more requirements.
const options = { session: false };
if (process.env.SCOPE) options.scope = process.env.SCOPE;
if (process.env.AUDIENCE) options.audience = process.env.AUDIENCE;

app.get('/protected_resource',
  passport.authenticate(APIStrategy.STRATEGY_NAME, options),
  (req, res) => {
    res.send('Hello from protected resource');
  });

const server = app.listen(Number(process.env.PORT || 0), '127.0.0.1', () => {
  print({ listening: `http://127.0.0.1:${server.address().port}` });
});
endWithParent();
