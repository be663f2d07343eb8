'use strict';
// Errors that are not decisions: only construction and misuse have any.

/** A configuration that cannot be used, with everything that is wrong with it. */
class ConfigError extends Error {
  constructor(problems) {
    super(problems.map(({ path, message }) => (path ? `\`${path}\`: ${message}` : message)).join('\n'));
    this.name = 'ConfigError';
    this.code = 'ERR_TOKENWARD_CONFIG';
    this.problems = Object.freeze(problems.map(Object.freeze));
  }
}

/** A step that was used before, or stands elsewhere. */
class StepError extends Error {
  constructor(message) {
    super(message);
    this.name = 'StepError';
    this.code = 'ERR_TOKENWARD_STEP';
  }
}

/** Runs what may refuse a configuration. The addon lists the problems in its message. */
function configuring(run) {
  try {
    return run();
  } catch (error) {
    if (error?.code !== 'InvalidArg') throw error;
    let pairs;
    try {
      pairs = JSON.parse(error.message);
    } catch {
      throw error;
    }
    throw new ConfigError(pairs.map(([path, message]) => ({ path, message })));
  }
}

module.exports = { ConfigError, StepError, configuring };
