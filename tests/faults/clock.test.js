// The time of day jumps by an hour. Nothing that was remembered lasts longer for it, and no wait is any longer or shorter.

import assert from 'node:assert/strict';

import { assertRefused } from '../gateway/support/scene.js';
import { FAULTS } from './support/interposed.js';
import { inTime, scenario, scene, sleep } from './support/scene.js';

const HOUR = 3_600;
const TTL = 3;

let faults;
const here = scene({
  fields: { ttl: TTL },
  lifetime: 3 * HOUR,
  environment: (until) => (faults = new FAULTS(until)).environment,
});

const inSeconds = (seconds) => ({ exp: Math.ceil(Date.now() / 1000) + seconds });

async function allowed(...tokens) {
  for (const token of tokens) {
    const answer = await here.ask(token);
    assert.equal(answer.status, 200, answer.body);
    inTime(answer);
  }
}

/** Waits take as long as they do: `timeout`, for one who asks and for one who waits for that answer. */
async function waits() {
  here.as.fault = () => {};
  const token = here.as.issue();
  for (const answer of await Promise.all([here.ask(token), here.ask(token)])) {
    assertRefused(answer, 'unavailable');
    inTime(answer, { timeout: true });
  }
  here.as.heal();
  await here.isWell(token);
}

/** A question is under way while the clock jumps. */
async function across(seconds) {
  here.as.fault = ({ socket, honest }) => setTimeout(() => socket.write(Buffer.concat([honest.head, honest.body])), 400);
  const answers = Array.from({ length: 2 }, () => here.ask(here.as.issue()));
  await sleep(200);
  faults.clock(seconds);
  for (const { status, body } of await Promise.all(answers)) assert.equal(status, 200, body);
  here.as.heal();
}

scenario('the clock is set forward by an hour', async () => {
  const soon = here.as.issue('alice', inSeconds(HOUR / 2));
  const later = here.as.issue('alice', inSeconds(2 * HOUR));
  await allowed(soon, later);
  await across(HOUR);
  // Remembered or asked about again, it has expired.
  assertRefused(await here.ask(soon), 'invalid');
  assertRefused(await here.ask(soon), 'invalid');
  await allowed(later);
  await waits();
  faults.clock(0);
  await here.isWell(soon, later);
  return '401 once `exp` is over';
});

scenario('the clock is set back by an hour', async () => {
  const [brief, revoked] = [here.as.issue('alice', inSeconds(1)), here.as.issue('bob')];
  await allowed(brief, revoked);
  const cached = performance.now();
  here.as.revoke(revoked);
  await across(-HOUR);
  await waits();
  // An hour more by that clock, and both are over by the one that counts.
  await sleep(Math.max(0, TTL * 1_000 + 200 - (performance.now() - cached)));
  assertRefused(await here.ask(brief), 'invalid');
  assertRefused(await here.ask(revoked), 'invalid');
  await here.isWell();
  faults.clock(0);
  await here.isWell();
  return '401 once `ttl` or `exp` is over';
});
