// Servers of a test: they listen on a free port and end with the test.

import http from 'node:http';
import { createRequire } from 'node:module';

import { close, listen } from '../../gateway/support/parts.js';

export const require = createRequire(
  `${process.env.TOKENWARD_NODE_PROJECT ?? `${import.meta.dirname}/../../../target/node-tests`}/package.json`,
);

/** Serves `handle` and gives the URL. */
export async function serve(t, handle) {
  const server = typeof handle === 'function' ? http.createServer(handle) : handle;
  const port = await listen(server);
  t.after(() => close(server));
  return `http://127.0.0.1:${port}`;
}

/**
 * An endpoint under the test's control: `answer` is what is sent as JSON, or a function of the request's form that gives it; `calls`
 * lists the forms.
 */
export async function endpoint(t, answer = { active: true, username: 'alice' }) {
  const as = { calls: [], headers: [], answer, status: 200 };
  as.url = await serve(t, (req, res) => {
    let body = '';
    req.on('data', (chunk) => (body += chunk));
    req.on('end', async () => {
      const form = new URLSearchParams(body);
      as.calls.push(form);
      as.headers.push(req.rawHeaders);
      const given = typeof as.answer === 'function' ? await as.answer(form, req, res) : as.answer;
      if (given === undefined || res.destroyed) return;
      res.writeHead(as.status, { 'Content-Type': 'application/json' });
      res.end(typeof given === 'string' ? given : JSON.stringify(given));
    });
  });
  return as;
}

export const CONSUMERS = [
  { id: '1', username: 'alice', custom_id: 'customer-1', tags: ['gold'] },
  { id: '2', username: 'guest' },
];

export const config = (url, fields = {}) => ({
  introspection_url: url,
  authorization_value: 'Basic cGFja2FnZTpzM2NyZXQtb2YtdGhlLXRlc3Rz',
  ...fields,
});

/** A request as Node has it. */
export const requestOf = (token, fields = {}) => ({
  method: 'GET',
  url: '/',
  rawHeaders: token === undefined ? [] : ['Authorization', `Bearer ${token}`],
  ...fields,
});
