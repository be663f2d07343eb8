/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Tokenward: who is behind this OAuth 2.0 access token, and what may the upstream be told?
 *
 * Made by cbindgen from ffi/src; changes belong there.
 *
 * The way of a request:
 *
 *     tokenward_source -> tokenward_document_new -> tokenward_introspector_new          once
 *
 *     tokenward_request -> tokenward_begin -> tokenward_step                            for each request
 *         tokenward_step_outbound(step) != NULL: make this HTTP call, then tokenward_step_reply, and look again
 *         tokenward_step_wait(step) != NULL:     park the request (tokenward_step_on_ready or tokenward_step_set_tag, and in any case
 *                                                tokenward_wait_deadline_us), then tokenward_step_resume, and look again
 *         tokenward_step_decision(step) != NULL: apply the edits, or answer with the refusal
 *     tokenward_step_free
 *
 * A host without an event loop calls tokenward_authenticate in place of tokenward_begin, and has its decision.
 *
 * Rules, for every function:
 *
 * - Fail closed. A request goes on if tokenward_decision_is_allow says so, or allow of a tokenward_brief or tokenward_summary, which is
 *   the same, and in no other case: every other outcome, an error or a NULL included, denies.
 * - Who frees. What a function named _new, tokenward_begin, tokenward_begin_brief, tokenward_authenticate, tokenward_internal or
 *   tokenward_next_log gives is the caller's, who frees it once, with the _free of its type, in any order: a step outlives its
 *   introspector, an introspector its document. _free takes NULL. Every other pointer that a function gives is a view, which the caller
 *   never frees: it lives as long as its function says. After _free, a handle and all views of it are gone.
 * - What is passed in is borrowed for the call: strings, arrays and structs may be gone when the function returns. Pointers to functions
 *   and userdata are kept, and released as their function says.
 * - Strings have a length and no NUL at the end. data may be NULL where the length is 0.
 * - Outputs are written with TOKENWARD_OK alone, and else left as they are; an error is written with the results that its function names,
 *   and is the caller's to free. A NULL that is not allowed is answered with
 *   TOKENWARD_NULL_POINTER, or with the value that a function's text names.
 * - Structs that begin with struct_size are set to zero and to their size before use. All other structs are frozen.
 *   Enumerations go inward as integers, and a number that is none is refused.
 * - Versions. tokenward_abi_check(TOKENWARD_ABI_VERSION) first: it answers TOKENWARD_OK for a library of the same major number and at least
 *   the header's minor number. With each of those the program works as it was compiled. A struct with struct_size only grows at the
 *   end: a library takes the shorter one of an older header, and what that lacks counts as zero, which always means what was the case
 *   before. A struct of a newer header is refused with TOKENWARD_INVALID_ARGUMENT. No function and no number is taken away or
 *   changes its meaning, and none of the rules above does; numbers may come that this header does not have: an unknown result is a
 *   failure, an unknown reason still has its name, status and body, an unknown source or identity allows nothing by itself.
 * - const in front of a handle: the call does not change what it stands for. "Threads: one at a time" means one for each handle, and for a
 *   view one for each handle that it is of; handles may move between threads. Freeing is not done beside another use.
 * - No exception and no longjmp may pass through Tokenward. A defect of its own is caught and answered with TOKENWARD_PANIC: free the
 *   handle, and deny.
 */


#ifndef TOKENWARD_H
#define TOKENWARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * The ABI that a header describes: major number times 65536, plus minor number. Give it to `tokenward_abi_check`.
 */
#define TOKENWARD_ABI_VERSION (1 << 16)

/**
 * How many numbers of `tokenward_snapshot_numbers` are gauges: the last ones. All others only grow.
 */
#define TOKENWARD_SNAPSHOT_GAUGES 4

/**
 * What a fallible function answers. Outputs are written with TOKENWARD_OK alone. New numbers may be added; none is reused.
 */
typedef enum tokenward_result {
  /**
   * Done.
   */
  TOKENWARD_OK = 0,
  /**
   * There is none: no such claim, no rewritten target, nothing in the queue. No fault.
   */
  TOKENWARD_ABSENT = 1,
  /**
   * A pointer that is needed is NULL.
   */
  TOKENWARD_NULL_POINTER = 2,
  /**
   * A number, length, index or `struct_size` that cannot be.
   */
  TOKENWARD_INVALID_ARGUMENT = 3,
  /**
   * Text that is not UTF-8 where it has to be.
   */
  TOKENWARD_NOT_UTF8 = 4,
  /**
   * A configuration, policy or directory of consumers that is refused; the error says everything that is wrong with it.
   */
  TOKENWARD_INVALID_CONFIG = 5,
  /**
   * The system gave no randomness, or certificate authorities could not be used; the error says which.
   */
  TOKENWARD_SYSTEM = 6,
  /**
   * The step was used already: it holds its decision, or a call about it is under way.
   */
  TOKENWARD_ALREADY_USED = 7,
  /**
   * The step stands at something else: a reply to a wait, or a wait where a call is to be made.
   */
  TOKENWARD_WRONG_STEP = 8,
  /**
   * A callback freed the step during the call. It does not exist any more.
   */
  TOKENWARD_FREED = 9,
  /**
   * The program was compiled for another ABI than this library's.
   */
  TOKENWARD_ABI_MISMATCH = 10,
  /**
   * A defect of Tokenward, caught at the boundary. Free the handle and deny the request; a step holds such a refusal by itself.
   */
  TOKENWARD_PANIC = 11,
} tokenward_result;

/**
 * Where the answer behind a decision came from.
 */
typedef enum tokenward_decided_by {
  /**
   * Nobody was asked.
   */
  TOKENWARD_SOURCE_NONE = 0,
  /**
   * This request asked the endpoint.
   */
  TOKENWARD_SOURCE_ENDPOINT = 1,
  /**
   * The answer was remembered.
   */
  TOKENWARD_SOURCE_CACHE = 2,
  /**
   * Another request asked, and this one waited.
   */
  TOKENWARD_SOURCE_WAITING = 3,
} tokenward_decided_by;

/**
 * Who is behind a request.
 */
typedef enum tokenward_identity {
  /**
   * Nobody was asked for: a preflight request; or the request is denied.
   */
  TOKENWARD_IDENTITY_NONE = 0,
  /**
   * The token is good and no consumer matches it.
   */
  TOKENWARD_IDENTITY_UNMATCHED = 1,
  /**
   * The token's consumer.
   */
  TOKENWARD_IDENTITY_CONSUMER = 2,
  /**
   * The consumer that stands in where authentication failed.
   */
  TOKENWARD_IDENTITY_ANONYMOUS = 3,
} tokenward_identity;

/**
 * How urgent a line is.
 */
typedef enum tokenward_level {
  /**
   * Somebody has to act: the endpoint refuses us, a setting names nobody.
   */
  TOKENWARD_LEVEL_ERROR = 1,
  /**
   * The authorization server failed, or a setting is probably not meant.
   */
  TOKENWARD_LEVEL_WARN = 2,
  /**
   * Configuration and consumers were replaced.
   */
  TOKENWARD_LEVEL_INFO = 3,
  /**
   * Single requests that were denied.
   */
  TOKENWARD_LEVEL_DEBUG = 4,
} tokenward_level;

/**
 * Why a request was denied: the numbers of `tokenward_decision_reason`. New ones may be added; none is reused.
 */
typedef enum tokenward_reason {
  /**
   * No access token was presented.
   */
  TOKENWARD_REASON_TOKEN_MISSING = 1100,
  /**
   * The token is not where or what RFC 6750 says, or was given more than once.
   */
  TOKENWARD_REASON_REQUEST_MALFORMED = 1101,
  /**
   * The authorization server says that the token is not active.
   */
  TOKENWARD_REASON_TOKEN_INACTIVE = 1200,
  /**
   * The answer's `exp` is over.
   */
  TOKENWARD_REASON_TOKEN_EXPIRED = 1201,
  /**
   * The answer's `nbf` is still to come.
   */
  TOKENWARD_REASON_TOKEN_NOT_YET_VALID = 1202,
  /**
   * The token is for another audience, of another issuer, bound to a key, or no access token.
   */
  TOKENWARD_REASON_TOKEN_NOT_USABLE = 1203,
  /**
   * None of the alternatives of `require.scopes` is granted.
   */
  TOKENWARD_REASON_INSUFFICIENT_SCOPE = 1300,
  /**
   * `require.consumer` is set and no consumer matches.
   */
  TOKENWARD_REASON_CONSUMER_UNKNOWN = 1301,
  /**
   * The endpoint could not be connected to.
   */
  TOKENWARD_REASON_ENDPOINT_UNREACHABLE = 1400,
  /**
   * The endpoint did not answer within `timeout`.
   */
  TOKENWARD_REASON_ENDPOINT_TIMED_OUT = 1401,
  /**
   * The endpoint answered 429, 500, 502, 503 or 504.
   */
  TOKENWARD_REASON_ENDPOINT_UNAVAILABLE = 1402,
  /**
   * `limits.concurrent_introspections` are under way.
   */
  TOKENWARD_REASON_OVERLOADED = 1403,
  /**
   * The endpoint answered with another status than 200.
   */
  TOKENWARD_REASON_ENDPOINT_REFUSED = 1410,
  /**
   * The endpoint's answer is no introspection response.
   */
  TOKENWARD_REASON_REPLY_MALFORMED = 1411,
  /**
   * `anonymous` names no consumer.
   */
  TOKENWARD_REASON_ANONYMOUS_CONSUMER_MISSING = 1500,
  /**
   * A defect of Tokenward or its host.
   */
  TOKENWARD_REASON_INTERNAL = 1599,
} tokenward_reason;

/**
 * How a call can fail.
 */
typedef enum tokenward_failure {
  /**
   * It did not: there is an answer.
   */
  TOKENWARD_FAILURE_NONE = 0,
  /**
   * No connection could be made.
   */
  TOKENWARD_FAILURE_CONNECT = 1,
  /**
   * The endpoint's name could not be resolved.
   */
  TOKENWARD_FAILURE_DNS = 2,
  /**
   * TLS could not be established, or the certificate was not accepted.
   */
  TOKENWARD_FAILURE_TLS = 3,
  /**
   * The connection ended before the answer's header section was complete.
   */
  TOKENWARD_FAILURE_CLOSED = 4,
  /**
   * The time ran out.
   */
  TOKENWARD_FAILURE_TIMED_OUT = 5,
  /**
   * The answer was no HTTP.
   */
  TOKENWARD_FAILURE_PROTOCOL = 6,
  /**
   * The answer was longer than `limits.reply_bytes`.
   */
  TOKENWARD_FAILURE_TOO_LONG = 7,
  /**
   * The connection ended within the answer's body.
   */
  TOKENWARD_FAILURE_CUT_OFF = 8,
} tokenward_failure;

/**
 * The counters of a snapshot. All but the last five only grow. New ones may be added.
 */
typedef enum tokenward_counter {
  /**
   * Requests answered from a remembered positive answer.
   */
  TOKENWARD_COUNTER_HITS = 0,
  /**
   * Requests answered from a remembered `active: false`.
   */
  TOKENWARD_COUNTER_NEGATIVE_HITS = 1,
  /**
   * Requests that started an introspection.
   */
  TOKENWARD_COUNTER_MISSES = 2,
  /**
   * Requests that waited for another's introspection.
   */
  TOKENWARD_COUNTER_WAITS = 3,
  /**
   * Calls that were handed to the host, retries included.
   */
  TOKENWARD_COUNTER_INTROSPECTIONS = 4,
  /**
   * Header values that were over `limits.header_bytes`.
   */
  TOKENWARD_COUNTER_VALUES_LEFT_OUT = 5,
  /**
   * Request bodies that could have held a token and were too long or coded.
   */
  TOKENWARD_COUNTER_BODIES_NOT_SEARCHED = 6,
  /**
   * Requests allowed.
   */
  TOKENWARD_COUNTER_ALLOWED = 7,
  /**
   * Entries pushed out by newer ones, since the cache began.
   */
  TOKENWARD_COUNTER_EVICTIONS = 8,
  /**
   * Positive entries.
   */
  TOKENWARD_COUNTER_ENTRIES = 9,
  /**
   * Negative entries.
   */
  TOKENWARD_COUNTER_NEGATIVE_ENTRIES = 10,
  /**
   * Bytes of both pools.
   */
  TOKENWARD_COUNTER_BYTES = 11,
  /**
   * Introspections under way.
   */
  TOKENWARD_COUNTER_IN_FLIGHT = 12,
} tokenward_counter;

/**
 * A consumer of the gateway. Seen through others, never freed.
 */
typedef struct tokenward_consumer tokenward_consumer;

/**
 * What becomes of a request: it goes on with exact edits, or the client gets an exact answer.
 */
typedef struct tokenward_decision tokenward_decision;

/**
 * A configuration and its consumers, read and found valid.
 */
typedef struct tokenward_document tokenward_document;

/**
 * Why something was refused: at least one problem, in the order of the document.
 */
typedef struct tokenward_error tokenward_error;

/**
 * Decides about requests: one endpoint, its caches, its calls under way, and a directory of consumers.
 */
typedef struct tokenward_introspector tokenward_introspector;

/**
 * One log line. Nothing in it comes raw from a client or the authorization server, and no secret is in it; a token appears as the
 * first 8 hex digits of its SHA-256.
 */
typedef struct tokenward_line tokenward_line;

/**
 * The call that the host makes: the form goes to the URL, no redirect is followed, and nothing of it is logged.
 */
typedef struct tokenward_outbound tokenward_outbound;

/**
 * Places, requirements, headers and refusals of some of the requests, over the introspector's one cache.
 */
typedef struct tokenward_policy tokenward_policy;

/**
 * The counters at a moment.
 */
typedef struct tokenward_snapshot tokenward_snapshot;

/**
 * Where one request stands: a call to make, a wait, or the decision. Used by one thread at a time; it may move between threads.
 */
typedef struct tokenward_step tokenward_step;

/**
 * Another request makes the call already.
 */
typedef struct tokenward_wait tokenward_wait;

/**
 * Bytes with a length, borrowed, without a NUL at the end. `data` may be NULL where `len` is 0. Frozen.
 */
typedef struct tokenward_str {
  /**
   * The first byte.
   */
  const char *data;
  /**
   * How many there are.
   */
  size_t len;
} tokenward_str;

/**
 * One thing that is wrong with a configuration, or allowed but probably not meant. Frozen. No secret is in it.
 */
typedef struct tokenward_problem {
  /**
   * The place in the document: `cache.negative_ttl`; empty for the document itself.
   */
  struct tokenward_str path;
  /**
   * What was found there and what is allowed.
   */
  struct tokenward_str message;
} tokenward_problem;

/**
 * A header line: name and value, without line ends. Frozen.
 */
typedef struct tokenward_header {
  /**
   * The name, in any case.
   */
  struct tokenward_str name;
  /**
   * The value.
   */
  struct tokenward_str value;
} tokenward_header;

/**
 * A request as the client sent it. Set all of it to zero, then `struct_size` to `sizeof(tokenward_request)`, then what there is.
 * It grows at the end only.
 */
typedef struct tokenward_request {
  /**
   * `sizeof(tokenward_request)`.
   */
  size_t struct_size;
  /**
   * `GET`
   */
  struct tokenward_str method;
  /**
   * The request target as received, not decoded: `/path?query`, absolute form, `*`, or the `:path` of HTTP/2.
   */
  struct tokenward_str target;
  /**
   * Every header line, in the order received, without pseudo-headers.
   */
  const struct tokenward_header *headers;
  /**
   * How many there are.
   */
  size_t headers_len;
  /**
   * Names of the trailer fields, as far as they are known. Those that come later: `tokenward_is_managed`.
   */
  const struct tokenward_str *trailers;
  /**
   * How many there are.
   */
  size_t trailers_len;
  /**
   * The body, if it was read because `tokenward_needs_body` asked for it; else `data` is NULL. Of a body longer than
   * `tokenward_body_bytes`, one byte more than that, or all of it: it is then not searched.
   */
  struct tokenward_str body;
} tokenward_request;

/**
 * How a document is read. Set all of it to zero, then `struct_size` to `sizeof(tokenward_source)`, then `text` and what there is of the
 * rest. It grows at the end only.
 */
typedef struct tokenward_source {
  /**
   * `sizeof(tokenward_source)`.
   */
  size_t struct_size;
  /**
   * A Tokenward configuration in JSON, which may have an extra member `consumers`, or a Kong declarative file in YAML or JSON.
   */
  struct tokenward_str text;
  /**
   * A JSON array of consumers, in place of those of `text`; `data` NULL: those of `text`.
   */
  struct tokenward_str consumers;
  /**
   * The folder that relative paths in `text` are relative to; `data` NULL: the current one.
   */
  struct tokenward_str folder;
  /**
   * `route=NAME` or `service=NAME`: which of several plugins of a Kong file; `data` NULL: the only one.
   */
  struct tokenward_str select;
} tokenward_source;

/**
 * Takes a line, on whichever thread handles a request. The line lives for the call. The function may call Tokenward, but not free the
 * introspector, policy or document that the call was given which it runs inside of; a step it may free. It must not unwind (no
 * exception, no longjmp).
 */
typedef void (*tokenward_log_fn)(void *userdata, const struct tokenward_line *line);

/**
 * Releases what a host gave.
 */
typedef void (*tokenward_release_fn)(void *userdata);

/**
 * How an introspector is made. Set all of it to zero, then `struct_size` to `sizeof(tokenward_options)`, then what is wanted. It grows
 * at the end only.
 */
typedef struct tokenward_options {
  /**
   * `sizeof(tokenward_options)`.
   */
  size_t struct_size;
  /**
   * Takes log lines; NULL: none.
   */
  tokenward_log_fn log;
  /**
   * What `log` and `log_release` are called with.
   */
  void *log_userdata;
  /**
   * Called once, after the last line: when the introspector and every step of it that stands at a call or a wait are gone (a step that
   * has its decision needs it no more), inside of the call that ended the last; NULL: nothing. Not called if no introspector was made.
   */
  tokenward_release_fn log_release;
  /**
   * Lines up to this `tokenward_level` are made; 0: up to TOKENWARD_LEVEL_INFO.
   */
  uint32_t log_level;
  /**
   * Where `log` is NULL: how many lines are kept for `tokenward_next_log`; of more, the oldest go.
   */
  uint32_t log_lines;
} tokenward_options;

/**
 * A moment on two clocks, in microseconds. Frozen.
 */
typedef struct tokenward_time {
  /**
   * Since 1970-01-01 00:00 UTC (CLOCK_REALTIME).
   */
  uint64_t wall_us;
  /**
   * Since any fixed moment of the process (CLOCK_MONOTONIC).
   */
  uint64_t monotonic_us;
} tokenward_time;

/**
 * How the call to the introspection endpoint went. Set all of it to zero, then `struct_size` to `sizeof(tokenward_reply)`, then either
 * `failure` or the rest. It grows at the end only.
 */
typedef struct tokenward_reply {
  /**
   * `sizeof(tokenward_reply)`.
   */
  size_t struct_size;
  /**
   * A number of `tokenward_failure`: why there is no complete answer; the rest is then not looked at.
   */
  uint32_t failure;
  /**
   * The status code, 100 to 999.
   */
  uint32_t status;
  /**
   * Every header line.
   */
  const struct tokenward_header *headers;
  /**
   * How many there are.
   */
  size_t headers_len;
  /**
   * The whole body.
   */
  struct tokenward_str body;
} tokenward_reply;

/**
 * Told that a wait can go on (`ready`), or that it ended before that. It may run inside `tokenward_step_on_ready` itself, and on
 * whichever thread replied to, resumed or freed another step, or authenticated. Callbacks are never nested: what becomes due while one of
 * a thread runs (this one or a log function) runs there after it, before the call that it ran inside of ends. `userdata` lives until it has
 * run, whatever became of the step. It may call Tokenward, but not free the
 * introspector, policy or document that the call was given which it runs inside of, nor block; steps it may free. It must not unwind (no
 * exception, no longjmp). A host whose threads share a step keeps them apart itself, this function included.
 */
typedef void (*tokenward_ready_fn)(void *userdata, bool ready);

/**
 * What a host needs to know of nearly every request that began. What there is none of is 0 or NULL.
 */
typedef struct tokenward_brief {
  /**
   * How much was written: what was asked for.
   */
  size_t struct_size;
  /**
   * The step; free it with `tokenward_step_free`.
   */
  struct tokenward_step *step;
  /**
   * As `tokenward_step_decision`; NULL: the step stands at a call or a wait, and there is nothing more to know yet.
   */
  const struct tokenward_decision *decision;
  /**
   * 1 if the request goes on, else 0.
   */
  uint32_t allow;
  /**
   * 1 if it goes on with no more than its header lines changed, as `tokenward_decision_headers_alone` says, else 0.
   */
  uint32_t headers_alone;
  /**
   * A number of `tokenward_identity`.
   */
  uint32_t identity;
  /**
   * Nothing.
   */
  uint32_t reserved;
  /**
   * As `tokenward_decision_shared`.
   */
  uint64_t shared;
  /**
   * As `tokenward_decision_remove`.
   */
  const struct tokenward_str *remove;
  /**
   * How many there are.
   */
  size_t remove_len;
} tokenward_brief;

/**
 * What a host needs of a decision about every request. What there is none of is 0 or NULL.
 */
typedef struct tokenward_summary {
  /**
   * How much was written: what was asked for.
   */
  size_t struct_size;
  /**
   * 1 if the request goes on, else 0.
   */
  uint32_t allow;
  /**
   * A number of `tokenward_decided_by`.
   */
  uint32_t source;
  /**
   * A number of `tokenward_identity`.
   */
  uint32_t identity;
  /**
   * A number of `tokenward_reason`; 0 where the request goes on.
   */
  uint32_t reason;
  /**
   * The status of a refusal; 0 where the request goes on.
   */
  uint32_t status;
  /**
   * Nothing.
   */
  uint32_t reserved;
  /**
   * As `tokenward_decision_remove`.
   */
  const struct tokenward_str *remove;
  /**
   * How many there are.
   */
  size_t remove_len;
  /**
   * As `tokenward_decision_set`.
   */
  const struct tokenward_header *set;
  /**
   * How many there are.
   */
  size_t set_len;
  /**
   * As `tokenward_decision_response_headers`, or `tokenward_decision_refusal_headers`.
   */
  const struct tokenward_header *headers;
  /**
   * How many there are.
   */
  size_t headers_len;
  /**
   * As `tokenward_decision_target`; `data` NULL: the client's own stays.
   */
  struct tokenward_str target;
  /**
   * As `tokenward_decision_body`, where `data` NULL is the client's own; or `tokenward_decision_refusal_body`.
   */
  struct tokenward_str body;
  /**
   * The consumer's id; `data` NULL: there is no consumer.
   */
  struct tokenward_str consumer_id;
  /**
   * The consumer's username; `data` NULL: it has none.
   */
  struct tokenward_str consumer_username;
  /**
   * The consumer's id in the host's own terms; `data` NULL: it has none.
   */
  struct tokenward_str consumer_custom_id;
} tokenward_summary;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Whether a program that was compiled with this header can use this library: the major numbers are equal, and the library's minor
 * number is at least the header's. A host checks this once, before anything else.
 *
 * version: TOKENWARD_ABI_VERSION of the header.
 *
 * Returns: TOKENWARD_OK or TOKENWARD_ABI_MISMATCH.
 *
 * Threads: any.
 */
enum tokenward_result tokenward_abi_check(uint32_t version);

/**
 * The ABI of this library.
 *
 * Returns: as TOKENWARD_ABI_VERSION.
 *
 * Threads: any.
 */
uint32_t tokenward_abi_version(void);

/**
 * The version of this library: `0.1.0`.
 *
 * Returns: a string that ends with NUL and lives as long as the process.
 *
 * Threads: any.
 */
const char *tokenward_version(void);

/**
 * The name of a result: `TOKENWARD_NULL_POINTER`, for messages.
 *
 * result: a number of `tokenward_result`; another one has the name `unknown`.
 *
 * Returns: a string that ends with NUL and lives as long as the process.
 *
 * Threads: any.
 */
const char *tokenward_result_name(uint32_t result);

/**
 * The name of a reason, as in logs and metrics: `token_missing`.
 *
 * reason: a number of `tokenward_reason`.
 * name: where the name goes; it lives as long as the process.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_INVALID_ARGUMENT for another number.
 *
 * Threads: any.
 */
enum tokenward_result tokenward_reason_name(uint32_t reason, struct tokenward_str *name);

/**
 * Everything that is wrong, one problem a line.
 *
 * error: the error.
 * message: where the text goes; it lives as long as the error.
 *
 * Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_error_message(const struct tokenward_error *error, struct tokenward_str *message);

/**
 * How many problems an error holds: none with TOKENWARD_SYSTEM.
 *
 * error: the error; NULL has none.
 *
 * Returns: the number.
 *
 * Threads: any, also at once.
 */
size_t tokenward_error_count(const struct tokenward_error *error);

/**
 * One problem of an error.
 *
 * error: the error.
 * index: from 0, below `tokenward_error_count`.
 * problem: where it goes; its text lives as long as the error.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_INVALID_ARGUMENT beyond the last.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_error_at(const struct tokenward_error *error,
                                         size_t index,
                                         struct tokenward_problem *problem);

/**
 * Frees an error.
 *
 * error: the error, or NULL.
 *
 * Threads: any, while no other uses it.
 */
void tokenward_error_free(struct tokenward_error *error);

/**
 * Whether only Tokenward may set a header of this name. A host takes such trailers of the client's out that come after `tokenward_begin`.
 *
 * name, name_len: the name, in any case; one that cannot be read counts as managed.
 *
 * Returns: whether it is managed.
 *
 * Threads: any.
 */
bool tokenward_is_managed(const char *name,
                          size_t name_len);

/**
 * Whether little of a request counts under a policy: of its header lines those alone whose names begin with `Authorization`, `X-Consumer-`,
 * `X-Credential-` or `X-Anonymous-Consumer`, case ignored and `_` and `.` read as `-`; its trailers; and its target if that has a `?`. A
 * host may then leave out all other lines, and give `/` for another target: every decision is the same. This holds until
 * `tokenward_introspector_replace_config`.
 *
 * introspector: the introspector; NULL: all of a request counts.
 * policy: the policy of the request, or NULL for the configuration's own.
 * method, method_len: the request's method.
 *
 * Returns: whether little of it counts.
 *
 * Threads: any, also at once.
 */
bool tokenward_is_lean(const struct tokenward_introspector *introspector,
                       const struct tokenward_policy *policy,
                       const char *method,
                       size_t method_len);

/**
 * The first 8 hex digits of the SHA-256 of the token that a request presents: the form in which log lines name it. Too short to tell
 * tokens apart for certain.
 *
 * introspector: the introspector.
 * policy: the policy of the request, or NULL for the configuration's own.
 * request: what the client sent; read during the call.
 * digits: where the digits go: 8 bytes, without a NUL.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_ABSENT if no well-formed token is presented; or what is wrong with an argument.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_fingerprint(const struct tokenward_introspector *introspector,
                                            const struct tokenward_policy *policy,
                                            const struct tokenward_request *request,
                                            char *digits);

/**
 * Reads and checks a configuration and its consumers. Secrets by environment and file are read now.
 *
 * source: the text, and how it is read.
 * document: where the document goes; free it with `tokenward_document_free`.
 * error: where everything that is wrong goes, to be freed with `tokenward_error_free`; written with TOKENWARD_INVALID_CONFIG alone. May
 * be NULL.
 *
 * Returns: TOKENWARD_OK, TOKENWARD_INVALID_CONFIG, or what is wrong with an argument.
 *
 * Threads: any.
 */
enum tokenward_result tokenward_document_new(const struct tokenward_source *source,
                                             struct tokenward_document **document,
                                             struct tokenward_error **error);

/**
 * How many things are allowed in a document but probably not meant.
 *
 * document: the document; NULL has none.
 *
 * Returns: the number.
 *
 * Threads: any, also at once.
 */
size_t tokenward_document_warning_count(const struct tokenward_document *document);

/**
 * One thing that is allowed in a document but probably not meant. An introspector logs them, too.
 *
 * document: the document.
 * index: from 0, below `tokenward_document_warning_count`.
 * problem: where it goes; its text lives as long as the document.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_INVALID_ARGUMENT beyond the last.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_document_warning_at(const struct tokenward_document *document,
                                                    size_t index,
                                                    struct tokenward_problem *problem);

/**
 * How many consumers a document has.
 *
 * document: the document; NULL has none.
 *
 * Returns: the number.
 *
 * Threads: any, also at once.
 */
size_t tokenward_document_consumer_count(const struct tokenward_document *document);

/**
 * One consumer of a document, in constant time.
 *
 * document: the document.
 * index: from 0, below `tokenward_document_consumer_count`.
 *
 * Returns: the consumer, which lives as long as the document; NULL beyond the last.
 *
 * Threads: any, also at once.
 */
const struct tokenward_consumer *tokenward_document_consumer_at(const struct tokenward_document *document,
                                                                size_t index);

/**
 * The endpoint's URL: whom a host that makes the calls itself will talk to. Its query counts as a secret: not for logs.
 *
 * document: the document.
 * url: where the URL goes; it lives as long as the document.
 *
 * Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_document_introspection_url(const struct tokenward_document *document,
                                                           struct tokenward_str *url);

/**
 * The file of certificate authorities that vouch for the endpoint. A host that makes the calls itself must honour it.
 *
 * document: the document.
 * path: where the file's path goes; it lives as long as the document.
 * pem: where the file's content goes, as it was when the document was read; it lives as long as the document.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_ABSENT where it is the system's authorities that vouch.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_document_tls_roots(const struct tokenward_document *document,
                                                   struct tokenward_str *path,
                                                   struct tokenward_str *pem);

/**
 * How long an idle connection to the endpoint is kept.
 *
 * document: the document; NULL reads as 0.
 *
 * Returns: microseconds.
 *
 * Threads: any, also at once.
 */
uint64_t tokenward_document_keepalive_us(const struct tokenward_document *document);

/**
 * The time that one request may spend on introspection, waiting and retries included.
 *
 * document: the document; NULL reads as 0.
 *
 * Returns: microseconds.
 *
 * Threads: any, also at once.
 */
uint64_t tokenward_document_timeout_us(const struct tokenward_document *document);

/**
 * The longest reply of the endpoint that is read. A host stops beyond it and says TOKENWARD_FAILURE_TOO_LONG.
 *
 * document: the document; NULL reads as 0.
 *
 * Returns: bytes.
 *
 * Threads: any, also at once.
 */
size_t tokenward_document_reply_bytes(const struct tokenward_document *document);

/**
 * How many introspections may be under way at once.
 *
 * document: the document; NULL reads as 0.
 *
 * Returns: the number.
 *
 * Threads: any, also at once.
 */
size_t tokenward_document_concurrent_introspections(const struct tokenward_document *document);

/**
 * Frees a document. Introspectors made of it stay.
 *
 * document: the document, or NULL.
 *
 * Threads: any, while no other uses it.
 */
void tokenward_document_free(struct tokenward_document *document);

/**
 * A consumer's id, unique in its directory.
 *
 * consumer: the consumer.
 * id: where the id goes; it lives as long as what the consumer was seen through.
 *
 * Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_consumer_id(const struct tokenward_consumer *consumer, struct tokenward_str *id);

/**
 * A consumer's username, unique in its directory.
 *
 * consumer: the consumer.
 * username: where the username goes; it lives as long as what the consumer was seen through.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_ABSENT if it has none.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_consumer_username(const struct tokenward_consumer *consumer,
                                                  struct tokenward_str *username);

/**
 * A consumer's id in the host's own terms, unique in its directory.
 *
 * consumer: the consumer.
 * custom_id: where the id goes; it lives as long as what the consumer was seen through.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_ABSENT if it has none.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_consumer_custom_id(const struct tokenward_consumer *consumer,
                                                   struct tokenward_str *custom_id);

/**
 * One of a consumer's tags.
 *
 * consumer: the consumer.
 * index: from 0, until TOKENWARD_ABSENT.
 * tag: where the tag goes; it lives as long as what the consumer was seen through.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_ABSENT beyond the last.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_consumer_tag_at(const struct tokenward_consumer *consumer,
                                                size_t index,
                                                struct tokenward_str *tag);

/**
 * One of a consumer's groups.
 *
 * consumer: the consumer.
 * index: from 0, until TOKENWARD_ABSENT.
 * group: where the group goes; it lives as long as what the consumer was seen through.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_ABSENT beyond the last.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_consumer_group_at(const struct tokenward_consumer *consumer,
                                                  size_t index,
                                                  struct tokenward_str *group);

/**
 * Makes an introspector. After a fork, each process makes its own.
 *
 * document: the configuration and the consumers; it may be freed afterwards.
 * options: where log lines go; NULL: nowhere.
 * introspector: where the introspector goes; free it with `tokenward_introspector_free`.
 * error: where the cause goes, to be freed with `tokenward_error_free`; written with TOKENWARD_SYSTEM alone. May be NULL.
 *
 * Returns: TOKENWARD_OK, TOKENWARD_SYSTEM, or what is wrong with an argument.
 *
 * Threads: any.
 */
enum tokenward_result tokenward_introspector_new(const struct tokenward_document *document,
                                                 const struct tokenward_options *options,
                                                 struct tokenward_introspector **introspector,
                                                 struct tokenward_error **error);

/**
 * Replaces the directory of consumers at once, for every decision from now on.
 *
 * introspector: the introspector.
 * document: whose consumers; it may be freed afterwards.
 *
 * Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_introspector_replace_consumers(const struct tokenward_introspector *introspector,
                                                               const struct tokenward_document *document);

/**
 * Replaces the configuration, and not the consumers. Remembered answers are kept if URL, credentials, parameters, headers, hint and
 * `introspect_request` are the same. Policies made before stay as they are.
 *
 * introspector: the introspector.
 * document: whose configuration; it may be freed afterwards.
 * error: as for `tokenward_introspector_new`, to be freed with `tokenward_error_free`; the old configuration then stays. May be NULL.
 *
 * Returns: TOKENWARD_OK, TOKENWARD_SYSTEM, or TOKENWARD_NULL_POINTER.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_introspector_replace_config(const struct tokenward_introspector *introspector,
                                                            const struct tokenward_document *document,
                                                            struct tokenward_error **error);

/**
 * Forgets what is remembered about a token, for every method and path. A request that begins afterwards asks anew.
 *
 * introspector: the introspector.
 * token, token_len: the token.
 * forgotten: where it goes whether there was something. May be NULL.
 *
 * Returns: TOKENWARD_OK, or what is wrong with an argument.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_introspector_forget(const struct tokenward_introspector *introspector,
                                                    const char *token,
                                                    size_t token_len,
                                                    bool *forgotten);

/**
 * Forgets everything that is remembered about tokens.
 *
 * introspector: the introspector.
 *
 * Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_introspector_forget_all(const struct tokenward_introspector *introspector);

/**
 * How much of a request's body is read at most.
 *
 * introspector: the introspector; NULL reads as 0.
 *
 * Returns: bytes.
 *
 * Threads: any, also at once.
 */
size_t tokenward_body_bytes(const struct tokenward_introspector *introspector);

/**
 * Takes the tag of a wait that can go on (`tokenward_step_set_tag`).
 *
 * introspector: the introspector.
 * tag: where the tag goes. Where several threads use the introspector, another one may have resumed or freed its step since.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_ABSENT if there is none.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_next_ready(const struct tokenward_introspector *introspector,
                                           uint64_t *tag);

/**
 * Frees an introspector. Steps, policies and snapshots of it stay, and go on working.
 *
 * introspector: the introspector, or NULL.
 *
 * Threads: any, while no other uses it.
 */
void tokenward_introspector_free(struct tokenward_introspector *introspector);

/**
 * Makes a further policy over the introspector's cache: for a route that wants other scopes, say.
 *
 * introspector: the introspector.
 * json, json_len: an object of policy fields; those that it does not give are those of the configuration of now.
 * policy: where the policy goes; free it with `tokenward_policy_free`.
 * error: where everything that is wrong goes, to be freed with `tokenward_error_free`; written with TOKENWARD_INVALID_CONFIG alone. May
 * be NULL.
 *
 * Returns: TOKENWARD_OK, TOKENWARD_INVALID_CONFIG, or what is wrong with an argument.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_policy_new(const struct tokenward_introspector *introspector,
                                           const char *json,
                                           size_t json_len,
                                           struct tokenward_policy **policy,
                                           struct tokenward_error **error);

/**
 * Frees a policy. Steps begun by it stay.
 *
 * policy: the policy, or NULL.
 *
 * Threads: any, while no other uses it.
 */
void tokenward_policy_free(struct tokenward_policy *policy);

/**
 * Begins to decide about a request.
 *
 * introspector: the introspector.
 * policy: a further policy, or NULL for the configuration's own.
 * request: what the client sent; read during the call.
 * now: the time of now.
 * step: where the step goes; free it with `tokenward_step_free`.
 *
 * Returns: TOKENWARD_OK, or what is wrong with an argument; the request is then denied by the host.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_begin(const struct tokenward_introspector *introspector,
                                      const struct tokenward_policy *policy,
                                      const struct tokenward_request *request,
                                      const struct tokenward_time *now,
                                      struct tokenward_step **step);

/**
 * Whether the body is needed to decide. A host reads and hands over a body only then, up to `tokenward_body_bytes`.
 *
 * introspector: the introspector.
 * policy: a further policy, or NULL for the configuration's own.
 * request: what the client sent, so far; read during the call.
 * needed: where the answer goes.
 *
 * Returns: TOKENWARD_OK, or what is wrong with an argument.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_needs_body(const struct tokenward_introspector *introspector,
                                           const struct tokenward_policy *policy,
                                           const struct tokenward_request *request,
                                           bool *needed);

/**
 * Decides about a request, asking the authorization server where needed: for hosts without an event loop. Blocks for as long as
 * `timeout` says at most. In the shared library alone; `libtokenward.a` is without it.
 *
 * introspector: the introspector. Any number of threads share it and its connections.
 * policy: a further policy, or NULL for the configuration's own.
 * request: what the client sent; read during the call.
 * step: where the step goes, which holds its decision; free it with `tokenward_step_free`.
 *
 * Returns: TOKENWARD_OK, or what is wrong with an argument; the request is then denied by the host.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_authenticate(const struct tokenward_introspector *introspector,
                                             const struct tokenward_policy *policy,
                                             const struct tokenward_request *request,
                                             struct tokenward_step **step);

/**
 * The refusal for a defect of the host's own: `internal`, 500. For a host that cannot go on with a request.
 *
 * introspector: the introspector.
 * head: whether the request is HEAD.
 * step: where the step goes, which holds the refusal; free it with `tokenward_step_free`.
 *
 * Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_internal(const struct tokenward_introspector *introspector,
                                         bool head,
                                         struct tokenward_step **step);

/**
 * The call to make, if the step stands there. Of this, `tokenward_step_wait` and `tokenward_step_decision`, exactly one is not NULL, but
 * inside of a callback that runs during a reply to this very step, its resumption or its freeing: there it stands at none.
 *
 * step: the step.
 *
 * Returns: the call, which lives until the step is replied to or freed; or NULL.
 *
 * Threads: one at a time.
 */
const struct tokenward_outbound *tokenward_step_outbound(const struct tokenward_step *step);

/**
 * The wait, if the step stands there. Park the request; resume the step when it is woken or the wait's deadline comes.
 *
 * step: the step.
 *
 * Returns: the wait, which lives until the step is resumed or freed; or NULL.
 *
 * Threads: one at a time.
 */
const struct tokenward_wait *tokenward_step_wait(const struct tokenward_step *step);

/**
 * The decision, if there is one.
 *
 * step: the step.
 *
 * Returns: the decision, which lives as long as the step; or NULL.
 *
 * Threads: one at a time.
 */
const struct tokenward_decision *tokenward_step_decision(const struct tokenward_step *step);

/**
 * Hands over how the call went. The step goes on: to its decision, or to another call after a failed connection. Callbacks of waits that
 * wanted the same answer run inside of it.
 *
 * step: a step that stands at a call. With an argument that is refused, it stays there.
 * reply: the answer or the failure; read during the call.
 * now: the time of now.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_ALREADY_USED, TOKENWARD_WRONG_STEP; TOKENWARD_FREED if a callback freed the step;
 * TOKENWARD_PANIC, the step then holds a refusal; or what is wrong with an argument.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_step_reply(struct tokenward_step *step,
                                           const struct tokenward_reply *reply,
                                           const struct tokenward_time *now);

/**
 * Goes on after a wait: to a decision if there is an answer or the time is over, to a call if the asker went away, and to a wait again
 * if it is resumed early. Resume it in any case when its deadline comes. A wait that it comes to wants a function or tag as the first did:
 * the one registered before stays if it is the same wait, and giving another is always right.
 *
 * step: a step that stands at a wait.
 * now: the time of now.
 *
 * Returns: as `tokenward_step_reply`.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_step_resume(struct tokenward_step *step,
                                            const struct tokenward_time *now);

/**
 * Registers what is called when a wait can be resumed with profit: exactly once, with `true`; with `false` if the wait ends first (the
 * step was resumed or freed, or another function or tag took this one's place). That is where `userdata` is released. It may be called
 * before this function returns.
 *
 * step: a step that stands at a wait.
 * ready: the function.
 * userdata: what it is called with.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_FREED if a callback freed the step, and TOKENWARD_PANIC, the step then holds a refusal: the function was
 * called with those. With all others it is never called: TOKENWARD_ALREADY_USED, TOKENWARD_WRONG_STEP, TOKENWARD_NULL_POINTER.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_step_on_ready(struct tokenward_step *step,
                                              tokenward_ready_fn ready,
                                              void *userdata);

/**
 * Registers a tag instead of a function: when the wait can be resumed with profit, `tokenward_next_ready` gives the tag, once. For hosts
 * that cannot be called back. A wait that ends first gives none, and takes back a tag that nobody has asked for yet.
 *
 * step: a step that stands at a wait.
 * tag: any number.
 *
 * Returns: as `tokenward_step_on_ready`.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_step_set_tag(struct tokenward_step *step,
                                             uint64_t tag);

/**
 * Frees a step. One without a decision has denied its request; whoever waits for the same answer is looked after, so that callbacks may
 * run. A callback may free the step that it is called about.
 *
 * step: the step, or NULL.
 *
 * Threads: one at a time.
 */
void tokenward_step_free(struct tokenward_step *step);

/**
 * `POST`.
 *
 * outbound: the call.
 * method: where it goes; it lives as long as the process.
 *
 * Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_outbound_method(const struct tokenward_outbound *outbound,
                                                struct tokenward_str *method);

/**
 * The endpoint's URL. Its query counts as a secret.
 *
 * outbound: the call.
 * url: where it goes; it lives as long as the call.
 *
 * Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_outbound_url(const struct tokenward_outbound *outbound, struct tokenward_str *url);

/**
 * The header lines, but for `Host` and `Content-Length`, which are the transport's. They hold credentials.
 *
 * outbound: the call.
 * headers: where the array goes; it lives as long as the call.
 * count: how many there are.
 *
 * Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_outbound_headers(const struct tokenward_outbound *outbound,
                                                 const struct tokenward_header **headers,
                                                 size_t *count);

/**
 * The form. It holds the token.
 *
 * outbound: the call.
 * body: where it goes; it lives as long as the call.
 *
 * Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_outbound_body(const struct tokenward_outbound *outbound, struct tokenward_str *body);

/**
 * How long the call may take, from connecting to the last byte of the answer; then it is TOKENWARD_FAILURE_TIMED_OUT.
 *
 * outbound: the call; NULL reads as 0.
 *
 * Returns: microseconds from when the step came to this call.
 *
 * Threads: one at a time.
 */
uint64_t tokenward_outbound_time_left_us(const struct tokenward_outbound *outbound);

/**
 * The same as a moment.
 *
 * outbound: the call; NULL reads as 0.
 *
 * Returns: microseconds on the monotonic clock of `tokenward_time`.
 *
 * Threads: one at a time.
 */
uint64_t tokenward_outbound_deadline_us(const struct tokenward_outbound *outbound);

/**
 * Until when a wait may last. The host resumes the step then, woken or not.
 *
 * wait: the wait; NULL reads as 0.
 *
 * Returns: microseconds on the monotonic clock of `tokenward_time`.
 *
 * Threads: one at a time.
 */
uint64_t tokenward_wait_deadline_us(const struct tokenward_wait *wait);

/**
 * Begins to decide about a request, as `tokenward_begin` does, and says with it what a host needs to know of most decisions: for hosts to
 * which each call costs something.
 *
 * introspector: the introspector.
 * policy: a further policy, or NULL for the configuration's own.
 * request: what the client sent; read during the call.
 * now: the time of now.
 * brief: where it goes; what it points to but for the step lives as long as the step.
 * size: `sizeof(tokenward_brief)`: as much is written.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_INVALID_ARGUMENT for a size of no header up to this library's, or what else is wrong with an argument;
 * the request is then denied by the host.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_begin_brief(const struct tokenward_introspector *introspector,
                                            const struct tokenward_policy *policy,
                                            const struct tokenward_request *request,
                                            const struct tokenward_time *now,
                                            struct tokenward_brief *brief,
                                            size_t size);

/**
 * Whether the request goes on. Where it does not, the client gets the refusal and the upstream nothing.
 *
 * decision: the decision; NULL is none, and does not go on.
 *
 * Returns: whether it goes on.
 *
 * Threads: one at a time.
 */
bool tokenward_decision_is_allow(const struct tokenward_decision *decision);

/**
 * Where the answer behind a decision came from.
 *
 * decision: the decision; NULL came from nowhere.
 *
 * Returns: the source.
 *
 * Threads: one at a time.
 */
enum tokenward_decided_by tokenward_decision_source(const struct tokenward_decision *decision);

/**
 * Who is behind a request that goes on.
 *
 * decision: the decision; behind NULL and behind a refusal is nobody.
 *
 * Returns: the kind of identity; the consumer is `tokenward_decision_consumer`.
 *
 * Threads: one at a time.
 */
enum tokenward_identity tokenward_decision_identity(const struct tokenward_decision *decision);

/**
 * The consumer behind a request that goes on, matched or anonymous.
 *
 * decision: the decision.
 *
 * Returns: the consumer, which lives as long as the decision; NULL if there is none.
 *
 * Threads: one at a time.
 */
const struct tokenward_consumer *tokenward_decision_consumer(const struct tokenward_decision *decision);

/**
 * Names to remove from the upstream request: every header line and trailer of each, case ignored. Before `tokenward_decision_set`.
 * The host drops what the client's `Connection` header names before that.
 *
 * decision: the decision.
 * names: where the array goes; it lives as long as the decision.
 * count: how many there are.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_ABSENT for a refusal; TOKENWARD_NULL_POINTER.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_decision_remove(const struct tokenward_decision *decision,
                                                const struct tokenward_str **names,
                                                size_t *count);

/**
 * Header lines to add to the upstream request, after the removals. A name can come more than once.
 *
 * decision: the decision.
 * headers: where the array goes; it lives as long as the decision.
 * count: how many there are.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_ABSENT for a refusal; TOKENWARD_NULL_POINTER.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_decision_set(const struct tokenward_decision *decision,
                                             const struct tokenward_header **headers,
                                             size_t *count);

/**
 * A number that decisions have in common whose identity, claims and lines of `tokenward_decision_set` are the same because they were
 * computed once. It is never used again in the process: what a host makes of them it may keep under the number.
 *
 * decision: the decision.
 *
 * Returns: the number; 0 where there is nothing to share, for a refusal, and for NULL.
 *
 * Threads: one at a time.
 */
uint64_t tokenward_decision_shared(const struct tokenward_decision *decision);

/**
 * What becomes of a request that goes on with no more than its header lines changed, which is what most do: for hosts that keep what they
 * made of the lines to set under their number.
 *
 * decision: the decision.
 * shared: where the number goes; as `tokenward_decision_shared`.
 * names: where the array of names to remove goes, as `tokenward_decision_remove`; it lives as long as the decision.
 * count: how many there are.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_ABSENT for a refusal, and where the target, the body or the answer change, too;
 * TOKENWARD_NULL_POINTER.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_decision_headers_alone(const struct tokenward_decision *decision,
                                                       uint64_t *shared,
                                                       const struct tokenward_str **names,
                                                       size_t *count);

/**
 * The request target for the upstream, where the credential was taken out of it.
 *
 * decision: the decision.
 * target: where the target goes; it lives as long as the decision.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_ABSENT where the client's own stays, and for a refusal; TOKENWARD_NULL_POINTER.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_decision_target(const struct tokenward_decision *decision,
                                                struct tokenward_str *target);

/**
 * The body for the upstream, where the credential was taken out of it; its length is the new `Content-Length`.
 *
 * decision: the decision.
 * body: where the body goes; it lives as long as the decision.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_ABSENT where the client's own stays, and for a refusal; TOKENWARD_NULL_POINTER.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_decision_body(const struct tokenward_decision *decision, struct tokenward_str *body);

/**
 * Header lines to add to every 2xx answer that the client gets from the upstream.
 *
 * decision: the decision.
 * headers: where the array goes; it lives as long as the decision.
 * count: how many there are; often none.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_ABSENT for a refusal; TOKENWARD_NULL_POINTER.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_decision_response_headers(const struct tokenward_decision *decision,
                                                          const struct tokenward_header **headers,
                                                          size_t *count);

/**
 * When the token expires, if the authorization server says so.
 *
 * decision: the decision.
 * expires_us: where the moment goes, in microseconds since 1970-01-01 00:00 UTC.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_ABSENT where nothing is said, and for a refusal; TOKENWARD_NULL_POINTER.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_decision_expires_us(const struct tokenward_decision *decision, int64_t *expires_us);

/**
 * A claim as JSON text, as the authorization server wrote it: `"alice"`, `20`, `["a","b"]`.
 *
 * decision: the decision.
 * name, name_len: the claim's name.
 * json: where the text goes; it lives as long as the decision.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_ABSENT where there is no such claim, and for a refusal; or what is wrong with an argument.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_decision_claim(const struct tokenward_decision *decision,
                                               const char *name,
                                               size_t name_len,
                                               struct tokenward_str *json);

/**
 * A claim that is a JSON string, as text: without quotes, and with escapes resolved. It may hold any character, NUL included.
 *
 * decision: the decision.
 * name, name_len: the claim's name.
 * text: where the text goes, in UTF-8; it lives as long as the decision.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_ABSENT where there is no such claim or it is no string, and for a refusal; or what is wrong with an
 * argument.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_decision_claim_text(const struct tokenward_decision *decision,
                                                    const char *name,
                                                    size_t name_len,
                                                    struct tokenward_str *text);

/**
 * The value at a JSON Pointer (RFC 6901) as JSON text: `/realm_access/roles/0`. The empty pointer is all claims as one object.
 *
 * decision: the decision.
 * pointer, pointer_len: the pointer.
 * json: where the text goes; it lives as long as the decision.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_ABSENT where there is no such value, and for a refusal; or what is wrong with an argument.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_decision_claim_at(const struct tokenward_decision *decision,
                                                  const char *pointer,
                                                  size_t pointer_len,
                                                  struct tokenward_str *json);

/**
 * A claim as one header value, encoded as that of `X-Credential-*` would be under a policy: for logs and templates, and safe in a
 * header. An array that the policy sends as several lines is compact JSON here.
 *
 * decision: the decision.
 * introspector: the introspector.
 * policy: the policy of the request, or NULL for the configuration's own.
 * name, name_len: the claim's name.
 * value: where the value goes; it lives as long as the decision.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_ABSENT where there is no such claim, it counts as absent or is over `limits.header_bytes`, and for a
 * refusal; or what is wrong with an argument.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_decision_claim_value(const struct tokenward_decision *decision,
                                                     const struct tokenward_introspector *introspector,
                                                     const struct tokenward_policy *policy,
                                                     const char *name,
                                                     size_t name_len,
                                                     struct tokenward_str *value);

/**
 * Why a request is denied.
 *
 * decision: the decision; NULL is TOKENWARD_REASON_INTERNAL.
 *
 * Returns: a number of `tokenward_reason`; 0 where the request goes on.
 *
 * Threads: one at a time.
 */
uint32_t tokenward_decision_reason(const struct tokenward_decision *decision);

/**
 * The status of a refusal.
 *
 * decision: the decision; NULL is 500.
 *
 * Returns: 400 to 503; 0 where the request goes on.
 *
 * Threads: one at a time.
 */
uint32_t tokenward_decision_status(const struct tokenward_decision *decision);

/**
 * The header lines of a refusal, in order, but for `Content-Length`, which is the host's.
 *
 * decision: the decision.
 * headers: where the array goes; it lives as long as the decision.
 * count: how many there are.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_ABSENT where the request goes on; TOKENWARD_NULL_POINTER.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_decision_refusal_headers(const struct tokenward_decision *decision,
                                                         const struct tokenward_header **headers,
                                                         size_t *count);

/**
 * The body of a refusal.
 *
 * decision: the decision.
 * body: where the body goes; it lives as long as the process.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_ABSENT for HEAD, and where the request goes on; TOKENWARD_NULL_POINTER.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_decision_refusal_body(const struct tokenward_decision *decision,
                                                      struct tokenward_str *body);

/**
 * All that a host needs of a decision about every request, in one call.
 *
 * decision: the decision.
 * summary: where it goes; what it points to lives as long as the decision.
 * size: `sizeof(tokenward_summary)`: as much is written.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_INVALID_ARGUMENT for a size of no header up to this library's; TOKENWARD_NULL_POINTER.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_decision_summary(const struct tokenward_decision *decision,
                                                 struct tokenward_summary *summary,
                                                 size_t size);

/**
 * Takes the counters of now.
 *
 * introspector: the introspector.
 * snapshot: where the snapshot goes; free it with `tokenward_snapshot_free`.
 *
 * Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_snapshot_new(const struct tokenward_introspector *introspector,
                                             struct tokenward_snapshot **snapshot);

/**
 * One counter.
 *
 * snapshot: the snapshot.
 * counter: a number of `tokenward_counter`.
 * value: where the value goes.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_INVALID_ARGUMENT for a number that is none.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_snapshot_counter(const struct tokenward_snapshot *snapshot,
                                                 uint32_t counter,
                                                 uint64_t *value);

/**
 * How many requests were denied for a reason.
 *
 * snapshot: the snapshot.
 * reason: a number of `tokenward_reason`.
 * value: where the number goes.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_INVALID_ARGUMENT for a number that is none.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_snapshot_denied(const struct tokenward_snapshot *snapshot,
                                                uint32_t reason,
                                                uint64_t *value);

/**
 * How long calls took: one bucket of the histogram.
 *
 * snapshot: the snapshot.
 * bucket: from 0, until TOKENWARD_ABSENT.
 * bound_ms: where the bucket's upper bound in milliseconds goes; the last bucket's is UINT64_MAX.
 * value: where the number of calls goes that took no longer, and longer than the bucket before.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_ABSENT beyond the last.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_snapshot_latency(const struct tokenward_snapshot *snapshot,
                                                 size_t bucket,
                                                 uint64_t *bound_ms,
                                                 uint64_t *value);

/**
 * The snapshot as numbers, for hosts that add up what several processes counted: their sums, one by one, are the numbers of all
 * processes together, and go to `tokenward_snapshot_of_numbers`. Order and number are those of this version of the library.
 *
 * snapshot: the snapshot.
 * numbers: where the array goes; it lives as long as the snapshot.
 * count: how many there are.
 *
 * Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_snapshot_numbers(const struct tokenward_snapshot *snapshot,
                                                 const uint64_t **numbers,
                                                 size_t *count);

/**
 * Makes a snapshot of numbers.
 *
 * numbers, count: as many as `tokenward_snapshot_numbers` gives.
 * snapshot: where the snapshot goes; free it with `tokenward_snapshot_free`.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_INVALID_ARGUMENT for another number of them; TOKENWARD_NULL_POINTER.
 *
 * Threads: any.
 */
enum tokenward_result tokenward_snapshot_of_numbers(const uint64_t *numbers,
                                                    size_t count,
                                                    struct tokenward_snapshot **snapshot);

/**
 * The counters as Prometheus text (exposition format 0.0.4).
 *
 * snapshot: the snapshot.
 * text: where the text goes; it lives as long as the snapshot.
 *
 * Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
 *
 * Threads: one at a time.
 */
enum tokenward_result tokenward_snapshot_prometheus(const struct tokenward_snapshot *snapshot,
                                                    struct tokenward_str *text);

/**
 * Frees a snapshot.
 *
 * snapshot: the snapshot, or NULL.
 *
 * Threads: any, while no other uses it.
 */
void tokenward_snapshot_free(struct tokenward_snapshot *snapshot);

/**
 * Takes the oldest log line that was kept (`log_lines` of the options).
 *
 * introspector: the introspector.
 * line: where the line goes; free it with `tokenward_line_free`.
 *
 * Returns: TOKENWARD_OK; TOKENWARD_ABSENT if there is none.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_next_log(const struct tokenward_introspector *introspector,
                                         struct tokenward_line **line);

/**
 * How urgent a line is.
 *
 * line: the line; NULL reads as TOKENWARD_LEVEL_ERROR.
 *
 * Returns: the level.
 *
 * Threads: any, also at once.
 */
enum tokenward_level tokenward_line_level(const struct tokenward_line *line);

/**
 * What a line is about, if that is a reason to deny.
 *
 * line: the line; NULL is about none.
 *
 * Returns: a number of `tokenward_reason`, or 0.
 *
 * Threads: any, also at once.
 */
uint32_t tokenward_line_reason(const struct tokenward_line *line);

/**
 * The line's fixed words, without reason and fields.
 *
 * line: the line.
 * message: where the words go; they live as long as the line.
 *
 * Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_line_message(const struct tokenward_line *line, struct tokenward_str *message);

/**
 * What is particular about a line: pairs such as `status` and `503`.
 *
 * line: the line.
 * fields: where the array goes; it lives as long as the line.
 * count: how many there are.
 *
 * Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_line_fields(const struct tokenward_line *line,
                                            const struct tokenward_header **fields,
                                            size_t *count);

/**
 * The whole line: `message reason=... key=value ...`.
 *
 * line: the line.
 * text: where the text goes; it lives as long as the line.
 *
 * Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
 *
 * Threads: any, also at once.
 */
enum tokenward_result tokenward_line_text(const struct tokenward_line *line, struct tokenward_str *text);

/**
 * Frees a line of `tokenward_next_log`. A line that a log function was given is not the host's to free.
 *
 * line: the line, or NULL.
 *
 * Threads: any, while no other uses it.
 */
void tokenward_line_free(struct tokenward_line *line);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TOKENWARD_H */
