// How long the event loop stands, as far as it is this process that holds it up: a machine that is busy with others does that to
// everybody.

import { readFileSync } from 'node:fs';

/** For how long this thread could have run while others did, in milliseconds; 0 where the system does not say. */
function keptWaiting() {
  try {
    return Number(readFileSync('/proc/thread-self/schedstat', 'latin1').split(' ')[1]) / 1e6 || 0;
  } catch {
    return 0;
  }
}

/** Milliseconds that pass while this thread runs or sleeps, and not while it is kept waiting. */
export function ownTime() {
  for (let tries = 0; ; tries += 1) {
    const before = keptWaiting();
    const now = performance.now();
    if (keptWaiting() === before || tries === 10) return now - before;
  }
}

/** The longest time, in milliseconds, for which the event loop stood while `run` did, and what `run` gave. */
export async function heldUp(run) {
  const EVERY = 5;
  let [longest, last] = [0, ownTime()];
  const beat = () => {
    const now = ownTime();
    longest = Math.max(longest, now - last - EVERY);
    last = now;
  };
  const beating = setInterval(beat, EVERY);
  try {
    const result = await run();
    beat();
    return { longest, result };
  } finally {
    clearInterval(beating);
  }
}
