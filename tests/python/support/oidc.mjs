// npm's oidc-provider as a process: commands come in and answers go out as lines of JSON.

import { createInterface } from 'node:readline';

import { clientAuth, startAuthorizationServer } from '../../gateway/support/authorization_server.js';

const as = await startAuthorizationServer();
const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);
say({ introspection_url: as.endpoint, client_auth: clientAuth('gateway') });

for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...rest] = JSON.parse(line);
  if (command === 'token') say(await as.userToken(...rest));
  else if (command === 'revoke') say((await as.revoke(...rest)).status);
  else if (command === 'calls') say(as.calls.length);
  else throw new Error(`no such command: ${command}`);
}
await as.stop();
