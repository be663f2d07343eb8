import proxy from './proxy.js';

export const { editRequest, editResponse, forwardHeaders, guardUpgrade, makePrivate, proxyEvents } = proxy;
