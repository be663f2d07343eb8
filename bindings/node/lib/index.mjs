import tokenward from './index.js';

export const { Allow, ConfigError, Deny, Exchange, Introspector, Policy, StepError, Wait, isManaged } = tokenward;
