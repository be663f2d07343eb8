// A lookup on a hit called from JavaScript, and its parts: nanoseconds each, the median of several rounds.
//
//   lookup.js ENDPOINT

import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

import { Introspector } from 'tokenward';

const require = createRequire(import.meta.url);
const [endpoint] = process.argv.slice(2);
const config = { introspection_url: endpoint, authorization_value: 'Basic Z2F0ZXdheTpzZWNyZXQ=', ttl: 300 };
const introspector = new Introspector(config, { consumers: [{ id: '1', username: 'alice' }] });
const authorization = ['Authorization', 'Bearer 2YotnFZFEjr1zCsicMWpAA-2YotnFZFEjr1zCsicMWpAA'];
const few = ['Host', '127.0.0.1:8080', ...authorization];
const many = [
  ...['Host', 'gateway.example', 'User-Agent', 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0'],
  ...['Accept', 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8', 'Accept-Language', 'en-US,en;q=0.5'],
  ...['Accept-Encoding', 'gzip, deflate, br, zstd', 'Referer', 'https://shop.example/orders', 'Connection', 'keep-alive'],
  ...['Cookie', 'session=0123456789abcdef0123456789abcdef; theme=dark', 'Sec-Fetch-Dest', 'document', 'Sec-Fetch-Mode', 'navigate'],
  ...['Sec-Fetch-Site', 'same-origin', 'X-Forwarded-For', '203.0.113.7', 'X-Request-Id', '0123456789abcdef'],
  ...authorization,
];
// As a server has them: strings of their own, each time.
const fresh = (lines) => lines.map((part) => Buffer.from(part, 'latin1').toString('latin1'));
const pool = (lines) => Array.from({ length: 64 }, () => ({ method: 'GET', url: '/orders?page=2', rawHeaders: fresh(lines) }));

function measure(run, rounds = 15, times = 40_000) {
  const took = [];
  for (let round = 0; round < rounds; round += 1) {
    const began = process.hrtime.bigint();
    for (let i = 0; i < times; i += 1) run(i & 63);
    took.push(Number(process.hrtime.bigint() - began) / times);
  }
  return took.sort((a, b) => a - b)[rounds >> 1];
}
const line = (what, nanoseconds) => console.log(`${what.padEnd(72)} ${nanoseconds.toFixed(0).padStart(6)} ns`);

const lib = (name) => require(join(dirname(require.resolve('tokenward/package.json', { paths: module_paths() })), 'lib', name));
const native = lib('native.js');
const { credentialAt } = lib('counted.js');
function module_paths() {
  return [process.env.TOKENWARD_NODE_PROJECT ?? join(import.meta.dirname, '../../../target/node-tests')];
}

for (const [name, lines] of [['3 headers', ['Accept', '*/*', ...few]], ['14 headers', many]]) {
  const requests = pool(lines);
  const decision = await introspector.check(requests[0]);
  if (decision.kind !== 'allow') throw new Error('the token is good');
  line(`lookup on a hit, ${name}`, measure((i) => introspector.lookup(requests[i])));
  if (introspector.lookup(requests[1]).source !== 'cache') throw new Error('not a hit');
  line('  of that: finding the line that counts', measure((i) => credentialAt(requests[i].rawHeaders)));
  // Credentials of another scheme are decided about without the cache, what is left is the crossing.
  const glance = new native.NativeIntrospector({ text: JSON.stringify(config), env: {} }, 0).glancer();
  const others = fresh(Array.from({ length: 64 }, () => authorization[1].replace('Bearer', 'Basic')));
  line('  of that: crossing, reading the value, two clocks, a refusal without a token', measure((i) => glance(others[i], 0)));
  // Trailers are told of with the whole request alone.
  const whole = requests.map((request) => ({ ...request, trailerNames: [] }));
  line('the same, where all of the request counts', measure((i) => introspector.lookup(whole[i])));
  line('lookup, then the lines to set are looked at', measure((i) => introspector.lookup(requests[i]).edits.set.length));
}
line('a call of the addon that does nothing', measure(() => native.version()));
