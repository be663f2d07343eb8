/* Outputs are written with TOKENWARD_OK alone. */

#include "suite.h"


static int
untouched(const void *output, size_t size)
{
    size_t                i;
    const unsigned char  *byte = (const unsigned char *) output;

    for (i = 0; i < size; i++) {
        if (byte[i] != 0x5a) {
            return 0;
        }
    }
    return 1;
}

#define FAILS(call, result, output)                                                               \
    do {                                                                                          \
        memset(&(output), 0x5a, sizeof(output));                                                  \
        CHECK((call) == (result));                                                                \
        CHECK(untouched(&(output), sizeof(output)));                                              \
    } while (0)


void
topic_outputs(void)
{
    bool                       needed;
    char                       credentials[64], digits[8];
    size_t                     count;
    int64_t                    moment;
    uint64_t                   n;
    tokenward_str              s;
    tokenward_step            *step, *kept;
    tokenward_line            *line;
    tokenward_brief            brief;
    tokenward_error           *error;
    tokenward_header           header;
    tokenward_policy          *policy;
    tokenward_source           source;
    tokenward_problem          problem;
    tokenward_summary          summary;
    tokenward_options          options;
    tokenward_request          request = request_with("abc", &header, credentials, sizeof(credentials));
    tokenward_document        *document;
    tokenward_snapshot        *snapshot = NULL;
    tokenward_introspector    *introspector = introspector_of(NULL), *other;
    const tokenward_str       *names;
    const tokenward_header    *headers;
    const tokenward_decision  *decision;

    memset(&source, 0, sizeof(source));
    source.struct_size = sizeof(source);
    source.text = text("{\"tll\": 3}");
    error = NULL;
    FAILS(tokenward_document_new(&source, &document, &error), TOKENWARD_INVALID_CONFIG, document);
    CHECK(error != NULL && tokenward_error_count(error) == 3);
    FAILS(tokenward_error_at(error, 3, &problem), TOKENWARD_INVALID_ARGUMENT, problem);
    tokenward_error_free(error);
    source.struct_size--;
    FAILS(tokenward_document_new(&source, &document, &error), TOKENWARD_INVALID_ARGUMENT, document);
    FAILS(tokenward_document_new(&source, POISON(tokenward_document *), &error), TOKENWARD_INVALID_ARGUMENT, error);

    document = document_of("{\"introspection_url\": \"https://a.example/\", \"authorization_value\": \"x\"}");
    FAILS(tokenward_document_warning_at(document, 9, &problem), TOKENWARD_INVALID_ARGUMENT, problem);
    FAILS(tokenward_document_tls_roots(document, &s, POISON(tokenward_str)), TOKENWARD_ABSENT, s);
    memset(&options, 0, sizeof(options));
    FAILS(tokenward_introspector_new(document, &options, &other, NULL), TOKENWARD_INVALID_ARGUMENT, other);
    options.struct_size = sizeof(options);
    options.log_level = 5;
    FAILS(tokenward_introspector_new(document, &options, &other, NULL), TOKENWARD_INVALID_ARGUMENT, other);
    tokenward_document_free(document);

    error = NULL;
    FAILS(tokenward_policy_new(introspector, "{\"ttl\": 3}", 10, &policy, &error), TOKENWARD_INVALID_CONFIG, policy);
    tokenward_error_free(error);
    FAILS(tokenward_next_ready(introspector, &n), TOKENWARD_ABSENT, n);
    FAILS(tokenward_next_log(introspector, &line), TOKENWARD_ABSENT, line);
    FAILS(tokenward_reason_name(1, &s), TOKENWARD_INVALID_ARGUMENT, s);

    request.struct_size++;
    FAILS(tokenward_begin(introspector, NULL, &request, &NOW, &step), TOKENWARD_INVALID_ARGUMENT, step);
    FAILS(tokenward_begin_brief(introspector, NULL, &request, &NOW, &brief, sizeof(brief)), TOKENWARD_INVALID_ARGUMENT, brief);
    FAILS(tokenward_needs_body(introspector, NULL, &request, &needed), TOKENWARD_INVALID_ARGUMENT, needed);
    FAILS(tokenward_authenticate(introspector, NULL, &request, &step), TOKENWARD_INVALID_ARGUMENT, step);
    FAILS(tokenward_fingerprint(introspector, NULL, &request, digits), TOKENWARD_INVALID_ARGUMENT, digits);

    CHECK(tokenward_snapshot_new(introspector, &snapshot) == TOKENWARD_OK);
    FAILS(tokenward_snapshot_counter(snapshot, 99, &n), TOKENWARD_INVALID_ARGUMENT, n);
    FAILS(tokenward_snapshot_denied(snapshot, 99, &n), TOKENWARD_INVALID_ARGUMENT, n);
    FAILS(tokenward_snapshot_latency(snapshot, 12, POISON(uint64_t), &n), TOKENWARD_ABSENT, n);
    tokenward_snapshot_free(snapshot);

    request.struct_size--;
    FAILS(tokenward_begin_brief(introspector, NULL, &request, &NOW, &brief, sizeof(brief) - 1), TOKENWARD_INVALID_ARGUMENT, brief);
    FAILS(tokenward_begin_brief(introspector, NULL, &request, &NOW, &brief, sizeof(brief) + 8), TOKENWARD_INVALID_ARGUMENT, brief);
    FAILS(tokenward_begin_brief(introspector, NULL, &request, &NOW, &brief, 0), TOKENWARD_INVALID_ARGUMENT, brief);
    request.struct_size++;

    /* What an allow does not have, */
    kept = begin(introspector, "abc");
    CHECK(reply_active(kept) == TOKENWARD_OK);
    decision = tokenward_step_decision(kept);
    FAILS(tokenward_decision_summary(decision, &summary, sizeof(summary) - 1), TOKENWARD_INVALID_ARGUMENT, summary);
    FAILS(tokenward_decision_summary(decision, &summary, sizeof(summary) + 8), TOKENWARD_INVALID_ARGUMENT, summary);
    FAILS(tokenward_decision_summary(decision, &summary, 0), TOKENWARD_INVALID_ARGUMENT, summary);
    CHECK(tokenward_decision_summary(decision, NULL, sizeof(summary)) == TOKENWARD_NULL_POINTER);
    FAILS(tokenward_decision_target(decision, &s), TOKENWARD_ABSENT, s);
    FAILS(tokenward_decision_body(decision, &s), TOKENWARD_ABSENT, s);
    FAILS(tokenward_decision_claim(decision, "none", 4, &s), TOKENWARD_ABSENT, s);
    FAILS(tokenward_decision_claim(decision, "\xff", 1, &s), TOKENWARD_NOT_UTF8, s);
    FAILS(tokenward_decision_claim_text(decision, "exp", 3, &s), TOKENWARD_ABSENT, s);
    FAILS(tokenward_decision_claim_at(decision, "sub", 3, &s), TOKENWARD_ABSENT, s);
    FAILS(tokenward_decision_claim_value(decision, introspector, NULL, "none", 4, &s), TOKENWARD_ABSENT, s);
    FAILS(tokenward_decision_refusal_body(decision, &s), TOKENWARD_ABSENT, s);
    FAILS(tokenward_decision_refusal_headers(decision, &headers, &count), TOKENWARD_ABSENT, headers);
    FAILS(tokenward_consumer_custom_id(tokenward_decision_consumer(decision), &s), TOKENWARD_ABSENT, s);
    FAILS(tokenward_consumer_tag_at(tokenward_decision_consumer(decision), 2, &s), TOKENWARD_ABSENT, s);
    tokenward_step_free(kept);

    /* and what a refusal does not have. */
    CHECK(tokenward_internal(introspector, true, &kept) == TOKENWARD_OK);
    decision = tokenward_step_decision(kept);
    FAILS(tokenward_decision_refusal_body(decision, &s), TOKENWARD_ABSENT, s);
    FAILS(tokenward_decision_set(decision, &headers, &count), TOKENWARD_ABSENT, headers);
    FAILS(tokenward_decision_set(decision, &headers, &count), TOKENWARD_ABSENT, count);
    FAILS(tokenward_decision_remove(decision, &names, &count), TOKENWARD_ABSENT, names);
    FAILS(tokenward_decision_response_headers(decision, &headers, &count), TOKENWARD_ABSENT, headers);
    FAILS(tokenward_decision_target(decision, &s), TOKENWARD_ABSENT, s);
    FAILS(tokenward_decision_body(decision, &s), TOKENWARD_ABSENT, s);
    FAILS(tokenward_decision_expires_us(decision, &moment), TOKENWARD_ABSENT, moment);
    FAILS(tokenward_decision_claim(decision, "sub", 3, &s), TOKENWARD_ABSENT, s);
    tokenward_step_free(kept);

    tokenward_introspector_free(introspector);
}
