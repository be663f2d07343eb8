// A trivial Fastify application: bare, with a plugin that does nothing, with Tokenward, or with openid-client's introspection behind a
// Map that does the same checks and sets the same headers.
//
//   server.js bare|nothing|tokenward|openid-client ENDPOINT

import Fastify from 'fastify';

const [kind, endpoint] = process.argv.slice(2);
const app = Fastify();
const CONSUMER = { id: '7d3f0a52-5d3c-4a36-9a3b-6f1d5b5f0c11', username: 'alice', custom_id: 'customer-1' };

if (kind === 'nothing') {
  app.decorateRequest('identity', null);
  app.addHook('onRequest', (request, reply, next) => {
    request.identity = CONSUMER;
    next();
  });
} else if (kind === 'tokenward') {
  const { Introspector } = await import('tokenward');
  const { tokenward } = await import('tokenward/fastify');
  const config = { introspection_url: endpoint, authorization_value: 'Basic Z2F0ZXdheTpzZWNyZXQ=', ttl: 300 };
  const introspector = new Introspector(config, { consumers: [CONSUMER] });
  app.register(tokenward, { introspector });
} else if (kind === 'openid-client') {
  await peer();
}

async function peer() {
  const client = await import('openid-client');
  const config = new client.Configuration(
    { issuer: 'http://127.0.0.1', introspection_endpoint: endpoint },
    'gateway',
    'secret',
    client.ClientSecretBasic('secret'),
  );
  client.allowInsecureRequests(config);
  const consumers = new Map([[CONSUMER.username, CONSUMER]]);
  const cache = new Map();
  const flights = new Map();
  const MANAGED = /^x[-_.](?:consumer[-_.]|credential[-_.]|anonymous[-_.]consumer$)/i;
  const HEADERS = [
    ['scope', 'X-Credential-Scope'],
    ['client_id', 'X-Credential-Client-ID'],
    ['token_type', 'X-Credential-Token-Type'],
    ['exp', 'X-Credential-Exp'],
    ['iat', 'X-Credential-Iat'],
    ['nbf', 'X-Credential-Nbf'],
    ['sub', 'X-Credential-Sub'],
    ['aud', 'X-Credential-Aud'],
    ['iss', 'X-Credential-Iss'],
    ['jti', 'X-Credential-Jti'],
    ['username', 'X-Credential-Identifier'],
  ];

  app.decorateRequest('identity', null);
  app.addHook('onRequest', (request, reply, next) => {
    const raw = request.raw;
    let token;
    let lines = 0;
    for (let i = 0; i < raw.rawHeaders.length; i += 2) {
      if (raw.rawHeaders[i].length === 13 && raw.rawHeaders[i].toLowerCase() === 'authorization') {
        lines += 1;
        token = /^bearer +([A-Za-z0-9._~+/-]+=*)$/i.exec(raw.rawHeaders[i + 1].trim())?.[1];
      }
    }
    if (lines !== 1 || token === undefined) return refuse(reply);
    const entry = cache.get(token);
    if (entry !== undefined) {
      const now = Date.now() / 1000;
      if (entry.until > now) {
        if (!isGood(entry.answer, now)) return refuse(reply);
        pass(request, entry.answer);
        return next();
      }
      cache.delete(token);
    }
    ask(token).then(
      (answer) => {
        if (!isGood(answer, Date.now() / 1000)) return refuse(reply);
        pass(request, answer);
        next();
      },
      () => reply.code(503).send({ error: 'temporarily_unavailable' }),
    );
  });

  function ask(token) {
    let flight = flights.get(token);
    if (flight === undefined) {
      flight = client.tokenIntrospection(config, token).then((answer) => {
        if (cache.size >= 100_000) cache.delete(cache.keys().next().value);
        cache.set(token, { answer, until: Math.min(Date.now() / 1000 + 300, answer.exp ?? Infinity) });
        return answer;
      });
      flights.set(token, flight);
      const done = () => flights.delete(token);
      flight.then(done, done);
    }
    return flight;
  }

  const isGood = (answer, now) =>
    answer.active === true &&
    answer.cnf === undefined &&
    (answer.exp === undefined || answer.exp > now) &&
    (answer.nbf === undefined || answer.nbf <= now);

  function refuse(reply) {
    reply.code(401).header('WWW-Authenticate', 'Bearer realm="service"').send({ error: 'invalid_request' });
  }

  function pass(request, answer) {
    const { headers, rawHeaders } = request.raw;
    let kept = 0;
    for (let i = 0; i < rawHeaders.length; i += 2) {
      const name = rawHeaders[i];
      if (MANAGED.test(name) || (name.length === 13 && name.toLowerCase() === 'authorization')) {
        delete headers[name.toLowerCase()];
        continue;
      }
      rawHeaders[kept] = name;
      rawHeaders[kept + 1] = rawHeaders[i + 1];
      kept += 2;
    }
    rawHeaders.length = kept;
    const set = (name, value) => {
      rawHeaders.push(name, value);
      headers[name.toLowerCase()] = value;
    };
    const consumer = consumers.get(answer.username);
    if (consumer !== undefined) {
      set('X-Consumer-ID', consumer.id);
      set('X-Consumer-Custom-ID', consumer.custom_id);
      set('X-Consumer-Username', consumer.username);
    }
    for (const [claim, name] of HEADERS) {
      const value = answer[claim];
      if (value === undefined) continue;
      const text = String(value);
      if (/^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/.test(text)) set(name, text);
    }
    request.identity = { consumer, claims: answer };
  }
}

app.get('/', (request, reply) => {
  reply.send({ hello: 'world' });
});
await app.listen({ port: 0, host: '127.0.0.1' });
console.log(app.server.address().port);
