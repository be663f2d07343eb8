// @ts-check
'use strict';
// An Express application behind Tokenward.
//
//   node express.js CONFIG [PORT]

const express = require('express');
const { Introspector } = require('tokenward');
const { tokenward } = require('tokenward/express');

const introspector = Introspector.fromFile(process.argv[2] ?? 'tokenward.json', { log: (line) => console.error(line.text) });
const reports = introspector.policy({ require: { scopes: ['reports'] } });

const app = express();
app.use(
  tokenward(introspector, {
    exclude: '/health',
    // A path that wants more. The answer is remembered once, whichever policy looks at it. Express compares paths without regard to
    // case, and so does this.
    policy: (req) => (/^\/reports(?:[/?]|$)/i.test(req.url ?? '') ? reports : undefined),
  }),
);

app.get('/health', (req, res) => {
  res.send('ok');
});
app.get('/orders', (req, res) => {
  const { consumer, claims } = req.tokenward ?? {};
  res.json({ consumer: consumer?.username ?? null, subject: claims?.sub ?? null });
});
app.get('/reports', (req, res) => {
  res.json({ reports: [] });
});

const server = app.listen(Number(process.argv[3] ?? 8080), '127.0.0.1', () => {
  const address = /** @type {import('node:net').AddressInfo} */ (server.address());
  console.log(`ready http://127.0.0.1:${address.port}`);
});
