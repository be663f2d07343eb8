// Every vector that HTTP can tell, through a real nginx: its requests are sent, its replies are those of a real server.
//
// The list of vectors that are left out is computed: each has a reason, and the reasons are counted.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { describe, test } from 'node:test';

import { ROOT, eventually, listen } from '../gateway/support/parts.js';
import { check, start } from './support/nginx.js';

const FOLDER = join(ROOT, 'tests/vectors');
const AS = 'https://as.example';
const TARGET = process.env.CARGO_TARGET_DIR ?? join(ROOT, 'target');
const CLOCK = join(TARGET, 'nginx-tests/fixed_clock.so');

mkdirSync(join(TARGET, 'nginx-tests'), { recursive: true });
execFileSync('cc', ['-shared', '-fPIC', '-O1', '-o', CLOCK, join(import.meta.dirname, 'support/fixed_clock.c')]);

const vectors = readdirSync(FOLDER)
  .filter((name) => name.endsWith('.json') && !['sentences.json', 'elsewhere.json'].includes(name))
  .flatMap((name) => JSON.parse(readFileSync(join(FOLDER, name), 'utf8')));

/** A value of a vector as bytes. */
function bytes(value) {
  if (typeof value === 'string') return Buffer.from(value);
  if (Array.isArray(value)) return Buffer.concat(value.map(bytes));
  if ('hex' in value) return Buffer.from(value.hex, 'hex');
  return Buffer.from(value.text.repeat(value.times));
}
const latin = (value) => bytes(value).toString('latin1');

/** The exact text of a vector's configuration, with what is filled in. */
function text(vector) {
  if (vector.kong !== undefined) return vector.kong;
  if (vector.config_text !== undefined) return vector.config_text;
  if (vector.document) return JSON.stringify(vector.document);
  const config = vector.config ?? {};
  if (vector.bare) return JSON.stringify(config);
  const filled = {};
  if (!('introspection_url' in config)) filled.introspection_url = `${AS}/introspect`;
  if (!('authorization_value' in config) && !('client_auth' in config)) filled.authorization_value = 'Basic cnM6c2VjcmV0';
  return JSON.stringify({ ...filled, ...config });
}

const ACTIONS = ['begin', 'reply', 'fail', 'resume', 'drop', 'forget', 'forget_all', 'replace_consumers', 'replace_config'];
const action = (step) => ACTIONS.find((name) => name in step);
const FAILURES = { closed: 1, cut_off: 1, too_long: 1, protocol: 1 };

/** The members of a begin, with those of the one that it is like. */
function request(vector, step) {
  const { begin } = step;
  const like = begin.like && vector.steps.find((one) => one.begin?.as === begin.like);
  return like ? { ...request(vector, like), ...begin } : begin;
}

/** Why HTTP cannot tell a vector; nothing if it can. */
function reason(vector) {
  if (vector.load?.consumers_errors || vector.load?.consumers || vector.load?.warnings) return 'is about loading alone';
  if (vector.config?.consumers) return 'is about a configuration without consumers';
  if (!vector.steps?.length) return vector.load?.errors ? undefined : 'has no steps';
  let first;
  for (const step of vector.steps) {
    const at = JSON.stringify(step.at ?? first ?? 1000);
    if ((first ??= step.at ?? 1000) && at !== JSON.stringify(first)) return 'moves the clock';
    const name = action(step);
    if (/^(forget|replace)/.test(name)) return 'calls what nginx has no directive for';
    if (name === 'fail' && !FAILURES[step.failure]) return `has a failure that takes a broken network: ${step.failure}`;
    if (name === 'reply' && (step.status ?? 200) < 200) return 'has a status that is no answer';
    if (name === 'reply' && !(step.headers ?? []).every(([one, value]) => legal(one, latin(value)))) return 'has a reply that is no HTTP';
    if (name === 'reply' && twice(step.headers ?? [], ['content-length', 'transfer-encoding', 'content-type'])) return 'has a reply that nginx takes for none';
    if (name === 'begin') {
      const why = unsendable(request(vector, step));
      if (why) return why;
    }
  }
  // The reply is shaped by the time at which it comes.
  if (typeof first === 'object' && first.wall !== undefined && first.wall < 0) return 'has a time before 1970';
  if (Number(typeof first === 'object' ? first.wall : first) > 4e9) return "has a time beyond nginx's";
  if (!/https:\/\/as\.example[/"?]/.test(text(vector)) && !vector.kong?.includes(AS)) return 'has an endpoint of its own';
  if (/"tls_roots":\{/.test(text(vector))) return 'has certificate authorities';
  if (vector.steps.some((step) => step.expect?.let_go?.length)) return 'is about threads';
}

const legal = (name, value) => /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(name) && !/[\0-\x08\x0a-\x1f\x7f]/.test(value) && !/^[ \t]|[ \t]$/.test(value);
const twice = (headers, names) => names.some((name) => headers.filter(([one]) => one.toLowerCase() === name).length > 1);

/** Why a request cannot be sent through nginx as it is. */
function unsendable({ method = 'GET', target = '/', headers = [], trailers = [], body }) {
  const names = headers.map(([name]) => name.toLowerCase());
  if (trailers.length) return 'has trailers, which nginx drops';
  if (!/^\/[\x21-\x7e]*$/.test(latin(target)) || /[#]|%(?![0-9A-Fa-f]{2})|%00|\/\.\.?(\/|$|\?)/.test(latin(target))) return 'has a target that nginx refuses';
  if (!/^[A-Z]{3,12}$/.test(method) || ['CONNECT', 'TRACE'].includes(method)) return 'has a method that nginx refuses';
  if (!headers.every(([name, value]) => legal(name, latin(value)))) return 'has headers that nginx refuses';
  if (twice(headers, ['authorization', 'host', 'content-length', 'content-type'])) return 'has lines twice that nginx takes once';
  if (names.some((name) => ['content-length', 'transfer-encoding', 'host', 'connection', 'expect', 'upgrade'].includes(name))) return "sets what is the connection's";
  if (body === undefined && names.includes('content-type') && !['GET', 'HEAD', 'OPTIONS'].includes(method)) return 'tells of a body that is not read';
  if (latin(target).length > 100_000 || (body !== undefined && bytes(body).length > 4 << 20) || headers.some(([, value]) => bytes(value).length > 60_000)) return 'is too long';
}

/** Reads one message of HTTP/1.1 from bytes: `{ line, headers, body, rest }`, or nothing if it is not complete. */
function message(buffer, { head = false } = {}) {
  const end = buffer.indexOf('\r\n\r\n');
  if (end < 0) return;
  const [line, ...lines] = buffer.subarray(0, end).toString('latin1').split('\r\n');
  const headers = lines.map((one) => [one.slice(0, one.indexOf(':')), one.slice(one.indexOf(':') + 1).trim()]);
  const find = (name) => headers.find(([one]) => one.toLowerCase() === name)?.[1];
  let rest = buffer.subarray(end + 4);
  if (head) return { line, headers, body: Buffer.alloc(0) };
  if (find('transfer-encoding')) {
    const parts = [];
    for (;;) {
      const at = rest.indexOf('\r\n');
      if (at < 0) return;
      const size = parseInt(rest.subarray(0, at).toString(), 16);
      if (rest.length < at + 4 + size) return;
      if (size === 0) return { line, headers, body: Buffer.concat(parts) };
      parts.push(rest.subarray(at + 2, at + 2 + size));
      rest = rest.subarray(at + 4 + size);
    }
  }
  const length = Number(find('content-length') ?? 0);
  if (rest.length >= length) return { line, headers, body: rest.subarray(0, length) };
}

/** A server that keeps what it is asked, and answers when it is told to. */
async function server(t, answer) {
  const seen = [];
  const sockets = new Set();
  const one = net.createServer((socket) => {
    let got = Buffer.alloc(0);
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
    socket.on('data', (piece) => {
      got = Buffer.concat([got, piece]);
      const whole = message(got);
      if (!whole) return;
      got = Buffer.alloc(0);
      whole.socket = socket;
      seen.push(whole);
      answer?.(whole);
    });
  });
  const port = await listen(one);
  t.after(() => (one.close(), sockets.forEach((socket) => socket.destroy())));
  return { seen, port };
}

/** Sends a request as it stands: `{ answer, socket }`. */
function send(port, { method = 'GET', target = '/', headers = [], body }) {
  const lines = [`${method} ${latin(target)} HTTP/1.1`, 'Host: gateway', 'Connection: close', ...headers.map(([name, value]) => `${name}: ${latin(value)}`)];
  if (body !== undefined) lines.push(`Content-Length: ${bytes(body).length}`);
  const socket = net.connect(port, '127.0.0.1');
  socket.write(Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'));
  if (body !== undefined) socket.write(bytes(body));
  const answer = new Promise((resume, fail) => {
    let got = Buffer.alloc(0);
    socket.setTimeout(20_000, () => socket.destroy(new Error('no answer within 20 s')));
    socket.on('data', (piece) => (got = Buffer.concat([got, piece])));
    socket.on('error', fail);
    socket.on('close', () => resume(message(got, { head: method === 'HEAD' }) ?? { line: 'none', headers: [], body: got }));
  });
  answer.catch(() => {});
  return { answer, socket };
}

/** Tells the requests apart that reach the upstream. */
const MARK = 'X-Step';
const ENDPOINT = /(introspection_url["']?\s*:\s*["']?)https:\/\/as\.example/g;
const OURS = /^x[-_.](consumer[-_.]|credential[-_.]|anonymous[-_.]consumer$)/i;

/** What reached the upstream and the client, against what was expected. */
function compare(expected, sent, answer, seen) {
  const header = (name) => answer.headers.filter(([one]) => one.toLowerCase() === name).map(([, value]) => value);
  const status = Number(answer.line.split(' ')[1]);
  if (expected.deny) {
    const { reason, status: number, headers, body } = expected.deny;
    assert.equal(seen, undefined, 'it reached the upstream');
    if (reason) assert.deepEqual(header('x-reason'), [reason]);
    if (number) assert.equal(status, number);
    for (const [name, value] of headers ?? []) assert.deepEqual(header(name.toLowerCase()), [value]);
    if (headers && !headers.some(([name]) => name === 'WWW-Authenticate')) assert.deepEqual(header('www-authenticate'), []);
    if (body !== undefined) assert.equal(answer.body.toString(), sent.method === 'HEAD' ? '' : (body ?? ''));
    return;
  }
  const { source, identity, set, remove, target, body, response_headers } = expected.allow;
  assert.equal(status, 200, `${answer.line} ${answer.body}`);
  if (source) assert.deepEqual(header('x-source'), [source]);
  if (identity?.consumer) assert.deepEqual(header('x-id'), [identity.consumer]);
  if (identity?.anonymous) assert.deepEqual([header('x-id'), header('x-anonymous')], [[identity.anonymous], ['true']]);
  if (typeof identity === 'string') assert.deepEqual([header('x-id'), header('x-anonymous')], [[], []]);
  if (set) assert.deepEqual(seen.headers.filter(([name]) => OURS.test(name)), set.map(([name, value]) => [name, latin(value)]));
  for (const name of remove ?? []) {
    const left = seen.headers.filter(([one]) => one.toLowerCase() === latin(name).toLowerCase());
    assert.ok(left.length === 0 || set?.some(([one]) => one.toLowerCase() === left[0][0].toLowerCase()), `${name} was not removed`);
  }
  if (target !== undefined) assert.equal(seen.line.split(' ')[1], latin(target ?? sent.target ?? '/'));
  if (body !== undefined) assert.deepEqual(seen.body, bytes(body ?? sent.body ?? ''));
  for (const [name, value] of response_headers ?? []) assert.ok(header(name.toLowerCase()).includes(value), `${name}: ${value}`);
}

async function replay(t, vector) {
  const as = await server(t);
  const upstream = await server(t, ({ socket }) => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi'));
  const policies = [undefined];
  for (const { begin } of vector.steps) {
    const policy = begin && JSON.stringify(request(vector, { begin }).policy);
    if (!policies.includes(policy)) policies.push(policy);
  }
  const at = vector.steps[0].at ?? 1000;
  const here = `http://127.0.0.1:${as.port}`;
  const files = { 'config.json': text(vector).replace(ENDPOINT, (_, before) => before + here), ...vector.files };
  if (vector.consumers) files['consumers.json'] = JSON.stringify(vector.consumers);
  policies.forEach((policy, i) => policy && (files[`policy${i}.json`] = policy));
  const asked = vector.steps.find((step) => step.expect?.introspect?.url)?.expect.introspect.url;
  const path = ((asked ?? text(vector)).match(/https:\/\/as\.example([^\s"']*)/)[1] || '/').replaceAll('$', '%24');
  const nginx = await start(
    t,
    `${vector.consumers ? 'tokenward_consumers $DIR/consumers.json;' : ''}
     tokenward_config ${JSON.stringify(`$DIR/config.json${vector.select ? `#${vector.select}` : ''}`)}; tokenward_endpoint /introspect;
     large_client_header_buffers 4 128k; client_max_body_size 0; underscores_in_headers on; ignore_invalid_headers off;
     add_header X-Source $tokenward_source always; add_header X-Reason $tokenward_reason always;
     add_header X-Id $tokenward_consumer_id always; add_header X-Anonymous $tokenward_anonymous always;
     ${policies
       .map(
         (policy, i) => `server { listen 127.0.0.1:$PORT${i};
           location / { tokenward on; ${policy ? `tokenward_policy $DIR/policy${i}.json;` : ''} proxy_pass http://127.0.0.1:${upstream.port}; proxy_http_version 1.1; }
           location = /introspect { internal; proxy_pass "${here}${path}"; proxy_http_version 1.1; proxy_set_header Connection close; proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k; }
         }`,
       )
       .join('\n')}`,
    { files, ports: policies.length, workers: 0, environment: { ...vector.env, LD_PRELOAD: CLOCK, FIXED_CLOCK: String(at.wall ?? at) }, secret: false },
  );
  const sent = {};
  const settle = async (name, expected) => {
    if (!expected.allow && !expected.deny) return;
    const answer = await sent[name].answer;
    const reached = upstream.seen.find(({ headers }) => headers.some(([one, value]) => one === MARK && value === name));
    compare(expected, sent[name].request, answer, reached);
  };
  let calls = 0;
  for (const step of vector.steps) {
    const name = action(step);
    const expected = step.expect ?? {};
    const who = name === 'begin' ? step.begin.as : step[name];
    if (name === 'begin') {
      const one = request(vector, step);
      const headers = [...(one.headers ?? []), [MARK, who]];
      sent[who] = { ...send(nginx.ports[policies.indexOf(JSON.stringify(one.policy))], { ...one, headers }), request: one };
      if (expected.wait) await new Promise((resume) => setTimeout(resume, 60));
    } else if (name === 'reply' || name === 'fail') {
      await reply(sent[who].call.socket, step);
    } else if (name === 'drop') {
      sent[who].socket.destroy();
    }
    if (expected.introspect) {
      calls++;
      await eventually(`call ${calls} is made`, () => as.seen.length >= calls, { every: 2 });
      sent[who].call = as.seen[calls - 1];
      compareCall(expected.introspect, sent[who].call, here);
    }
    await settle(who, expected);
    if (expected.calls !== undefined) assert.equal(as.seen.length, expected.calls, 'calls');
  }
}

function compareCall({ method, url, headers, body }, call, here) {
  const [line, target] = call.line.split(' ');
  if (method) assert.equal(line, method);
  if (url) assert.equal(here + target, url.replace(AS, here));
  if (headers) {
    const ours = call.headers.filter(([name]) => !['host', 'content-length', 'connection'].includes(name.toLowerCase()));
    assert.deepEqual(ours, headers.map(([name, value]) => [name, latin(value)]));
  }
  if (body !== undefined) assert.equal(call.body.toString('latin1'), latin(body));
}

/** What the authorization server answers in a step. */
async function reply(socket, { failure, status = 200, headers = [['content-type', 'application/json']], body = '' }) {
  const end = (...pieces) => new Promise((resume) => (pieces.forEach((piece) => socket.write(piece)), socket.end(resume)));
  const json = 'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n';
  switch (failure) {
    case 'closed':
      return socket.destroy();
    case 'protocol':
      return end('this is no HTTP\r\n\r\n');
    case 'cut_off':
      return end(`${json}Content-Length: 100\r\n\r\n{"active":true`);
    case 'too_long':
      return end(`${json}Connection: close\r\n\r\n`, Buffer.alloc((1 << 20) + 1, ' '));
  }
  const content = bytes(body);
  const lines = headers.map(([name, value]) => `${name}: ${latin(value)}\r\n`).join('');
  const none = status === 204 || status === 304;
  return end(Buffer.from(`HTTP/1.1 ${status} Status\r\n${lines}${none ? '' : `Content-Length: ${content.length}\r\n`}Connection: close\r\n\r\n`, 'latin1'), none ? '' : content);
}

/** A configuration with mistakes is refused by `nginx -t`, which says what the vector says. */
async function refuses(t, vector) {
  const files = { 'config.json': text(vector), ...vector.files };
  if (vector.consumers) files['consumers.json'] = JSON.stringify(vector.consumers);
  const { status, stderr } = await check(
    t,
    `tokenward_config ${JSON.stringify(`$DIR/config.json${vector.select ? `#${vector.select}` : ''}`)}; tokenward_endpoint /i insecure;
     ${vector.consumers ? 'tokenward_consumers $DIR/consumers.json;' : ''}
     server { listen 127.0.0.1:1; location / { tokenward on; } location = /i { internal; proxy_pass http://127.0.0.1:1; } }`,
    files,
    vector.env,
  );
  assert.notEqual(status, 0, 'it is not refused');
  for (const { path, contains = [], lacks = [] } of vector.load.errors) {
    if (path) assert.ok(stderr.includes(path), `${path}\n${stderr}`);
    for (const word of contains) assert.ok(stderr.includes(word), `${word}\n${stderr}`);
    for (const word of lacks) assert.ok(!stderr.includes(word), `${word} is said\n${stderr}`);
  }
}

const left = {};
const told = [];
for (const vector of vectors) {
  const why = reason(vector);
  if (why) (left[why] ??= []).push(vector.name);
  else told.push(vector);
}

test('most vectors are told by HTTP, and each that is not has a reason', (t) => {
  for (const [why, names] of Object.entries(left)) t.diagnostic(`${names.length} left out: one that ${why}`);
  assert.ok(told.length > vectors.length * 0.55, `${told.length} of ${vectors.length}`);
});

describe('vectors through nginx', { concurrency: 6 }, () => {
  for (const vector of told) {
    test(vector.name, (t) => (vector.load?.errors ? refuses(t, vector) : replay(t, vector)));
  }
});
