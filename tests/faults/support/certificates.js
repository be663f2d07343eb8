// Certificates for the authorization server: a good one, and those that nobody should believe.

import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

/** Makes two authorities in a folder, and gives the file of the first one's root and contexts by name. */
export function certificates(path) {
  const at = (name) => join(path, name);
  const openssl = (...parameters) => execFileSync('openssl', parameters, { cwd: path, stdio: ['ignore', 'ignore', 'pipe'] });
  for (const name of ['root', 'stranger']) {
    const extensions = ['basicConstraints=critical,CA:TRUE', 'keyUsage=critical,keyCertSign'].flatMap((one) => ['-addext', one]);
    const subject = ['-days', '2', '-subj', `/CN=Tokenward test ${name}`];
    openssl('req', '-x509', ...KEY, '-keyout', at(`${name}.key`), '-out', at(`${name}.pem`), ...subject, ...extensions);
  }
  const issue = (name, { host = 'localhost', by = 'root', days = '2' } = {}) => {
    writeFileSync(at('extensions'), `subjectAltName=DNS:${host}\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n`);
    openssl('req', ...KEY, '-keyout', at(`${name}.key`), '-out', at(`${name}.csr`), '-subj', `/CN=${host}`);
    const signed = ['-CA', at(`${by}.pem`), '-CAkey', at(`${by}.key`), '-CAcreateserial', '-days', days];
    openssl('x509', '-req', '-in', at(`${name}.csr`), ...signed, '-extfile', at('extensions'), '-out', at(`${name}.pem`));
    return { key: readFileSync(at(`${name}.key`)), cert: readFileSync(at(`${name}.pem`)) };
  };
  return {
    root: at('root.pem'),
    good: issue('good'),
    again: issue('again'),
    misnamed: issue('misnamed', { host: 'elsewhere.example' }),
    expired: issue('expired', { days: '-1' }),
    unknown: issue('unknown', { by: 'stranger' }),
  };
}
