// The processes of a host, from outside.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';

import { eventually } from '../../gateway/support/parts.js';

/** The process and all of its descendants. */
export function processes(pid) {
  const all = [pid];
  for (const one of all) {
    const tasks = `/proc/${one}/task`;
    if (!existsSync(tasks)) continue;
    for (const task of readdirSync(tasks)) {
      const children = readFileSync(`${tasks}/${task}/children`, 'utf8').trim();
      if (children) all.push(...children.split(' ').map(Number));
    }
  }
  return all;
}

function command(pid) {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
  } catch {
    return '';
  }
}

/** Those that serve requests: nginx's workers, but those that are on their way out, or the one that there is. */
export function serving(pid) {
  const all = processes(pid);
  if (all.some((one) => command(one).startsWith('nginx: '))) {
    return all.filter((one) => /^nginx: worker process *$/.test(command(one)));
  }
  assert.equal(all.length, 1, all.map(command).join('\n'));
  return all;
}

/** A line of /proc/PID/status, in bytes. */
export const memory = (pid, name) =>
  Number(new RegExp(`^${name}:\\s*(\\d+) kB`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) * 1024;

/** The number below which so many are left for files. */
export function descriptors(pid, free = 1) {
  const open = new Set(readdirSync(`/proc/${pid}/fd`).map(Number));
  let number = -1;
  while (free > 0) if (!open.has((number += 1))) free -= 1;
  return number;
}

/** Sets a limit of a process (`nofile`, `as`), and gives what it was. */
function limit(pid, name, value) {
  const prlimit = (...more) => execFileSync('prlimit', ['--pid', `${pid}`, ...more], { encoding: 'utf8', stdio: 'pipe' }).trim();
  const was = prlimit(`--${name}`, '--output=SOFT', '--noheadings');
  prlimit(`--${name}=${value}:`);
  return was;
}

/**
 * Limits what the process may take that serves a host's requests: `value` is a function of its number. A worker of another user's is
 * replaced by one that has the limit from its master. Gives that process and the function that takes the limit off again.
 */
export async function limited(host, name, value) {
  const [pid] = serving(host.pid);
  try {
    const was = limit(pid, name, value(pid));
    return { pid, lift: () => limit(pid, name, was) };
  } catch (error) {
    const master = Number(/^PPid:\s*(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]);
    if (!/Operation not permitted/.test(error.stderr) || !command(master).startsWith('nginx: master')) throw error;
    const was = limit(master, name, value(pid));
    process.kill(pid, 'SIGKILL');
    const next = await eventually('there is another worker', () => serving(host.pid).find((one) => one !== pid));
    return { pid: next, lift: () => limit(master, name, was) };
  }
}
