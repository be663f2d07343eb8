// An authorization server that knows every token but those that begin with `junk`: for measurements.

import http from 'node:http';

const now = Math.floor(Date.now() / 1000);
const answer = JSON.stringify({
  active: true,
  scope: 'orders:read orders:write',
  client_id: 'orders-app',
  username: 'alice',
  token_type: 'Bearer',
  exp: now + 86_400,
  iat: now,
  sub: 'alice',
  iss: 'https://as.example',
});

http
  .createServer((req, res) => {
    let body = '';
    req.on('data', (chunk) => (body += chunk));
    req.on('end', () => {
      res.writeHead(200, { 'Content-Type': 'application/json' });
      res.end(body.includes('token=junk') ? '{"active":false}' : answer);
    });
  })
  .listen(0, '127.0.0.1', function listening() {
    console.log(this.address().port);
  });
