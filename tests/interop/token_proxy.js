// A reverse proxy that adds a bearer token, for a test suite that has none. Everything else passes
// unchanged, `Host` and `Origin` included.
//
//   PORT=… TARGET=http://127.0.0.1:… TOKEN=… node token_proxy.js
'use strict';

const http = require('node:http');
const { endWithParent, print, setting } = require('./modules.js');

const [target, token] = [new URL(setting('TARGET')), setting('TOKEN')];

const server = http.createServer((request, response) => {
  const forwarded = http.request({
    host: target.hostname,
    port: target.port,
    method: request.method,
    path: request.url,
    headers: [...request.rawHeaders, 'Authorization', `Bearer ${token}`],
    setHost: false,
  });
  forwarded.on('response', (answer) => {
    response.writeHead(answer.statusCode, answer.rawHeaders);
    answer.pipe(response);
  });
  forwarded.on('error', () => response.destroy());
  response.on('close', () => forwarded.destroy());
  request.pipe(forwarded);
});

endWithParent();
server.listen(Number(setting('PORT')), '127.0.0.1', () => print({ port: server.address().port }));
