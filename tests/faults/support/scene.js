// A host between clients, an authorization server that may fail, and an upstream; what every scenario asks of it; and the table's cells.

import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { after, before, test } from 'node:test';

import { bearer, request } from '../../gateway/support/client.js';
import { startGateway } from '../../gateway/support/gateway.js';
import { HOST } from '../../gateway/support/hosts.js';
import { ROOT, eventually, secrets } from '../../gateway/support/parts.js';
import { assertRefused } from '../../gateway/support/scene.js';
import { managed, startUpstream } from '../../gateway/support/upstream.js';
import { AUTHORIZATION, Authority } from './authority.js';
import { SCENARIOS } from './scenarios.js';

export { HOST };
export const TARGET = process.env.CARGO_TARGET_DIR ?? join(ROOT, 'target');
const FOLDER = join(TARGET, 'faults');

/** `timeout` of every configuration here, in milliseconds. */
export const TIMEOUT = 2_000;
/** What a client may have to wait beyond that, or in all where nothing is waited for, on a machine that does much else: less than `TIMEOUT`. */
export const SLACK = 1_500;
/** `retry_after` of every configuration here. */
const RETRY_AFTER = '7';
export const CONSUMERS = ['alice', 'bob'].map((username, i) => ({ id: `${i + 1}`, username }));

const KIND = { 502: 'unusable', 503: 'unavailable' };
export const sleep = (milliseconds) => new Promise((resume) => setTimeout(resume, milliseconds));

/** Milliseconds that this process was kept from its work: on a machine that does much else a host is so as well. */
let stalled = 0;
let tick = performance.now();
setInterval(() => {
  const now = performance.now();
  stalled += Math.max(0, now - tick - 25);
  tick = now;
}, 10).unref();

/** A bound that was missed. Whoever misses it each time fails; once, on a machine that does much else, says nothing. */
export class Late extends Error {}

/** That an answer came at once; or, with `timeout`, once that was over and not before. */
export function inTime({ took, lasted }, { timeout = false, atLeast = timeout } = {}) {
  assert.ok(!atLeast || lasted > TIMEOUT - 50, `too early: ${lasted} ms`);
  if (took >= SLACK + (timeout ? TIMEOUT : 0)) throw new Late(`too late: ${took} ms`);
}

const cells = {};
after(() => {
  const folder = join(FOLDER, HOST);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, `${basename(process.argv[1], '.test.js')}.json`), JSON.stringify(cells, null, 1));
});

/** A scenario of the list, as a test. Its body gives the cell of the table; `skip` says why this host has none. */
export function scenario(title, body, skip = {}) {
  assert.ok(SCENARIOS.some((one) => one.title === title), `${title} is not in the list`);
  if (Object.hasOwn(skip, HOST)) cells[title] = `does not apply: ${skip[HOST]}`;
  test(`${HOST}: ${title}`, { skip: skip[HOST] ?? false, timeout: 120_000 }, async (t) => {
    for (let turn = 1; ; turn++) {
      try {
        cells[title] = await body(t);
        return;
      } catch (error) {
        if (!(error instanceof Late) || turn === 3) throw error;
        t.diagnostic(`${error.message}: once more`);
        await sleep(2_000);
      }
    }
  });
}

/**
 * What is started before the first test of a file, and ends after its last one. `context` makes the server one with TLS; `fields` and
 * `url` change the configuration; `environment` is the host's, `listen` where it listens; `lifetime` is that of tokens, in seconds.
 */
export function scene({ context, fields = {}, environment, url, listen, lifetime } = {}) {
  const here = {};
  const endings = [];
  const until = { after: (end) => endings.unshift(end) };

  before(async () => {
    here.as = await Authority.start({ context: typeof context === 'function' ? await context(until) : context });
    if (lifetime) here.as.lifetime = lifetime;
    // Longer than any host keeps one: that it closes one just before it is used again is no fault of this list.
    here.upstream = await startUpstream({ idle: 120_000 });
    here.config = {
      introspection_url: url?.(here.as) ?? here.as.url,
      authorization_value: AUTHORIZATION,
      timeout: TIMEOUT,
      retry_after: Number(RETRY_AFTER),
      ttl: 600,
      cache: { negative_ttl: 600 },
      consumers: CONSUMERS,
      ...(typeof fields === 'function' ? fields() : fields),
    };
    here.environment = typeof environment === 'function' ? environment(until) : environment;
    await here.start(await listen?.());
    // What is known before anything fails, and stays known meanwhile.
    [here.known, here.revoked] = [here.as.issue('bob'), here.as.issue('bob')];
    assert.equal((await here.ask(here.known)).status, 200);
    here.as.revoke(here.revoked);
    assertRefused(await here.ask(here.revoked), 'invalid');
  });
  after(async () => {
    here.as?.heal();
    const failures = [];
    for (const end of endings) await Promise.resolve(end()).catch((error) => failures.push(error));
    await Promise.all([here.as?.refuse(), here.upstream?.stop()]);
    if (failures.length > 0) throw failures[0];
  });

  here.start = async (listen) => {
    here.host = await startGateway(until, {
      config: here.config,
      upstream: here.upstream,
      admin: true,
      listen,
      environment: here.environment,
    });
  };

  /**
   * Sends a request with a token, and gives its answer with how long it `took`, less what this process was kept from its work. An answer that the token does not deserve fails
   * the test, whatever it was sent for: a token that is not good is never let in, and nobody is taken for somebody else.
   */
  here.ask = async (token, { path = '/', as = here.as } = {}) => {
    const [began, idle] = [performance.now(), stalled];
    const [before, answer] = [as.truth(token), await request(here.host.url, { path, headers: [bearer(token)] })];
    answer.lasted = performance.now() - began;
    answer.took = answer.lasted - (stalled - idle);
    if (answer.status === 200) {
      const truth = before ?? as.truth(token);
      assert.ok(truth, 'a token that is not good was let in');
      const consumer = CONSUMERS.find(({ username }) => username === truth.username);
      const headers = managed(answer.json());
      assert.equal(headers['x-credential-identifier'], truth.username);
      assert.equal(headers['x-consumer-username'], consumer?.username);
      assert.equal(headers['x-credential-exp'], String(truth.exp));
    }
    return answer;
  };

  /** That a good token is let in, and a bad one is not, at once. */
  here.isWell = async (...tokens) => {
    const all = [here.as.issue(), here.known, ...tokens];
    while (all.length > 0) {
      for (const answer of await Promise.all(all.splice(0, 8).map((token) => here.ask(token)))) {
        assert.equal(answer.status, 200, answer.body);
        inTime(answer);
      }
    }
    assertRefused(await here.ask(here.as.unknown()), 'invalid');
  };

  /**
   * A failure from its beginning to its end: three requests for one token that is good, one for a token that is not, and those for
   * tokens that are known. `begin` makes calls fail, `end` makes the server well again. Gives the cell.
   */
  here.endure = async ({ begin, end = () => {}, status, reason, detail, within, retryAfter = RETRY_AFTER, calls }) => {
    // One line a second is written for each reason.
    await sleep(Math.max(0, (here.quiet ?? 0) - performance.now()));
    const [fresh, unknown] = [here.as.issue(), here.as.unknown()];
    const from = here.host.stderr.length;
    let found;
    try {
      await begin();
      const asking = [fresh, fresh, fresh, unknown].map((token) => here.ask(token));
      const answers = await Promise.all([...asking, here.bystanders()]);
      for (const answer of answers.slice(0, 4)) {
        assert.equal(answer.status, status, `${answer.body}\n${here.host.stderr.slice(from)}`);
        assertRefused(answer, KIND[status]);
        assert.equal(answer.headers['retry-after'], status === 503 ? retryAfter : undefined);
        inTime(answer, { timeout: within === 'timeout' });
      }
      found = await here.says(from, reason, detail);
      if (calls !== undefined) assert.equal(here.as.calls.filter(({ token }) => token === unknown).length, calls);
    } finally {
      here.quiet = performance.now() + 1_050;
      here.as.heal();
      await end();
    }
    await here.isWell(fresh);
    return `${status} ${found.replace(/^failure=/, '').replace('=', ' ')}`;
  };

  /** Those who need nobody's answer have theirs. */
  here.bystanders = async () => {
    const [known, revoked] = await Promise.all([here.ask(here.known), here.ask(here.revoked)]);
    assert.equal(known.status, 200, known.body);
    inTime(known);
    assertRefused(revoked, 'invalid');
  };

  /** That a line of the log behind `from` names the reason and what went wrong, one of several things it may be. Gives that. */
  here.says = async (from, reason, ...details) => {
    const words = details.flat();
    const said = () => here.host.stderr.slice(from).split('\n').filter((line) => line.includes(`reason=${reason}`));
    const named = () => (words.length === 0 ? said()[0] : words.find((word) => said().some((line) => `${line} `.includes(`${word} `))));
    const found = await eventually(`${reason} ${words} is said`, named, { within: 3_000 }).catch((error) => {
      throw new Error(`${error.message}\n${here.host.stderr.slice(from)}`);
    });
    for (const secret of secrets) assert.ok(!here.host.stderr.includes(secret), 'a token or secret is in the log');
    return found;
  };
  return here;
}
