// Every vector, replayed through the JavaScript API, each as a test of its own name.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { inspect } from 'node:util';

import { ConfigError, Introspector } from 'tokenward';

const VECTORS = join(import.meta.dirname, '../vectors');

/** Vectors that JavaScript cannot replay, by name, and why. */
const SKIPPED = {
  'consumers are not part of a bare configuration': 'a configuration of this package is a document, which may have them',
};

/** A string of one character for each byte. */
function bytes(value) {
  if (value === null) return null;
  if (typeof value === 'string') return Buffer.from(value).toString('latin1');
  if (Array.isArray(value)) return value.map(bytes).join('');
  if (value.hex !== undefined) return Buffer.from(value.hex, 'hex').toString('latin1');
  return bytes(value.text).repeat(value.times);
}
const pairs = (list) => list.map(([name, value]) => [bytes(name), bytes(value)]);

/** What the README says is filled in. */
function filledIn(vector, config) {
  if (vector.bare) return config;
  const given = { introspection_url: 'https://as.example/introspect' };
  if (!Object.hasOwn(config, 'client_auth')) given.authorization_value = 'Basic cnM6c2VjcmV0';
  const missing = Object.entries(given).filter(([name]) => !Object.hasOwn(config, name));
  return { ...Object.fromEntries(missing), ...config };
}

function load(vector, options) {
  const { kong, select, document, config_text, config = {}, consumers } = vector;
  const text = kong ?? config_text ?? document ?? filledIn(vector, config);
  return new Introspector(text, { consumers: consumers ?? (kong || document ? undefined : []), select, ...options });
}

function messages(found, expected) {
  assert.equal(found.length, expected.length, inspect(found));
  expected.forEach(({ path, contains = [], lacks = [] }, i) => {
    if (path !== undefined) assert.equal(found[i].path, path);
    const whole = `\`${found[i].path}\`: ${found[i].message}`;
    for (const part of contains) assert.ok(whole.includes(part), `${whole} does not contain ${part}`);
    for (const part of lacks) assert.ok(!whole.includes(part), `${whole} contains ${part}`);
  });
}

function claimAt(claims, pointer) {
  const names = pointer.split('/').slice(1);
  return names.reduce(
    (value, name) => value?.[name.replaceAll('~1', '/').replaceAll('~0', '~')],
    claims,
  );
}
/** BigInts as what a vector's own numbers have become. */
const plain = (value) => JSON.parse(JSON.stringify(value ?? null, (_, v) => (typeof v === 'bigint' ? Number(v) : v)));

function compare(step, expect) {
  const given = (what, seen) => {
    const part = expect[step.kind];
    if (Object.hasOwn(part, what)) assert.deepEqual(seen(), part[what], what);
  };
  const kinds = ['introspect', 'wait', 'allow', 'deny'].filter((kind) => Object.hasOwn(expect, kind));
  if (kinds.length === 0) return;
  assert.equal(step.kind, kinds[0], inspect(step));
  const expected = expect[step.kind];
  const same = (what, seen, wanted = expected[what]) => {
    if (Object.hasOwn(expected, what)) assert.deepEqual(seen, wanted, what);
  };
  if (step.kind === 'introspect') {
    for (const what of ['method', 'url']) same(what, step[what]);
    same('headers', step.headers, expected.headers && pairs(expected.headers));
    same('body', step.body, expected.body !== undefined && bytes(expected.body));
    given('time_left', () => Math.round(step.timeLeft * 1000) / 1000);
  } else if (step.kind === 'wait') {
    same('deadline', step.deadline);
  } else if (step.kind === 'allow') {
    same('source', step.source);
    const { type, consumer } = step.identity;
    same('identity', consumer ? { [type]: consumer.id } : type);
    same('set', step.edits.set.map((pair) => [...pair]), expected.set && pairs(expected.set));
    same('remove', [...step.edits.remove], expected.remove?.map(bytes));
    same('target', step.target, expected.target !== undefined && bytes(expected.target));
    same('body', step.body && step.body.toString('latin1'), expected.body !== undefined && bytes(expected.body));
    same('response_headers', step.responseHeaders.map((pair) => [...pair]));
    same('expires', step.expires);
    for (const [pointer, value] of Object.entries(expected.claims ?? {})) {
      assert.deepEqual(plain(claimAt(step.claims, pointer)), plain(value), pointer);
    }
  } else {
    for (const what of ['reason', 'number', 'status']) same(what, step[what]);
    same('headers', step.headers.map((pair) => [...pair]), expected.headers && pairs(expected.headers));
    same('body', step.body, expected.body !== undefined && bytes(expected.body));
  }
}

function replay(vector, said) {
  let now = { wall: 1000, monotonic: 1000 };
  const logged = [];
  const folder = mkdtempSync(join(tmpdir(), 'tokenward-vector-'));
  let introspector;
  try {
    for (const [name, content] of Object.entries(vector.files ?? {})) {
      writeFileSync(join(folder, name), Buffer.from(bytes(content), 'latin1'));
    }
    const log = (line) => {
      said.push(line.text, inspect(line));
      if (line.reason && line.level !== 'debug' && line.level !== 'info') logged.push(line.reason);
    };
    introspector = load(vector, { folder, env: vector.env ?? {}, log, logLevel: 'debug', clock: () => now });
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    said.push(error.message, inspect(error));
    const expected = vector.load?.errors ?? vector.load?.consumers_errors;
    assert.ok(expected, error.message);
    messages(error.problems, expected);
    return;
  } finally {
    rmSync(folder, { recursive: true });
  }
  assert.ok(!vector.load?.errors && !vector.load?.consumers_errors, 'loading succeeded');
  if (vector.load?.warnings) messages(introspector.warnings, vector.load.warnings);
  if (vector.load?.consumers) {
    const found = introspector.consumers.map(({ id, username, customId: custom_id, tags, groups }) => ({
      id, username, custom_id, tags, groups,
    }));
    assert.equal(found.length, vector.load.consumers.length);
    vector.load.consumers.forEach((one, i) => {
      for (const [name, value] of Object.entries(one)) assert.deepEqual(found[i][name], value);
    });
  }

  const [steps, begun, woken] = [new Map(), new Map(), []];
  let calls = 0;
  const keep = (name, step) => {
    said.push(inspect(step, { showHidden: true, depth: Infinity, getters: true }));
    steps.set(name, step);
    if (step.kind === 'introspect') calls += 1;
    if (step.kind === 'wait') step.onReady((ready) => woken.push([name, ready]));
    return step;
  };
  for (const [i, one] of (vector.steps ?? []).entries()) {
    const { at, expect = {} } = one;
    if (at !== undefined) now = typeof at === 'number' ? { wall: at, monotonic: at } : { wall: at.wall, monotonic: at.mono };
    try {
      logged.length = 0;
      let step;
      if (one.begin) {
        const begin = { ...begun.get(one.begin.like), ...one.begin };
        begun.set(begin.as, begin);
        const request = {
          method: bytes(begin.method ?? 'GET'),
          target: bytes(begin.target ?? '/'),
          rawHeaders: pairs(begin.headers ?? []).flat(),
          trailerNames: (begin.trailers ?? []).map(bytes),
        };
        const policy = begin.policy && introspector.policy(begin.policy);
        if (expect.needs_body !== undefined) assert.equal(introspector.needsBody(request, { policy }), expect.needs_body);
        const body = begin.body === undefined ? undefined : Buffer.from(bytes(begin.body), 'latin1');
        step = keep(begin.as, introspector.begin(request, { policy, body }));
      } else if (one.reply) {
        const { status = 200, headers = [['content-type', 'application/json']], body = '' } = one;
        const answer = { status, headers: pairs(headers), body: Buffer.from(bytes(body), 'latin1') };
        step = keep(one.reply, steps.get(one.reply).reply(answer));
      } else if (one.fail) step = keep(one.fail, steps.get(one.fail).fail(one.failure));
      else if (one.resume) step = keep(one.resume, steps.get(one.resume).resume());
      else if (one.drop) steps.get(one.drop).abandon();
      else if (one.forget !== undefined) {
        const forgotten = introspector.forget(bytes(one.forget));
        if (expect.forgotten !== undefined) assert.equal(forgotten, expect.forgotten);
      } else if (one.forget_all) introspector.forgetAll();
      else if (one.replace_consumers) introspector.replaceConsumers(one.replace_consumers);
      else introspector.replaceConfig(filledIn(vector, one.replace_config));

      if (step) compare(step, expect);
      const names = (ready) => woken.filter(([, one]) => one === ready).map(([name]) => name).sort();
      if (expect.ready) assert.deepEqual(names(true), expect.ready, 'ready');
      if (expect.let_go) assert.deepEqual(names(false), expect.let_go, 'let_go');
      woken.length = 0;
      if (expect.calls !== undefined) assert.equal(calls, expect.calls, 'calls');
      if (expect.log) assert.deepEqual(logged, expect.log, 'log');
      const counters = introspector.snapshot();
      for (const [name, value] of Object.entries(expect.snapshot ?? {})) {
        const seen = counters[name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase())];
        if (typeof value === 'object') for (const [of, count] of Object.entries(value)) assert.equal(seen[of], count, of);
        else assert.equal(seen, value, name);
      }
    } catch (error) {
      error.message = `step ${i}: ${error.message}`;
      throw error;
    }
  }
  said.push(inspect(introspector, { showHidden: true, depth: Infinity, getters: true }), introspector.metrics());
}

/** What must not be said by anything of ours. */
function* secrets({ env = {}, files = {}, kong, document, config = {}, steps = [] }) {
  yield* Object.values(env);
  if (!kong) {
    const { authorization_value, client_auth, introspection_params, custom_introspection_headers } = document ?? config;
    yield* [authorization_value, client_auth?.client_secret];
    for (const map of [introspection_params, custom_introspection_headers]) if (map && typeof map === 'object') yield* Object.values(map);
  }
  yield* Object.values(files).map(bytes);
  for (const { begin } of steps) {
    for (const [name, value] of begin?.headers ?? []) {
      if (bytes(name).toLowerCase() === 'authorization') yield bytes(value).split(/\s+/).at(-1);
    }
    yield* [.../access_token=([^&]+)/g[Symbol.matchAll](begin?.target ? bytes(begin.target) : '')].map(([, token]) => token);
  }
}

for (const file of readdirSync(VECTORS).filter((name) => name.endsWith('.json'))) {
  if (file === 'sentences.json' || file === 'elsewhere.json') continue;
  for (const vector of JSON.parse(readFileSync(join(VECTORS, file)))) {
    test(`${file.slice(0, -5)}: ${vector.name}`, { skip: SKIPPED[vector.name] }, () => {
      const said = [];
      replay(vector, said);
      for (const secret of secrets(vector)) {
        if (typeof secret !== 'string' || secret.length < 6 || /^bearer$/i.test(secret)) continue;
        assert.ok(!said.some((text) => text.includes(secret)), `\`${secret}\` was said`);
      }
    });
  }
}
