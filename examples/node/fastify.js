// @ts-check
'use strict';
// A Fastify application behind Tokenward, which also passes a part of its paths on to an upstream.
//
//   node fastify.js CONFIG [PORT [UPSTREAM]]

const Fastify = require('fastify');
const httpProxy = require('@fastify/http-proxy');
const { Introspector } = require('tokenward');
const { proxyOptions, tokenward } = require('tokenward/fastify');

const [config = 'tokenward.json', port = '8080', upstream = 'http://127.0.0.1:9000'] = process.argv.slice(2);

async function main() {
  const app = Fastify();
  const introspector = Introspector.fromFile(config, { log: (line) => console.error(line.text) });
  const reports = introspector.policy({ require: { scopes: ['reports'] } });
  // First of all: hooks run in the order in which they are registered.
  await app.register(tokenward, { introspector });

  app.get('/health', { config: { tokenward: false } }, async () => 'ok');
  app.get('/orders', async ({ tokenward }) => ({
    consumer: tokenward?.consumer?.username ?? null,
    subject: tokenward?.claims?.sub ?? null,
  }));
  app.get('/reports', { config: { tokenward: { policy: reports } } }, async () => ({ reports: [] }));
  await app.register(httpProxy, { upstream, prefix: '/upstream', websocket: true, ...proxyOptions });

  console.log(`ready ${await app.listen({ port: Number(port), host: '127.0.0.1' })}`);
}

main().catch((error) => {
  console.error(String(error));
  process.exit(1);
});
