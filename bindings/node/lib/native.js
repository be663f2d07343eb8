'use strict';
// The addon: the package of this platform, or what stands beside this one in the source tree.

const { existsSync } = require('node:fs');
const { join } = require('node:path');

function platform() {
  if (process.platform !== 'linux') return `${process.platform}-${process.arch}`;
  // Without this the report looks names up for every socket.
  const { excludeNetwork } = process.report;
  process.report.excludeNetwork = true;
  const { glibcVersionRuntime } = process.report.getReport().header;
  process.report.excludeNetwork = excludeNetwork;
  return `linux-${process.arch}-${glibcVersionRuntime ? 'gnu' : 'musl'}`;
}

function load() {
  const name = platform();
  const beside = join(__dirname, '..', 'npm', name, `tokenward.${name}.node`);
  if (existsSync(beside)) return require(beside);
  try {
    return require(`@tokenward/node-${name}`);
  } catch (error) {
    throw new Error(
      `tokenward has no addon for ${name}: its package @tokenward/node-${name} is not installed ` +
        '(optional dependencies may have been left out), or does not exist for this platform',
      { cause: error },
    );
  }
}

const native = load();
const { version } = require('../package.json');
if (native.version() !== version) {
  throw new Error(`tokenward ${version} found an addon of version ${native.version()}`);
}

module.exports = native;
