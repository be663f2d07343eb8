// An authorization server that is not ours: npm's oidc-provider, with opaque tokens in its own memory.

import { generateKeyPairSync } from 'node:crypto';
import http from 'node:http';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { request } from './client.js';
import { ROOT, close, listen, secrets } from './parts.js';

// tests/run installs the packages outside of the source tree, where `import` by name does not look.
const MODULES = process.env.TOKENWARD_NODE_MODULES ?? join(ROOT, 'target/node-gateway/node_modules');
const load = async (path) => (await import(pathToFileURL(join(MODULES, path)))).default;

const INTROSPECTION = '/token/introspection';
const INSPECTOR = 'inspector';
const application = { grant_types: ['client_credentials'], redirect_uris: [], response_types: [] };
const resourceServer = { grant_types: [], redirect_uris: [], response_types: [] };

/** Clients by id. */
const CLIENTS = [
  // Those that get tokens. Tokens of `hasty` live for three seconds.
  { client_id: 'reports', client_secret: 'reports-s3cret-of-the-application', ...application },
  { client_id: 'hasty', client_secret: 'hasty-s3cret-of-the-application', ...application },
  // Those that introspect.
  { client_id: 'gateway', client_secret: 'gateway-s3cret-of-the-gateway', ...resourceServer },
  { client_id: 'gate:way&1', client_secret: 's3c+r:t/&%41 x', ...resourceServer },
  { client_id: 'edge', client_secret: '%41s3c+r:t & x', ...resourceServer },
  {
    client_id: 'posting',
    client_secret: 'p&st=s3cret+of the-gateway',
    ...resourceServer,
    token_endpoint_auth_method: 'client_secret_post',
  },
  { client_id: INSPECTOR, client_secret: 'inspector-s3cret-of-the-tests', ...resourceServer },
];
const secretOf = Object.fromEntries(CLIENTS.map(({ client_id, client_secret }) => [client_id, client_secret]));
for (const secret of Object.values(secretOf)) secrets.add(secret);

const form = (text) => new URLSearchParams({ '': text }).toString().slice(1);

/** The value of an `Authorization` header by RFC 6749 §2.3.1. */
export function basic(id) {
  const value = Buffer.from(`${form(id)}:${form(secretOf[id])}`).toString('base64');
  secrets.add(value);
  return `Basic ${value}`;
}

/** `client_auth` for a client. */
export const clientAuth = (id, method = 'client_secret_basic') => ({
  method,
  client_id: id,
  client_secret: secretOf[id],
});

/**
 * Starts one. `calls` lists the introspection requests it got, `{ headers, status }`, but for those of `introspect`
 * itself. While `hold()` is in force they are not answered; it gives the function that lets them go on.
 *
 * `name` is that of its package: `oidc-provider-9`, the next major version, differs in what it says of JWTs.
 */
export async function startAuthorizationServer(name = 'oidc-provider') {
  const Provider = await load(`${name}/lib/index.js`);
  // Of our own class it is not warned of.
  const Memory = class extends (await load(`${name}/lib/adapters/memory_adapter.js`)) {};
  let server = http.createServer();
  const port = await listen(server);
  const url = `http://127.0.0.1:${port}`;
  const provider = new Provider(url, {
    adapter: Memory,
    clients: CLIENTS,
    clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'none'],
    scopes: ['api:read', 'api:write'],
    ttl: {
      AccessToken: 600,
      ClientCredentials: (_, token) => (token.clientId === 'hasty' ? 3 : 600),
      Grant: 600,
    },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      introspection: { enabled: true, allowedPolicy: async () => true },
      revocation: { enabled: true },
    },
    extraTokenClaims: async (_, token) =>
      token.kind === 'AccessToken' ? { username: token.accountId, team: { name: 'blue' } } : {},
    findAccount: async (_, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
    jwks: { keys: [generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' })] },
    cookies: { keys: ['unused'] },
  });

  const as = { url, endpoint: url + INTROSPECTION, calls: [], provider };
  let gate = Promise.resolve();
  provider.use(async (context, next) => {
    if (context.path !== INTROSPECTION || context.get('authorization') === basic(INSPECTOR)) return next();
    const call = { headers: context.headers, status: undefined };
    as.calls.push(call);
    await gate;
    await next();
    call.status = context.status;
  });
  const callback = provider.callback();
  server.on('request', callback);
  as.callback = callback;

  as.hold = () => {
    let release;
    gate = new Promise((resume) => (release = resume));
    return release;
  };
  as.stop = () => close(server);
  /** Accepts again, on the same port and with the same tokens. */
  as.start = async () => {
    if (server.listening) return;
    server = http.createServer(callback);
    await listen(server, port);
  };

  const post = async (path, id, parameters) => {
    const headers = [
      ['Authorization', basic(id)],
      ['Content-Type', 'application/x-www-form-urlencoded'],
    ];
    const answer = await request(url, {
      method: 'POST',
      path,
      headers,
      body: new URLSearchParams(parameters).toString(),
    });
    if (answer.status !== 200) throw new Error(`${path}: ${answer.status} ${answer.body}`);
    return answer;
  };
  const known = (token) => {
    secrets.add(token);
    return token;
  };

  /** A token of an application, by the client credentials grant. */
  as.applicationToken = async (id = 'reports', scope = 'api:read') => {
    const answer = await post('/token', id, { grant_type: 'client_credentials', scope });
    return known(answer.json().access_token);
  };
  /** A token of a user, as the code flow would give it at its end. */
  as.userToken = async (accountId, scope = 'openid api:read') => {
    const grant = new provider.Grant({ accountId, clientId: 'reports' });
    grant.addOIDCScope(scope);
    const grantId = await grant.save();
    const client = await provider.Client.find('reports');
    return known(
      await new provider.AccessToken({ accountId, client, grantId, scope, gty: 'authorization_code' }).save(),
    );
  };
  as.revoke = (token, id = 'reports') => post('/token/revocation', id, { token });
  /** What the server says of a token. */
  as.introspect = async (token) => (await post(INTROSPECTION, INSPECTOR, { token })).json();
  return as;
}
