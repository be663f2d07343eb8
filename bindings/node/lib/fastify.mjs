import fastify from './fastify.js';

export const { proxyOptions, tokenward } = fastify;
