// `node --import ./tests/node/support/register.js`: packages are found where tests/run has installed them, outside of the source
// tree.

import { register } from 'node:module';

register('./resolve.js', import.meta.url);
