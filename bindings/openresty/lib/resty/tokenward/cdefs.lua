-- Made by bindings/openresty/generate from include/tokenward.h; changes belong there.

local ffi = require "ffi"

ffi.cdef[[
typedef enum tokenward_result {
  TOKENWARD_OK = 0,
  TOKENWARD_ABSENT = 1,
  TOKENWARD_NULL_POINTER = 2,
  TOKENWARD_INVALID_ARGUMENT = 3,
  TOKENWARD_NOT_UTF8 = 4,
  TOKENWARD_INVALID_CONFIG = 5,
  TOKENWARD_SYSTEM = 6,
  TOKENWARD_ALREADY_USED = 7,
  TOKENWARD_WRONG_STEP = 8,
  TOKENWARD_FREED = 9,
  TOKENWARD_ABI_MISMATCH = 10,
  TOKENWARD_PANIC = 11,
} tokenward_result;
typedef enum tokenward_decided_by {
  TOKENWARD_SOURCE_NONE = 0,
  TOKENWARD_SOURCE_ENDPOINT = 1,
  TOKENWARD_SOURCE_CACHE = 2,
  TOKENWARD_SOURCE_WAITING = 3,
} tokenward_decided_by;
typedef enum tokenward_identity {
  TOKENWARD_IDENTITY_NONE = 0,
  TOKENWARD_IDENTITY_UNMATCHED = 1,
  TOKENWARD_IDENTITY_CONSUMER = 2,
  TOKENWARD_IDENTITY_ANONYMOUS = 3,
} tokenward_identity;
typedef enum tokenward_level {
  TOKENWARD_LEVEL_ERROR = 1,
  TOKENWARD_LEVEL_WARN = 2,
  TOKENWARD_LEVEL_INFO = 3,
  TOKENWARD_LEVEL_DEBUG = 4,
} tokenward_level;
typedef enum tokenward_reason {
  TOKENWARD_REASON_TOKEN_MISSING = 1100,
  TOKENWARD_REASON_REQUEST_MALFORMED = 1101,
  TOKENWARD_REASON_TOKEN_INACTIVE = 1200,
  TOKENWARD_REASON_TOKEN_EXPIRED = 1201,
  TOKENWARD_REASON_TOKEN_NOT_YET_VALID = 1202,
  TOKENWARD_REASON_TOKEN_NOT_USABLE = 1203,
  TOKENWARD_REASON_INSUFFICIENT_SCOPE = 1300,
  TOKENWARD_REASON_CONSUMER_UNKNOWN = 1301,
  TOKENWARD_REASON_ENDPOINT_UNREACHABLE = 1400,
  TOKENWARD_REASON_ENDPOINT_TIMED_OUT = 1401,
  TOKENWARD_REASON_ENDPOINT_UNAVAILABLE = 1402,
  TOKENWARD_REASON_OVERLOADED = 1403,
  TOKENWARD_REASON_ENDPOINT_REFUSED = 1410,
  TOKENWARD_REASON_REPLY_MALFORMED = 1411,
  TOKENWARD_REASON_ANONYMOUS_CONSUMER_MISSING = 1500,
  TOKENWARD_REASON_INTERNAL = 1599,
} tokenward_reason;
typedef enum tokenward_failure {
  TOKENWARD_FAILURE_NONE = 0,
  TOKENWARD_FAILURE_CONNECT = 1,
  TOKENWARD_FAILURE_DNS = 2,
  TOKENWARD_FAILURE_TLS = 3,
  TOKENWARD_FAILURE_CLOSED = 4,
  TOKENWARD_FAILURE_TIMED_OUT = 5,
  TOKENWARD_FAILURE_PROTOCOL = 6,
  TOKENWARD_FAILURE_TOO_LONG = 7,
  TOKENWARD_FAILURE_CUT_OFF = 8,
} tokenward_failure;
typedef enum tokenward_counter {
  TOKENWARD_COUNTER_HITS = 0,
  TOKENWARD_COUNTER_NEGATIVE_HITS = 1,
  TOKENWARD_COUNTER_MISSES = 2,
  TOKENWARD_COUNTER_WAITS = 3,
  TOKENWARD_COUNTER_INTROSPECTIONS = 4,
  TOKENWARD_COUNTER_VALUES_LEFT_OUT = 5,
  TOKENWARD_COUNTER_BODIES_NOT_SEARCHED = 6,
  TOKENWARD_COUNTER_ALLOWED = 7,
  TOKENWARD_COUNTER_EVICTIONS = 8,
  TOKENWARD_COUNTER_ENTRIES = 9,
  TOKENWARD_COUNTER_NEGATIVE_ENTRIES = 10,
  TOKENWARD_COUNTER_BYTES = 11,
  TOKENWARD_COUNTER_IN_FLIGHT = 12,
} tokenward_counter;
typedef struct tokenward_consumer tokenward_consumer;
typedef struct tokenward_decision tokenward_decision;
typedef struct tokenward_document tokenward_document;
typedef struct tokenward_error tokenward_error;
typedef struct tokenward_introspector tokenward_introspector;
typedef struct tokenward_line tokenward_line;
typedef struct tokenward_outbound tokenward_outbound;
typedef struct tokenward_policy tokenward_policy;
typedef struct tokenward_snapshot tokenward_snapshot;
typedef struct tokenward_step tokenward_step;
typedef struct tokenward_wait tokenward_wait;
typedef struct tokenward_str {
  const char *data;
  size_t len;
} tokenward_str;
typedef struct tokenward_problem {
  struct tokenward_str path;
  struct tokenward_str message;
} tokenward_problem;
typedef struct tokenward_header {
  struct tokenward_str name;
  struct tokenward_str value;
} tokenward_header;
typedef struct tokenward_request {
  size_t struct_size;
  struct tokenward_str method;
  struct tokenward_str target;
  const struct tokenward_header *headers;
  size_t headers_len;
  const struct tokenward_str *trailers;
  size_t trailers_len;
  struct tokenward_str body;
} tokenward_request;
typedef struct tokenward_source {
  size_t struct_size;
  struct tokenward_str text;
  struct tokenward_str consumers;
  struct tokenward_str folder;
  struct tokenward_str select;
} tokenward_source;
typedef void (*tokenward_log_fn)(void *userdata, const struct tokenward_line *line);
typedef void (*tokenward_release_fn)(void *userdata);
typedef struct tokenward_options {
  size_t struct_size;
  tokenward_log_fn log;
  void *log_userdata;
  tokenward_release_fn log_release;
  uint32_t log_level;
  uint32_t log_lines;
} tokenward_options;
typedef struct tokenward_time {
  uint64_t wall_us;
  uint64_t monotonic_us;
} tokenward_time;
typedef struct tokenward_reply {
  size_t struct_size;
  uint32_t failure;
  uint32_t status;
  const struct tokenward_header *headers;
  size_t headers_len;
  struct tokenward_str body;
} tokenward_reply;
typedef void (*tokenward_ready_fn)(void *userdata, bool ready);
typedef struct tokenward_brief {
  size_t struct_size;
  struct tokenward_step *step;
  const struct tokenward_decision *decision;
  uint32_t allow;
  uint32_t headers_alone;
  uint32_t identity;
  uint32_t reserved;
  uint64_t shared;
  const struct tokenward_str *remove;
  size_t remove_len;
} tokenward_brief;
typedef struct tokenward_summary {
  size_t struct_size;
  uint32_t allow;
  uint32_t source;
  uint32_t identity;
  uint32_t reason;
  uint32_t status;
  uint32_t reserved;
  const struct tokenward_str *remove;
  size_t remove_len;
  const struct tokenward_header *set;
  size_t set_len;
  const struct tokenward_header *headers;
  size_t headers_len;
  struct tokenward_str target;
  struct tokenward_str body;
  struct tokenward_str consumer_id;
  struct tokenward_str consumer_username;
  struct tokenward_str consumer_custom_id;
} tokenward_summary;
int32_t tokenward_abi_check(uint32_t version);
uint32_t tokenward_abi_version(void);
const char *tokenward_version(void);
const char *tokenward_result_name(uint32_t result);
int32_t tokenward_reason_name(uint32_t reason, struct tokenward_str *name);
int32_t tokenward_error_message(const struct tokenward_error *error, struct tokenward_str *message);
size_t tokenward_error_count(const struct tokenward_error *error);
int32_t tokenward_error_at(const struct tokenward_error *error, size_t index, struct tokenward_problem *problem);
void tokenward_error_free(struct tokenward_error *error);
bool tokenward_is_managed(const char *name, size_t name_len);
bool tokenward_is_lean(const struct tokenward_introspector *introspector, const struct tokenward_policy *policy, const char *method, size_t method_len);
int32_t tokenward_fingerprint(const struct tokenward_introspector *introspector, const struct tokenward_policy *policy, const struct tokenward_request *request, char *digits);
int32_t tokenward_document_new(const struct tokenward_source *source, struct tokenward_document **document, struct tokenward_error **error);
size_t tokenward_document_warning_count(const struct tokenward_document *document);
int32_t tokenward_document_warning_at(const struct tokenward_document *document, size_t index, struct tokenward_problem *problem);
size_t tokenward_document_consumer_count(const struct tokenward_document *document);
const struct tokenward_consumer *tokenward_document_consumer_at(const struct tokenward_document *document, size_t index);
int32_t tokenward_document_introspection_url(const struct tokenward_document *document, struct tokenward_str *url);
int32_t tokenward_document_tls_roots(const struct tokenward_document *document, struct tokenward_str *path, struct tokenward_str *pem);
uint64_t tokenward_document_keepalive_us(const struct tokenward_document *document);
uint64_t tokenward_document_timeout_us(const struct tokenward_document *document);
size_t tokenward_document_reply_bytes(const struct tokenward_document *document);
size_t tokenward_document_concurrent_introspections(const struct tokenward_document *document);
void tokenward_document_free(struct tokenward_document *document);
int32_t tokenward_consumer_id(const struct tokenward_consumer *consumer, struct tokenward_str *id);
int32_t tokenward_consumer_username(const struct tokenward_consumer *consumer, struct tokenward_str *username);
int32_t tokenward_consumer_custom_id(const struct tokenward_consumer *consumer, struct tokenward_str *custom_id);
int32_t tokenward_consumer_tag_at(const struct tokenward_consumer *consumer, size_t index, struct tokenward_str *tag);
int32_t tokenward_consumer_group_at(const struct tokenward_consumer *consumer, size_t index, struct tokenward_str *group);
int32_t tokenward_introspector_new(const struct tokenward_document *document, const struct tokenward_options *options, struct tokenward_introspector **introspector, struct tokenward_error **error);
int32_t tokenward_introspector_replace_consumers(const struct tokenward_introspector *introspector, const struct tokenward_document *document);
int32_t tokenward_introspector_replace_config(const struct tokenward_introspector *introspector, const struct tokenward_document *document, struct tokenward_error **error);
int32_t tokenward_introspector_forget(const struct tokenward_introspector *introspector, const char *token, size_t token_len, bool *forgotten);
int32_t tokenward_introspector_forget_all(const struct tokenward_introspector *introspector);
size_t tokenward_body_bytes(const struct tokenward_introspector *introspector);
int32_t tokenward_next_ready(const struct tokenward_introspector *introspector, uint64_t *tag);
void tokenward_introspector_free(struct tokenward_introspector *introspector);
int32_t tokenward_policy_new(const struct tokenward_introspector *introspector, const char *json, size_t json_len, struct tokenward_policy **policy, struct tokenward_error **error);
void tokenward_policy_free(struct tokenward_policy *policy);
int32_t tokenward_begin(const struct tokenward_introspector *introspector, const struct tokenward_policy *policy, const struct tokenward_request *request, const struct tokenward_time *now, struct tokenward_step **step);
int32_t tokenward_needs_body(const struct tokenward_introspector *introspector, const struct tokenward_policy *policy, const struct tokenward_request *request, bool *needed);
int32_t tokenward_authenticate(const struct tokenward_introspector *introspector, const struct tokenward_policy *policy, const struct tokenward_request *request, struct tokenward_step **step);
int32_t tokenward_internal(const struct tokenward_introspector *introspector, bool head, struct tokenward_step **step);
const struct tokenward_outbound *tokenward_step_outbound(const struct tokenward_step *step);
const struct tokenward_wait *tokenward_step_wait(const struct tokenward_step *step);
const struct tokenward_decision *tokenward_step_decision(const struct tokenward_step *step);
int32_t tokenward_step_reply(struct tokenward_step *step, const struct tokenward_reply *reply, const struct tokenward_time *now);
int32_t tokenward_step_resume(struct tokenward_step *step, const struct tokenward_time *now);
int32_t tokenward_step_on_ready(struct tokenward_step *step, tokenward_ready_fn ready, void *userdata);
int32_t tokenward_step_set_tag(struct tokenward_step *step, uint64_t tag);
void tokenward_step_free(struct tokenward_step *step);
int32_t tokenward_outbound_method(const struct tokenward_outbound *outbound, struct tokenward_str *method);
int32_t tokenward_outbound_url(const struct tokenward_outbound *outbound, struct tokenward_str *url);
int32_t tokenward_outbound_headers(const struct tokenward_outbound *outbound, const struct tokenward_header **headers, size_t *count);
int32_t tokenward_outbound_body(const struct tokenward_outbound *outbound, struct tokenward_str *body);
uint64_t tokenward_outbound_time_left_us(const struct tokenward_outbound *outbound);
uint64_t tokenward_outbound_deadline_us(const struct tokenward_outbound *outbound);
uint64_t tokenward_wait_deadline_us(const struct tokenward_wait *wait);
int32_t tokenward_begin_brief(const struct tokenward_introspector *introspector, const struct tokenward_policy *policy, const struct tokenward_request *request, const struct tokenward_time *now, struct tokenward_brief *brief, size_t size);
bool tokenward_decision_is_allow(const struct tokenward_decision *decision);
int32_t tokenward_decision_source(const struct tokenward_decision *decision);
int32_t tokenward_decision_identity(const struct tokenward_decision *decision);
const struct tokenward_consumer *tokenward_decision_consumer(const struct tokenward_decision *decision);
int32_t tokenward_decision_remove(const struct tokenward_decision *decision, const struct tokenward_str **names, size_t *count);
int32_t tokenward_decision_set(const struct tokenward_decision *decision, const struct tokenward_header **headers, size_t *count);
uint64_t tokenward_decision_shared(const struct tokenward_decision *decision);
int32_t tokenward_decision_headers_alone(const struct tokenward_decision *decision, uint64_t *shared, const struct tokenward_str **names, size_t *count);
int32_t tokenward_decision_target(const struct tokenward_decision *decision, struct tokenward_str *target);
int32_t tokenward_decision_body(const struct tokenward_decision *decision, struct tokenward_str *body);
int32_t tokenward_decision_response_headers(const struct tokenward_decision *decision, const struct tokenward_header **headers, size_t *count);
int32_t tokenward_decision_expires_us(const struct tokenward_decision *decision, int64_t *expires_us);
int32_t tokenward_decision_claim(const struct tokenward_decision *decision, const char *name, size_t name_len, struct tokenward_str *json);
int32_t tokenward_decision_claim_text(const struct tokenward_decision *decision, const char *name, size_t name_len, struct tokenward_str *text);
int32_t tokenward_decision_claim_at(const struct tokenward_decision *decision, const char *pointer, size_t pointer_len, struct tokenward_str *json);
int32_t tokenward_decision_claim_value(const struct tokenward_decision *decision, const struct tokenward_introspector *introspector, const struct tokenward_policy *policy, const char *name, size_t name_len, struct tokenward_str *value);
uint32_t tokenward_decision_reason(const struct tokenward_decision *decision);
uint32_t tokenward_decision_status(const struct tokenward_decision *decision);
int32_t tokenward_decision_refusal_headers(const struct tokenward_decision *decision, const struct tokenward_header **headers, size_t *count);
int32_t tokenward_decision_refusal_body(const struct tokenward_decision *decision, struct tokenward_str *body);
int32_t tokenward_decision_summary(const struct tokenward_decision *decision, struct tokenward_summary *summary, size_t size);
int32_t tokenward_snapshot_new(const struct tokenward_introspector *introspector, struct tokenward_snapshot **snapshot);
int32_t tokenward_snapshot_counter(const struct tokenward_snapshot *snapshot, uint32_t counter, uint64_t *value);
int32_t tokenward_snapshot_denied(const struct tokenward_snapshot *snapshot, uint32_t reason, uint64_t *value);
int32_t tokenward_snapshot_latency(const struct tokenward_snapshot *snapshot, size_t bucket, uint64_t *bound_ms, uint64_t *value);
int32_t tokenward_snapshot_numbers(const struct tokenward_snapshot *snapshot, const uint64_t **numbers, size_t *count);
int32_t tokenward_snapshot_of_numbers(const uint64_t *numbers, size_t count, struct tokenward_snapshot **snapshot);
int32_t tokenward_snapshot_prometheus(const struct tokenward_snapshot *snapshot, struct tokenward_str *text);
void tokenward_snapshot_free(struct tokenward_snapshot *snapshot);
int32_t tokenward_next_log(const struct tokenward_introspector *introspector, struct tokenward_line **line);
int32_t tokenward_line_level(const struct tokenward_line *line);
uint32_t tokenward_line_reason(const struct tokenward_line *line);
int32_t tokenward_line_message(const struct tokenward_line *line, struct tokenward_str *message);
int32_t tokenward_line_fields(const struct tokenward_line *line, const struct tokenward_header **fields, size_t *count);
int32_t tokenward_line_text(const struct tokenward_line *line, struct tokenward_str *text);
void tokenward_line_free(struct tokenward_line *line);
]]

return {
    TOKENWARD_ABI_VERSION = 65536,
}
