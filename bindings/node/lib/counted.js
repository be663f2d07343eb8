'use strict';
// Which lines of a request count, at a glance. What counts is the core's to say; this may take too many lines for such, never too few.

const native = require('./native.js');

/**
 * By the low bits of a name's first character (the same in both cases): the least length of a name that counts, and as bits, the low
 * bits of its character at `PROBE`.
 */
const LEAST = new Int32Array(32).fill(0x7fffffff);
const PROBED = new Int32Array(32);
const PROBE = 4;

for (const beginning of native.countedHeaders()) {
  const first = beginning.charCodeAt(0) & 31;
  if (beginning.length <= PROBE) throw new Error('what counts cannot be told by its name');
  LEAST[first] = Math.min(LEAST[first], beginning.length);
  const probed = beginning[PROBE] === '-' ? '-_.' : beginning[PROBE];
  for (let i = 0; i < probed.length; i += 1) PROBED[first] |= 1 << (probed.charCodeAt(i) & 31);
}

const isAuthorization = (name) =>
  name.length === 13 && (name === 'Authorization' || name === 'authorization' || name.toLowerCase() === 'authorization');

/** Whether a name may be one that counts. */
function mayCount(name) {
  const first = name.charCodeAt(0) & 31;
  return name.length >= LEAST[first] && ((PROBED[first] >>> (name.charCodeAt(PROBE) & 31)) & 1) !== 0;
}

/** As the core has it. A name that is not of bytes is for the core to refuse. */
function isManaged(name) {
  try {
    return native.isManaged(name);
  } catch {
    return true;
  }
}

/** Where the only line is that counts, if it is an `Authorization`; -1 if others count as well, there is none, or these are no strings. */
function credentialAt(rawHeaders) {
  let at = -1;
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i];
    if (typeof name !== 'string') return -1;
    if (!mayCount(name)) continue;
    if (isAuthorization(name)) {
      if (at >= 0) return -1;
      at = i;
    } else if (isManaged(name)) {
      return -1;
    }
  }
  return at >= 0 && typeof rawHeaders[at + 1] === 'string' ? at : -1;
}

module.exports = { credentialAt, isAuthorization, mayCount };
