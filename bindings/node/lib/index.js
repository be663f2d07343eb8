'use strict';

const { Allow, Deny } = require('./decision.js');
const { ConfigError, StepError } = require('./errors.js');
const { Introspector, Policy } = require('./introspector.js');
const native = require('./native.js');
const { Exchange, Wait } = require('./steps.js');

/** Whether only Tokenward may set a header of this name. */
const isManaged = (name) => native.isManaged(name);

module.exports = { Allow, ConfigError, Deny, Exchange, Introspector, Policy, StepError, Wait, isManaged };
