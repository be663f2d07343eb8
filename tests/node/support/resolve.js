// A package that a test's own folder does not have is looked for in the project of the tests.

import { resolve as absolute } from 'node:path';
import { pathToFileURL } from 'node:url';

const project = process.env.TOKENWARD_NODE_PROJECT ?? absolute(import.meta.dirname, '../../../target/node-tests');
const parentURL = pathToFileURL(`${project}/package.json`).href;

export async function resolve(specifier, context, next) {
  try {
    return await next(specifier, context);
  } catch (error) {
    if (error.code !== 'ERR_MODULE_NOT_FOUND' || /^[./]|^[a-z]+:/.test(specifier)) throw error;
    return next(specifier, { ...context, parentURL });
  }
}
