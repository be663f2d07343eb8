'use strict';
// What a decision changes of a request of Node's: `rawHeaders` and `headers`, line by line; target, body and trailers.

const http = require('node:http');
const { Socket } = require('node:net');
const { isAuthorization } = require('./counted.js');
const { Allow } = require('./decision.js');
const native = require('./native.js');

// Node makes `headers` and `headersDistinct` of the first so many lines when somebody asks. Where it keeps the number, and what
// it has made, is its own affair: what is not where it was in Node 20 is done without.
// With a socket, as always: what else is tried, the engine prepares for.
const blank = () => new http.IncomingMessage(new Socket());
const keptAs = (object, description) => Object.getOwnPropertySymbols(object).find((symbol) => symbol.description === description);
const COUNT = keptAs(blank(), 'kHeadersCount');
const DISTINCT = (() => {
  const req = blank();
  return req.headersDistinct === undefined ? undefined : keptAs(req, 'kHeadersDistinct');
})();

/** Whether Node makes `headers` anew from the lines once they are gone. */
const MAKES_ANEW = (() => {
  if (COUNT === undefined) return false;
  const req = blank();
  req.rawHeaders = ['Host', 'a', 'X-B', 'c', 'x-b', 'd'];
  req[COUNT] = 4;
  if (req.headers['x-b'] !== 'c') return false;
  req[COUNT] = 6;
  req.headers = null;
  return req.headers?.host === 'a' && req.headers['x-b'] === 'c, d';
})();

/** Edits the request as the decision says. If it throws, the request must not go on. */
function editRequest(req, allow) {
  const shared = Allow.sharedOf(allow);
  const own = Allow.ownOf(allow);
  const hides = Allow.hides(allow);
  const { headers, rawHeaders } = req;
  const { connection } = headers;
  if (connection !== undefined && connection !== 'keep-alive' && connection !== 'close') unlist(req, connection);
  if (own === null && MAKES_ANEW && isUntouched(req, headers, rawHeaders)) {
    // Whoever looks at `headers` has Node make them of the lines. To edit an object costs more, looked at or not.
    if (hides) hide(rawHeaders);
    add(rawHeaders, shared.flat);
    req.headers = null;
  } else {
    if (hides || own !== null) remove(rawHeaders, headers, hides, own === null ? NONE : own.remove);
    add(rawHeaders, shared.flat);
    const { names, values } = shared;
    for (let i = 0; i < names.length; i += 1) headers[names[i]] = values[i];
  }
  recount(req);
  if (headers['transfer-encoding'] !== undefined || req.httpVersionMajor === 2) stripTrailers(req);
  if (own !== null && own.target !== undefined) retarget(req, own.target);
}

const NONE = Object.freeze([]);

/**
 * Whether `headers` is what Node has made of the lines, one by one: a middleware before this one may have changed it, and that is
 * kept. Lines of one name are as good as changed.
 */
function isUntouched(req, headers, rawHeaders) {
  const { length } = rawHeaders;
  if (req[COUNT] !== length || !(req instanceof http.IncomingMessage)) return false;
  let i = 0;
  for (const name in headers) {
    if (i >= length || headers[name] !== rawHeaders[i + 1] || !isLower(name, rawHeaders[i])) return false;
    i += 2;
  }
  return i === length;
}

/** Whether one name is another in lower case. */
function isLower(low, name) {
  const { length } = name;
  if (low.length !== length) return false;
  for (let i = 0; i < length; i += 1) {
    const code = name.charCodeAt(i);
    if (low.charCodeAt(i) !== (code >= 65 && code <= 90 ? code + 32 : code)) return false;
  }
  return true;
}

/** Takes `Authorization` out, every line of it. */
function hide(rawHeaders) {
  const { length } = rawHeaders;
  let kept = 0;
  while (kept < length && !isAuthorization(rawHeaders[kept])) kept += 2;
  for (let i = kept + 2; i < length; i += 2) {
    const name = rawHeaders[i];
    if (isAuthorization(name)) continue;
    rawHeaders[kept] = name;
    rawHeaders[kept + 1] = rawHeaders[i + 1];
    kept += 2;
  }
  // Cheaper than to set the length.
  for (let i = length; i > kept; i -= 1) rawHeaders.pop();
}

/** Several at once, for which the engine makes room once. */
function add(rawHeaders, flat) {
  const { length } = flat;
  let i = 0;
  for (; i + 8 <= length; i += 8) {
    rawHeaders.push(flat[i], flat[i + 1], flat[i + 2], flat[i + 3], flat[i + 4], flat[i + 5], flat[i + 6], flat[i + 7]);
  }
  for (; i < length; i += 1) rawHeaders.push(flat[i]);
}

/** Where Node makes `headersDistinct` of the lines, it is made anew. */
function recount(req) {
  if (COUNT !== undefined && req[COUNT] !== undefined) {
    req[COUNT] = req.rawHeaders.length;
    // Most requests have none yet, and would get a place for it.
    if (DISTINCT === undefined || req[DISTINCT] !== undefined) req.headersDistinct = undefined;
  } else {
    redistinguish(req);
  }
}

/** Every line of these names, case ignored. */
function remove(rawHeaders, headers, hides, names) {
  const gone = names.length === 0 ? undefined : new Set(names.map((name) => name.toLowerCase()));
  let kept = 0;
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i];
    const goes =
      (hides && isAuthorization(name)) ||
      (gone !== undefined && gone.has(name.toLowerCase()));
    if (goes) continue;
    if (kept !== i) {
      rawHeaders[kept] = name;
      rawHeaders[kept + 1] = rawHeaders[i + 1];
    }
    kept += 2;
  }
  rawHeaders.length = kept;
  if (hides) delete headers.authorization;
  if (gone !== undefined) for (const name of gone) delete headers[name];
}

/**
 * Takes the names that only Tokenward may set out of the client's `Connection`: a proxy or upstream that drops what is listed
 * there would otherwise drop what is set.
 */
function unlist(req, connection) {
  if (!connection.split(',').some((name) => native.isManaged(name.trim()))) return;
  const left = (value) => {
    const names = value.split(',').filter((name) => !native.isManaged(name.trim()));
    return names.length === 0 ? 'keep-alive' : names.join(',').trim();
  };
  req.headers.connection = left(connection);
  for (let i = 0; i < req.rawHeaders.length; i += 2) {
    if (req.rawHeaders[i].toLowerCase() === 'connection') req.rawHeaders[i + 1] = left(req.rawHeaders[i + 1]);
  }
}

function redistinguish(req) {
  if (!('headersDistinct' in req)) return;
  const distinct = Object.create(null);
  for (let i = 0; i < req.rawHeaders.length; i += 2) {
    (distinct[req.rawHeaders[i].toLowerCase()] ??= []).push(req.rawHeaders[i + 1]);
  }
  Object.defineProperty(req, 'headersDistinct', { value: distinct, configurable: true, writable: true, enumerable: false });
}

/** Removes the client's own lines of managed names, where nothing is decided (a path that is excluded). */
function stripManaged(req) {
  const names = [];
  for (let i = 0; i < req.rawHeaders.length; i += 2) {
    const name = req.rawHeaders[i];
    // Those begin so: a look that spares the other names a call.
    if ((name.charCodeAt(0) | 32) === 120 && native.isManaged(name)) names.push(name);
  }
  if (names.length > 0) {
    remove(req.rawHeaders, req.headers, false, names);
    recount(req);
  }
  if (req.headers['transfer-encoding'] !== undefined || req.httpVersionMajor === 2) stripTrailers(req);
}

/** Trailers come last. Before anybody else is told of the end, those of managed names are gone. Gives what takes them out at once. */
function stripTrailers(req) {
  const strip = () => {
    try {
      const { rawTrailers } = req;
      if (!rawTrailers || rawTrailers.length === 0) return;
      // Node makes both of the same list, and once: each is asked for when that is there, and before it is changed.
      const { trailers, trailersDistinct } = req;
      for (const object of [trailers, trailersDistinct ?? {}]) {
        for (const name of Object.keys(object)) if (native.isManaged(name)) delete object[name];
      }
      const left = rawTrailers.filter((_, i) => !native.isManaged(rawTrailers[i - (i % 2)]));
      rawTrailers.length = 0;
      for (const part of left) rawTrailers.push(part);
    } catch (error) {
      req.destroy(error);
    }
  };
  // They may be here already: whoever searched the body has come to its end.
  strip();
  req.prependListener('end', strip);
  req.prependListener('trailers', strip);
  return strip;
}

const queryAt = (url) => {
  const at = url.indexOf('?');
  return at < 0 ? url.length : at;
};

/** Takes the credential out of the URL, wherever a framework has put it; nothing but the query differs. */
function retarget(req, target) {
  const query = target.slice(queryAt(target));
  req.url = req.url.slice(0, queryAt(req.url)) + query;
  if (typeof req.originalUrl === 'string') req.originalUrl = req.originalUrl.slice(0, queryAt(req.originalUrl)) + query;
  // Parsed before we came: Express 4 has done that.
  if (Object.hasOwn(req, 'query') && req.query && typeof req.query === 'object') delete req.query.access_token;
}

/** `Cache-Control` of an answer that is for this client alone: other directives stay, `no-store` must not become weaker. */
function makePrivate(value) {
  const lines = value === undefined || value === null ? [] : Array.isArray(value) ? value : [String(value)];
  const directives = ['private'];
  for (const line of lines) {
    for (const [one] of String(line).matchAll(/(?:[^,"]|"(?:[^"\\]|\\.)*"?)+/g)) {
      const directive = one.trim();
      const name = directive.split('=', 1)[0].trim().toLowerCase();
      if (directive && name !== 'public' && name !== 'private' && name !== 's-maxage') directives.push(directive);
    }
  }
  return directives.join(', ');
}

/** Sees to it that every 2xx answer has the headers that the decision wants. */
function editResponse(res, allow) {
  if (allow.responseHeaders.length === 0) return;
  const { writeHead } = res;
  res.writeHead = function (status, ...rest) {
    if (status < 200 || status > 299) return writeHead.call(this, status, ...rest);
    const message = typeof rest[0] === 'string' ? rest.shift() : undefined;
    const given = rest[0];
    let own = [];
    const others = [];
    const take = (name, value) => {
      if (String(name).toLowerCase() === 'cache-control') own = own.concat(value);
      else others.push([name, value]);
    };
    if (Array.isArray(given) && Array.isArray(given[0])) for (const [name, value] of given) take(name, value);
    else if (Array.isArray(given)) for (let i = 0; i < given.length; i += 2) take(given[i], given[i + 1]);
    else if (given) for (const name of Object.keys(given)) take(name, given[name]);
    for (const [name, value] of allow.responseHeaders) {
      if (name.toLowerCase() === 'cache-control') this.setHeader(name, makePrivate(own.length > 0 ? own : this.getHeader(name)));
      else this.setHeader(name, value);
    }
    const lines = {};
    for (const [name, value] of others) lines[name] = lines[name] === undefined ? value : [].concat(lines[name], value);
    const left = others.length > 0 ? [lines] : [];
    return message === undefined ? writeHead.call(this, status, ...left) : writeHead.call(this, status, message, ...left);
  };
}

module.exports = { editRequest, editResponse, makePrivate, stripManaged, stripTrailers };
