// An authorization server whose name stops resolving.

import assert from 'node:assert/strict';

import { FAULTS } from './support/interposed.js';
import { HOST, inTime, scenario, scene, sleep } from './support/scene.js';

let faults;
const here = scene({
  url: (as) => `http://as.tokenward.test:${as.port}/introspect`,
  fields: { allow_insecure_http: true },
  environment: (until) => (faults = new FAULTS(until)).environment,
});

const ONCE = ['nginx', 'openresty'];
/** The blocking client of Python's host takes an address for what it is this long. */
const KEPT = HOST === 'python' ? 5_200 : 200;

const forget = async (names) => {
  faults.names(names);
  here.as.cut();
  await sleep(KEPT);
};

/** Those that look the name up when they start need no name server until they are started again, or reloaded. */
async function once(names) {
  await forget(names);
  const answer = await here.ask(here.as.issue());
  assert.equal(answer.status, 200, answer.body);
  inTime(answer);
  if (HOST === 'nginx' && names === FAULTS.IS_NOT_KNOWN) {
    const from = here.host.stderr.length;
    here.host.signal('SIGHUP');
    await here.host.says(/the configuration stays as it was/);
    assert.match(here.host.stderr.slice(from), /host not found/);
    await here.isWell();
  }
  faults.names(FAULTS.RESOLVES);
  await here.isWell();
  return '200, by the address of its start';
}

scenario('the name resolves no longer', () =>
  ONCE.includes(HOST)
    ? once(FAULTS.IS_NOT_KNOWN)
    : here.endure({
        status: 503,
        reason: 'endpoint_unreachable',
        detail: 'failure=dns',
        begin: () => forget(FAULTS.IS_NOT_KNOWN),
        end: () => faults.names(FAULTS.RESOLVES),
        calls: 0,
      }),
);

scenario('the name server does not answer', () =>
  ONCE.includes(HOST)
    ? once(FAULTS.HANGS)
    : here.endure({
        status: 503,
        reason: 'endpoint_timed_out',
        detail: 'failure=timed_out',
        within: 'timeout',
        begin: () => forget(FAULTS.HANGS),
        end: () => faults.names(FAULTS.RESOLVES),
        calls: 0,
      }),
);
