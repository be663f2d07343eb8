// Which host the suite is pointed at, and what a host does not do.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test as nodeTest } from 'node:test';

import { ROOT } from './parts.js';

/** A folder of `examples/` that has a program `run`. */
export const HOST = process.env.TOKENWARD_HOST ?? 'gateway';
assert.ok(existsSync(join(ROOT, 'examples', HOST, 'run')), `TOKENWARD_HOST: there is no examples/${HOST}/run`);

const NO_RELOAD = 'is configured once, when it starts';
const NO_UPGRADE = 'serves HTTP alone';

const RELOAD = [
  'new consumers take effect with a reload, and nobody is asked about again',
  'a reload that fails says why and changes nothing',
  'a reload with other credentials forgets what was answered to the old ones',
];
const UPGRADE = ['a WebSocket is begun like any request, and no other protocol is'];
const CONNECTION = 'Connection that lists what the request is made of is refused';

const each = (names, reason) => Object.fromEntries(names.map((name) => [name, reason]));

/** Tests that are skipped, by host: the test's name and why. A test that is renamed runs. */
const SKIPPED = {
  gateway: {},
  nginx: {
    'new consumers take effect with a reload, and nobody is asked about again':
      'starts new workers for a reload, and they know no answer yet: tests/nginx reloads',
    [CONNECTION]: 'passes on what Connection lists, all of it',
  },
  openresty: {
    ...each(RELOAD, NO_RELOAD),
    ...each(UPGRADE, NO_UPGRADE),
    [CONNECTION]: 'passes on what Connection lists, all of it',
  },
  python: {
    ...each(UPGRADE, NO_UPGRADE),
    'when the client that asks goes away, one that waits takes over':
      'lets the call go on for those who wait: tests/python cancels',
  },
  node: {},
};
const skipped = SKIPPED[HOST] ?? {};

/** How long a host may take to refuse a bad configuration, in milliseconds. */
export const REFUSES_WITHIN = HOST === 'gateway' ? 1_000 : 10_000;

/** `test` of node:test, but for what the host does not do. */
export function test(name, body) {
  return nodeTest(name, { skip: Object.hasOwn(skipped, name) && `${HOST} ${skipped[name]}` }, body);
}
