'use strict';
// Headers on their way to an upstream.

const { Allow } = require('./decision.js');
const native = require('./native.js');

/** Headers of a single connection (RFC 9110 §7.6.1), whether or not `Connection` lists them. */
const HOP_BY_HOP = new Set([
  'connection', 'keep-alive', 'proxy-authenticate', 'proxy-authorization', 'proxy-connection', 'te', 'trailer', 'transfer-encoding',
  'upgrade', 'http2-settings',
]);

/**
 * Headers in an object, those of the decision as lists of lines where there are several. What a client, or anybody on the way,
 * has put under the names that only Tokenward may set is gone. Without a decision nothing is set.
 */
function withLines(headers, allow) {
  const lines = {};
  const hides = allow instanceof Allow && Allow.hides(allow);
  for (const name of Object.keys(headers)) {
    if (native.isManaged(name) || (hides && name.toLowerCase() === 'authorization')) continue;
    lines[name] = headers[name];
  }
  if (allow instanceof Allow) {
    for (const [name, value] of allow.edits.set) {
      const key = name.toLowerCase();
      lines[key] = lines[key] === undefined ? value : [].concat(lines[key], value);
    }
  }
  return lines;
}

/** A value of `Connection` without the names that only Tokenward may set: whoever drops what is listed would drop them. */
const unlisted = (value) => value.split(',').filter((name) => !native.isManaged(name.trim())).join(',');

/** The lines for an upstream: without those of this connection, and edited. `null`: nobody was asked, and nothing is set. */
function forwardHeaders(rawHeaders, allow, { keep = [] } = {}) {
  if (allow !== null && !(allow instanceof Allow)) throw new TypeError('`allow` is no Allow and not null');
  const listed = new Set(HOP_BY_HOP);
  for (let i = 0; i < rawHeaders.length; i += 2) {
    if (rawHeaders[i].toLowerCase() !== 'connection') continue;
    for (const name of rawHeaders[i + 1].split(',')) listed.add(name.trim().toLowerCase());
  }
  for (const name of keep) listed.delete(name.toLowerCase());
  const hides = allow !== null && Allow.hides(allow);
  const lines = [];
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i];
    const lower = name.toLowerCase();
    // A request that was edited in place has our own lines here, and a client may list them: they come below.
    if (lower[0] === ':' || listed.has(lower) || native.isManaged(name) || (hides && lower === 'authorization')) continue;
    lines.push([name, lower === 'connection' ? unlisted(rawHeaders[i + 1]) : rawHeaders[i + 1]]);
  }
  if (allow !== null) for (const [name, value] of allow.edits.set) lines.push([name, value]);
  return lines;
}

module.exports = { forwardHeaders, withLines };
