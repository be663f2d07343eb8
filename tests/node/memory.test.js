// Heap and resident memory over 100 000 requests of every kind; steps that are forgotten are let go.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { promisify } from 'node:util';

const node = (code) =>
  promisify(execFile)(process.execPath, ['--expose-gc', '--import', `${import.meta.dirname}/support/register.js`, '--input-type=module', '--eval', code], {
    timeout: 120_000,
  });

const SETTING = `
  import { Introspector } from 'tokenward';
  const config = {
    introspection_url: 'https://as.example/', authorization_value: 'Basic eA==', ttl: 1,
    cache: { capacity: 500, negative_capacity: 500 }, token_from: ['header', 'query', 'body'], profile: 'kong',
  };
  const answers = { good: '{"active":true,"username":"alice"}', junk: '{"active":false}', odd: '[]' };
  const fetch = async (url, { body }) => {
    if (body.includes('fail')) throw Object.assign(new Error('no'), { code: 'ECONNREFUSED' });
    const kind = /token=([a-z]+)/.exec(body)[1];
    return new Response(answers[kind], { headers: { 'content-type': 'application/json' } });
  };
  const introspector = new Introspector(config, { consumers: [{ id: '1', username: 'alice' }], fetch, log() {} });
  const request = (token, fields) => ({ method: 'GET', url: '/', rawHeaders: ['Authorization', 'Bearer ' + token, 'X-Consumer-ID', '0'], ...fields });
  const settled = async () => {
    for (let i = 0; i < 5; i += 1) {
      gc();
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    gc();
  };
`;

test('heap and resident memory are flat over 100 000 requests of every kind', async () => {
  const code = `${SETTING}
    const form = ['Content-Type', 'application/x-www-form-urlencoded'];
    const kinds = [
      async () => introspector.check(request('good-1')),
      async (i) => introspector.check(request('good-' + i)),
      async (i) => introspector.check(request('junk-' + i)),
      async () => introspector.check(request('junk-1')),
      async (i) => introspector.check(request('odd-' + i)),
      async (i) => introspector.check(request('fail-' + i)),
      async () => introspector.check({ method: 'GET', url: '/', rawHeaders: [] }),
      async () => introspector.check(request('good-1', { url: '/?access_token=good-1&a=b' })),
      async () => introspector.check({ method: 'POST', url: '/', rawHeaders: form }, { body: 'access_token=good-1&a=b' }),
      async () => introspector.check(request('a b')),
      async (i) => { introspector.begin(request('good-' + i)).abandon?.(); },
      async (i) => {
        const controller = new AbortController();
        const check = introspector.check(request('good-x' + i), { signal: controller.signal });
        controller.abort();
        await check.catch(() => {});
      },
      async (i) => Promise.all([introspector.check(request('good-y' + i)), introspector.check(request('good-y' + i))]),
      async () => { const { edits, claims } = await introspector.check(request('good-1')); return edits && claims; },
      async () => introspector.check(request('good-1'), { policy: introspector.policy({ realm: 'a' }) }),
    ];
    const measured = [];
    for (let part = 0; part < 5; part += 1) {
      for (let i = 0; i < 20_000; i += 50) {
        await Promise.all(Array.from({ length: 50 }, (_, j) => kinds[(i + j) % kinds.length](part * 20_000 + i + j)));
      }
      await settled();
      const { heapUsed, rss, external } = process.memoryUsage();
      measured.push({ heap: heapUsed + external, rss });
    }
    console.log(JSON.stringify(measured));
  `;
  const { stdout, stderr } = await node(code);
  const measured = JSON.parse(stdout.trim().split('\n').at(-1));
  const [second, last] = [measured[1], measured.at(-1)];
  const what = `${JSON.stringify(measured)} ${stderr}`;
  assert.ok(last.heap - second.heap < 1 << 20, what);
  assert.ok(last.rss - second.rss < 16 << 20, what);
});

test('steps that nobody holds any more are let go', async () => {
  const code = `${SETTING}
    let woken = 0;
    (() => {
      for (let i = 0; i < 1000; i += 1) introspector.begin(request('good-' + i));
    })();
    const one = introspector.begin(request('good-0'));
    if (one.kind !== 'wait') throw new Error('it waits');
    one.onReady(() => (woken += 1));
    for (let i = 0; i < 50 && (introspector.snapshot().inFlight > 1 || woken === 0); i += 1) await settled();
    const next = one.resume();
    console.log(JSON.stringify([introspector.snapshot().inFlight, woken, next.kind]));
  `;
  const { stdout } = await node(code);
  assert.deepEqual(JSON.parse(stdout), [1, 1, 'introspect']);
});
