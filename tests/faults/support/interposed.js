// What a host is told by the library that is preloaded into it: another time of day, and what becomes of names.

import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';

import { HOST } from '../../gateway/support/hosts.js';
import { TARGET } from './scene.js';

export class FAULTS {
  static RESOLVES = 0;
  static IS_NOT_KNOWN = 1;
  static HANGS = 2;

  #file;

  /** `until` is what ends, and with it the file. */
  constructor(until) {
    const folder = join(TARGET, 'faults');
    mkdirSync(folder, { recursive: true });
    const library = join(folder, `interpose-${HOST}.so`);
    const own = `${library}.${process.pid}`;
    const source = join(import.meta.dirname, 'interpose.c');
    execFileSync('cc', ['-O1', '-Wall', '-Werror', '-shared', '-fPIC', source, '-ldl', '-o', own]);
    renameSync(own, library);
    const path = join(folder, `faults-${process.pid}`);
    this.#file = openSync(path, 'w+');
    writeSync(this.#file, Buffer.alloc(16), 0, 16, 0);
    this.environment = { LD_PRELOAD: library, TOKENWARD_FAULTS: path };
    until.after(() => {
      closeSync(this.#file);
      rmSync(path);
    });
  }

  /** How many seconds the time of day is ahead. */
  clock(seconds) {
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64LE(BigInt(seconds));
    writeSync(this.#file, bytes, 0, 8, 0);
  }

  names(what) {
    const bytes = Buffer.alloc(4);
    bytes.writeInt32LE(what);
    writeSync(this.#file, bytes, 0, 4, 8);
  }
}
