// An authorization server whose certificate changes: at every other one calls fail, and go on with the next good one.

import net from 'node:net';

import { folder } from '../gateway/support/parts.js';
import { certificates } from './support/certificates.js';
import { scenario, scene, sleep } from './support/scene.js';

let known;
const here = scene({
  context: async (until) => (known = certificates(await folder((end) => until.after(end)))).good,
  fields: () => ({ tls_roots: { file: known.root } }),
});

const TLS = { status: 503, reason: 'endpoint_unreachable', detail: 'failure=tls' };

for (const [title, name] of [
  ['the certificate is of another name', 'misnamed'],
  ['the certificate has expired', 'expired'],
  ['the certificate is of an unknown issuer', 'unknown'],
]) {
  scenario(title, () =>
    here.endure({
      ...TLS,
      begin: async () => {
        here.as.certificate(known[name]);
        await sleep(200);
      },
      end: () => here.as.certificate(known.again),
      calls: 0,
    }),
  );
}

/** In place of the server, something that takes connections. */
function instead(serve) {
  let server;
  const sockets = new Set();
  return {
    begin: async () => {
      await here.as.refuse();
      server = net.createServer((socket) => {
        sockets.add(socket.on('error', () => {}));
        serve(socket);
      });
      await new Promise((resume) => server.listen(here.as.port, '127.0.0.1', resume));
      // By now nobody takes a connection of before for one that can be used.
      await sleep(200);
    },
    end: async () => {
      const closed = new Promise((resume) => server.close(resume));
      for (const socket of sockets) socket.destroy();
      await closed;
      await here.as.accept();
    },
  };
}

scenario('it hangs in the handshake', () =>
  here.endure({
    status: 503,
    reason: 'endpoint_timed_out',
    detail: 'failure=timed_out',
    within: 'timeout',
    ...instead(() => {}),
  }),
);

scenario('it speaks no TLS', () =>
  here.endure({ ...TLS, ...instead((socket) => socket.once('data', () => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))) }),
);
