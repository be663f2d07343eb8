// Small things that every test needs: waiting without sleeping, folders, and what must never be seen in a log.

import { mkdtemp, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

export const ROOT = resolve(import.meta.dirname, '../../..');

/** Tokens and secrets of this process's tests. No output of the gateway may hold one. */
export const secrets = new Set();

/**
 * Asks `probe` again and again until it gives something true, which is returned. A deadline that passes is an error
 * that says what was waited for.
 */
export async function eventually(what, probe, { within = 10_000, every = 20 } = {}) {
  const deadline = performance.now() + within;
  for (;;) {
    const found = await probe();
    if (found) return found;
    if (performance.now() > deadline) throw new Error(`not within ${within} ms: ${what}`);
    await new Promise((resume) => setTimeout(resume, every));
  }
}

/** A folder that is gone at the end: `after` takes a function that is called then. */
export async function folder(after) {
  const path = await mkdtemp(join(tmpdir(), 'tokenward-'));
  after(() => rm(path, { recursive: true, force: true }));
  return path;
}

/** Listens on a port of the loopback interface, a free one if none is given, and gives the port. */
export function listen(server, port = 0) {
  return new Promise((resume, fail) => {
    server.once('error', fail);
    server.listen(port, '127.0.0.1', () => {
      server.off('error', fail);
      resume(server.address().port);
    });
  });
}

// Below the ports that the system gives to whoever asks for any: none of them is taken between two uses of one.
let next = 12_000 + ((process.pid * 37) % 18_000);

/** A port that is free now. */
export async function freePort() {
  for (;;) {
    const server = net.createServer();
    try {
      const port = await listen(server, next++);
      await new Promise((resume) => server.close(resume));
      return port;
    } catch (error) {
      if (error.code !== 'EADDRINUSE') throw error;
    }
  }
}

/** Ends a server and every connection to it. */
export function close(server) {
  return new Promise((resume) => {
    server.close(() => resume());
    server.closeAllConnections();
  });
}
