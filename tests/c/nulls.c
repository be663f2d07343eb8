/* NULL everywhere: each pointer of each function, one after the other. */

#include "suite.h"

#define NULL_POINTER(call) CHECK((call) == TOKENWARD_NULL_POINTER)


static void
objects_that_are_not_there(void)
{
    int64_t                  moment;
    uint64_t                 n;
    size_t                   count;
    bool                     flag;
    tokenward_str            s;
    tokenward_line          *line;
    tokenward_step          *step;
    tokenward_policy        *policy;
    tokenward_problem        problem;
    tokenward_snapshot      *snapshot;
    const tokenward_str     *names;
    const tokenward_header  *headers;
    tokenward_introspector  *introspector;
    tokenward_request        request;

    memset(&request, 0, sizeof(request));
    request.struct_size = sizeof(request);

    NULL_POINTER(tokenward_error_message(NULL, &s));
    NULL_POINTER(tokenward_error_at(NULL, 0, &problem));
    CHECK(tokenward_error_count(NULL) == 0);
    NULL_POINTER(tokenward_document_new(NULL, POISON(tokenward_document *), NULL));
    NULL_POINTER(tokenward_document_warning_at(NULL, 0, &problem));
    CHECK(tokenward_document_warning_count(NULL) == 0);
    CHECK(tokenward_document_consumer_count(NULL) == 0);
    CHECK(tokenward_document_consumer_at(NULL, 0) == NULL);
    NULL_POINTER(tokenward_document_introspection_url(NULL, &s));
    NULL_POINTER(tokenward_document_tls_roots(NULL, &s, &s));
    CHECK(tokenward_document_keepalive_us(NULL) == 0);
    CHECK(tokenward_document_timeout_us(NULL) == 0);
    CHECK(tokenward_document_reply_bytes(NULL) == 0);
    CHECK(tokenward_document_concurrent_introspections(NULL) == 0);
    NULL_POINTER(tokenward_consumer_id(NULL, &s));
    NULL_POINTER(tokenward_consumer_username(NULL, &s));
    NULL_POINTER(tokenward_consumer_custom_id(NULL, &s));
    NULL_POINTER(tokenward_consumer_tag_at(NULL, 0, &s));
    NULL_POINTER(tokenward_consumer_group_at(NULL, 0, &s));
    NULL_POINTER(tokenward_introspector_new(NULL, NULL, &introspector, NULL));
    NULL_POINTER(tokenward_introspector_replace_consumers(NULL, NULL));
    NULL_POINTER(tokenward_introspector_replace_config(NULL, NULL, NULL));
    NULL_POINTER(tokenward_introspector_forget(NULL, "a", 1, &flag));
    NULL_POINTER(tokenward_introspector_forget_all(NULL));
    CHECK(tokenward_body_bytes(NULL) == 0);
    NULL_POINTER(tokenward_next_ready(NULL, &n));
    NULL_POINTER(tokenward_next_log(NULL, &line));
    NULL_POINTER(tokenward_policy_new(NULL, "{}", 2, &policy, NULL));
    NULL_POINTER(tokenward_begin(NULL, NULL, &request, &NOW, &step));
    NULL_POINTER(tokenward_begin_brief(NULL, NULL, &request, &NOW, POISON(tokenward_brief), sizeof(tokenward_brief)));
    CHECK(!tokenward_is_lean(NULL, NULL, "GET", 3));
    NULL_POINTER(tokenward_needs_body(NULL, NULL, &request, &flag));
    NULL_POINTER(tokenward_authenticate(NULL, NULL, &request, &step));
    NULL_POINTER(tokenward_internal(NULL, false, &step));
    CHECK(tokenward_step_outbound(NULL) == NULL);
    CHECK(tokenward_step_wait(NULL) == NULL);
    CHECK(tokenward_step_decision(NULL) == NULL);
    CHECK(reply_active(NULL) == TOKENWARD_NULL_POINTER);
    NULL_POINTER(tokenward_step_resume(NULL, &NOW));
    NULL_POINTER(tokenward_step_set_tag(NULL, 1));
    NULL_POINTER(tokenward_outbound_method(NULL, &s));
    NULL_POINTER(tokenward_outbound_url(NULL, &s));
    NULL_POINTER(tokenward_outbound_headers(NULL, &headers, &count));
    NULL_POINTER(tokenward_outbound_body(NULL, &s));
    CHECK(tokenward_outbound_time_left_us(NULL) == 0);
    CHECK(tokenward_outbound_deadline_us(NULL) == 0);
    CHECK(tokenward_wait_deadline_us(NULL) == 0);
    NULL_POINTER(tokenward_snapshot_new(NULL, &snapshot));
    NULL_POINTER(tokenward_snapshot_counter(NULL, 0, &n));
    NULL_POINTER(tokenward_snapshot_denied(NULL, 1100, &n));
    NULL_POINTER(tokenward_snapshot_latency(NULL, 0, &n, &n));
    NULL_POINTER(tokenward_snapshot_prometheus(NULL, &s));
    NULL_POINTER(tokenward_snapshot_numbers(NULL, POISON(const uint64_t *), POISON(size_t)));
    NULL_POINTER(tokenward_snapshot_of_numbers(NULL, 1, &snapshot));
    NULL_POINTER(tokenward_snapshot_of_numbers(&n, 1, NULL));
    CHECK(tokenward_line_level(NULL) == TOKENWARD_LEVEL_ERROR);
    CHECK(tokenward_line_reason(NULL) == 0);
    NULL_POINTER(tokenward_line_message(NULL, &s));
    NULL_POINTER(tokenward_line_fields(NULL, &headers, &count));
    NULL_POINTER(tokenward_line_text(NULL, &s));

    /* No decision is a refusal. */
    CHECK(!tokenward_decision_is_allow(NULL));
    CHECK(tokenward_decision_status(NULL) == 500);
    CHECK(tokenward_decision_reason(NULL) == TOKENWARD_REASON_INTERNAL);
    CHECK(tokenward_decision_source(NULL) == TOKENWARD_SOURCE_NONE);
    CHECK(tokenward_decision_identity(NULL) == TOKENWARD_IDENTITY_NONE);
    CHECK(tokenward_decision_consumer(NULL) == NULL);
    NULL_POINTER(tokenward_decision_remove(NULL, &names, &count));
    NULL_POINTER(tokenward_decision_summary(NULL, POISON(tokenward_summary), sizeof(tokenward_summary)));
    NULL_POINTER(tokenward_decision_set(NULL, &headers, &count));
    NULL_POINTER(tokenward_decision_target(NULL, &s));
    NULL_POINTER(tokenward_decision_body(NULL, &s));
    NULL_POINTER(tokenward_decision_response_headers(NULL, &headers, &count));
    NULL_POINTER(tokenward_decision_expires_us(NULL, &moment));
    NULL_POINTER(tokenward_decision_claim(NULL, "a", 1, &s));
    NULL_POINTER(tokenward_decision_claim_text(NULL, "a", 1, &s));
    CHECK(tokenward_decision_shared(NULL) == 0);
    NULL_POINTER(tokenward_decision_headers_alone(NULL, POISON(uint64_t), &names, &count));
    NULL_POINTER(tokenward_decision_claim_at(NULL, "/a", 2, &s));
    NULL_POINTER(tokenward_decision_claim_value(NULL, NULL, NULL, "a", 1, &s));
    NULL_POINTER(tokenward_fingerprint(NULL, NULL, NULL, POISON(char)));
    NULL_POINTER(tokenward_decision_refusal_headers(NULL, &headers, &count));
    NULL_POINTER(tokenward_decision_refusal_body(NULL, &s));

    /* A name that cannot be read counts as managed. */
    CHECK(tokenward_is_managed(NULL, 1));
    CHECK(!tokenward_is_managed(NULL, 0));

    /* Nothing to free. */
    tokenward_error_free(NULL);
    tokenward_document_free(NULL);
    tokenward_introspector_free(NULL);
    tokenward_policy_free(NULL);
    tokenward_step_free(NULL);
    tokenward_snapshot_free(NULL);
    tokenward_line_free(NULL);
}


static void
outputs_that_are_not_there(void)
{
    size_t                     count;
    char                       credentials[64];
    uint64_t                   n;
    tokenward_str              s;
    tokenward_step            *step, *asks;
    tokenward_header           header;
    tokenward_source           source;
    tokenward_request          request = request_with("abc", &header, credentials, sizeof(credentials));
    tokenward_document        *document;
    tokenward_snapshot        *snapshot = NULL;
    tokenward_introspector    *introspector = introspector_of(NULL);
    const tokenward_str       *names;
    const tokenward_header    *headers;
    const tokenward_consumer  *consumer;
    const tokenward_decision  *decision;
    const tokenward_outbound  *outbound;

    memset(&source, 0, sizeof(source));
    source.struct_size = sizeof(source);
    source.text = text("{}");
    NULL_POINTER(tokenward_document_new(&source, NULL, NULL));
    document = document_of("{\"introspection_url\": \"https://a.example/\", \"authorization_value\": \"x\"}");
    NULL_POINTER(tokenward_document_warning_at(document, 0, NULL));
    NULL_POINTER(tokenward_document_introspection_url(document, NULL));
    NULL_POINTER(tokenward_document_tls_roots(document, NULL, &s));
    NULL_POINTER(tokenward_document_tls_roots(document, &s, NULL));
    NULL_POINTER(tokenward_introspector_new(document, NULL, NULL, NULL));
    NULL_POINTER(tokenward_introspector_replace_consumers(introspector, NULL));
    NULL_POINTER(tokenward_introspector_replace_config(introspector, NULL, NULL));
    tokenward_document_free(document);
    NULL_POINTER(tokenward_introspector_forget(introspector, NULL, 1, NULL));
    CHECK(tokenward_introspector_forget(introspector, "a", 1, NULL) == TOKENWARD_OK);
    NULL_POINTER(tokenward_next_ready(introspector, NULL));
    NULL_POINTER(tokenward_next_log(introspector, NULL));
    NULL_POINTER(tokenward_policy_new(introspector, "{}", 2, NULL, NULL));
    NULL_POINTER(tokenward_reason_name(1100, NULL));

    NULL_POINTER(tokenward_begin(introspector, NULL, NULL, &NOW, &step));
    NULL_POINTER(tokenward_begin(introspector, NULL, &request, NULL, &step));
    NULL_POINTER(tokenward_begin(introspector, NULL, &request, &NOW, NULL));
    NULL_POINTER(tokenward_begin_brief(introspector, NULL, NULL, &NOW, POISON(tokenward_brief), sizeof(tokenward_brief)));
    NULL_POINTER(tokenward_begin_brief(introspector, NULL, &request, NULL, POISON(tokenward_brief), sizeof(tokenward_brief)));
    NULL_POINTER(tokenward_begin_brief(introspector, NULL, &request, &NOW, NULL, sizeof(tokenward_brief)));
    CHECK(!tokenward_is_lean(introspector, NULL, NULL, 3));
    NULL_POINTER(tokenward_needs_body(introspector, NULL, NULL, POISON(bool)));
    NULL_POINTER(tokenward_needs_body(introspector, NULL, &request, NULL));
    NULL_POINTER(tokenward_authenticate(introspector, NULL, NULL, &step));
    NULL_POINTER(tokenward_authenticate(introspector, NULL, &request, NULL));
    NULL_POINTER(tokenward_internal(introspector, false, NULL));
    request.headers = NULL;
    NULL_POINTER(tokenward_begin(introspector, NULL, &request, &NOW, &step));

    asks = begin(introspector, "abc");
    step = begin(introspector, "abc");
    CHECK(stands_at(asks) == 'o' && stands_at(step) == 'w');
    outbound = tokenward_step_outbound(asks);
    NULL_POINTER(tokenward_outbound_method(outbound, NULL));
    NULL_POINTER(tokenward_outbound_url(outbound, NULL));
    NULL_POINTER(tokenward_outbound_body(outbound, NULL));
    NULL_POINTER(tokenward_outbound_headers(outbound, NULL, &count));
    NULL_POINTER(tokenward_outbound_headers(outbound, &headers, NULL));
    NULL_POINTER(tokenward_step_on_ready(step, NULL, NULL));
    NULL_POINTER(tokenward_step_resume(step, NULL));
    NULL_POINTER(tokenward_step_reply(asks, NULL, &NOW));
    CHECK(stands_at(asks) == 'o' && stands_at(step) == 'w');
    tokenward_step_free(step);
    CHECK(reply_active(asks) == TOKENWARD_OK);
    decision = tokenward_step_decision(asks);
    NULL_POINTER(tokenward_decision_remove(decision, NULL, &count));
    NULL_POINTER(tokenward_decision_remove(decision, &names, NULL));
    NULL_POINTER(tokenward_decision_set(decision, NULL, &count));
    NULL_POINTER(tokenward_decision_set(decision, &headers, NULL));
    NULL_POINTER(tokenward_decision_target(decision, NULL));
    NULL_POINTER(tokenward_decision_body(decision, NULL));
    NULL_POINTER(tokenward_decision_response_headers(decision, NULL, &count));
    NULL_POINTER(tokenward_decision_response_headers(decision, &headers, NULL));
    NULL_POINTER(tokenward_decision_expires_us(decision, NULL));
    NULL_POINTER(tokenward_decision_claim(decision, "sub", 3, NULL));
    NULL_POINTER(tokenward_decision_claim(decision, NULL, 3, &s));
    NULL_POINTER(tokenward_decision_claim_text(decision, "sub", 3, NULL));
    NULL_POINTER(tokenward_decision_claim_at(decision, "/sub", 4, NULL));
    NULL_POINTER(tokenward_decision_claim_value(decision, introspector, NULL, "sub", 3, NULL));
    NULL_POINTER(tokenward_decision_claim_value(decision, NULL, NULL, "sub", 3, &s));
    NULL_POINTER(tokenward_decision_claim_value(decision, introspector, NULL, NULL, 3, &s));
    consumer = tokenward_decision_consumer(decision);
    NULL_POINTER(tokenward_consumer_id(consumer, NULL));
    NULL_POINTER(tokenward_consumer_username(consumer, NULL));
    NULL_POINTER(tokenward_consumer_custom_id(consumer, NULL));
    NULL_POINTER(tokenward_consumer_tag_at(consumer, 0, NULL));
    NULL_POINTER(tokenward_consumer_group_at(consumer, 0, NULL));
    tokenward_step_free(asks);

    CHECK(tokenward_internal(introspector, false, &step) == TOKENWARD_OK);
    decision = tokenward_step_decision(step);
    NULL_POINTER(tokenward_decision_refusal_headers(decision, NULL, &count));
    NULL_POINTER(tokenward_decision_refusal_headers(decision, &headers, NULL));
    NULL_POINTER(tokenward_decision_refusal_body(decision, NULL));
    tokenward_step_free(step);

    NULL_POINTER(tokenward_snapshot_new(introspector, NULL));
    CHECK(tokenward_snapshot_new(introspector, &snapshot) == TOKENWARD_OK);
    NULL_POINTER(tokenward_snapshot_counter(snapshot, 0, NULL));
    NULL_POINTER(tokenward_snapshot_denied(snapshot, 1100, NULL));
    NULL_POINTER(tokenward_snapshot_latency(snapshot, 0, NULL, &n));
    NULL_POINTER(tokenward_snapshot_latency(snapshot, 0, &n, NULL));
    NULL_POINTER(tokenward_snapshot_prometheus(snapshot, NULL));
    tokenward_snapshot_free(snapshot);
    tokenward_introspector_free(introspector);
}


void
topic_nulls(void)
{
    objects_that_are_not_there();
    outputs_that_are_not_there();
}
