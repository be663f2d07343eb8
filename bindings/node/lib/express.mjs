import express from './express.js';

export const { tokenward } = express;
