// All scenarios, in the order of the table. What a scenario does is in the test file of its group.

const IN_TIME = '`timeout`';
const AT_ONCE = 'at once';

/** By group: what happens, and within which time a client has its answer. */
export const GROUPS = {
  'The connection': {
    'connections are refused': AT_ONCE,
    'connections are not accepted, nor refused': IN_TIME,
    'it hangs before the headers': IN_TIME,
    'it hangs in the middle of the headers': IN_TIME,
    'it hangs in the middle of the body': IN_TIME,
    'the headers come a byte a second': IN_TIME,
    'the body comes a byte a second': IN_TIME,
    'it closes late, and hangs when it is asked again': IN_TIME,
    'the connection is reset before the answer': AT_ONCE,
    'the connection is reset in the middle of the headers': AT_ONCE,
    'the connection is reset in the middle of the body': AT_ONCE,
    'it closes after half of a body that looks whole': AT_ONCE,
    'idle connections are closed just before they are used again': AT_ONCE,
    'idle connections are reset just before they are used again': AT_ONCE,
    'more bytes than the answer has are left on the connection': AT_ONCE,
    'it hangs while there are more questions than places': IN_TIME,
  },
  'The answer': {
    'the answer is no HTTP': AT_ONCE,
    'the answer is a page in HTML': AT_ONCE,
    'the answer is half of a JSON document': AT_ONCE,
    'the answer is 100 MiB long, and says so': AT_ONCE,
    'the answer is 100 MiB long, in chunks': AT_ONCE,
    'the headers are 100 MiB long': AT_ONCE,
    'the body is coded with gzip': AT_ONCE,
    'the body is 100 MiB once it is decoded': AT_ONCE,
    'the status is 500, and then 200 again': AT_ONCE,
    'the status is 429, with `Retry-After: 17`': AT_ONCE,
    'the status is 503, with a date in `Retry-After`': AT_ONCE,
    'the status is 429, with `Retry-After: 86400`': AT_ONCE,
    'the status is 401': AT_ONCE,
    'the status is 302, to where the answer is yes': AT_ONCE,
  },
  TLS: {
    'the certificate is of another name': AT_ONCE,
    'the certificate has expired': AT_ONCE,
    'the certificate is of an unknown issuer': AT_ONCE,
    'it hangs in the handshake': IN_TIME,
    'it speaks no TLS': AT_ONCE,
  },
  'Its name': {
    'the name resolves no longer': AT_ONCE,
    'the name server does not answer': IN_TIME,
  },
  'The clock': {
    'the clock is set forward by an hour': AT_ONCE,
    'the clock is set back by an hour': AT_ONCE,
  },
  'The host': {
    'the configuration is reloaded under load': AT_ONCE,
    'it is killed under load, and started again': AT_ONCE,
    'its worker is killed under load': AT_ONCE,
    'it runs out of file descriptors': AT_ONCE,
    'its memory is limited': IN_TIME,
  },
};

export const SCENARIOS = Object.entries(GROUPS).flatMap(([group, all]) =>
  Object.entries(all).map(([title, within]) => ({ group, title, within })),
);
export const HOSTS = ['gateway', 'nginx', 'openresty', 'python', 'node'];
