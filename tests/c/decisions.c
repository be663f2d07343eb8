/* What a decision tells. */

#include "suite.h"


void
topic_decisions(void)
{
    bool                       needed = false;
    char                       digits[8];
    size_t                     count = 9;
    int64_t                    expires = 0;
    uint64_t                   shared = 0, number = 0;
    tokenward_str              s;
    tokenward_brief            brief;
    tokenward_step            *step = NULL;
    tokenward_header           request_headers[2];
    tokenward_policy          *policy = NULL;
    tokenward_request          request;
    tokenward_introspector    *introspector = introspector_of(NULL);
    const tokenward_str       *names;
    const tokenward_header    *headers, *again;
    const tokenward_consumer  *consumer;
    const tokenward_decision  *decision;

    /* From the query: target and response headers. */
    memset(&request, 0, sizeof(request));
    request.struct_size = sizeof(request);
    request.method = text("GET");
    request.target = text("/a?access_token=abc&b=1");
    request_headers[0].name = text("X_Consumer_ID");
    request_headers[0].value = text("root");
    request.headers = request_headers;
    request.headers_len = 1;
    request.trailers = &request_headers[0].name;
    request.trailers_len = 1;
    CHECK(tokenward_begin(introspector, NULL, &request, &NOW, &step) == TOKENWARD_OK);
    CHECK(stands_at(step) == 'o');
    CHECK(tokenward_outbound_time_left_us(tokenward_step_outbound(step)) == 10000000);
    CHECK(tokenward_outbound_deadline_us(tokenward_step_outbound(step)) == NOW.monotonic_us + 10000000);
    CHECK(tokenward_outbound_method(tokenward_step_outbound(step), &s) == TOKENWARD_OK && is(s, "POST"));
    CHECK(tokenward_outbound_url(tokenward_step_outbound(step), &s) == TOKENWARD_OK);
    CHECK(is(s, "https://as.example/introspect"));
    CHECK(tokenward_outbound_body(tokenward_step_outbound(step), &s) == TOKENWARD_OK && is(s, "token=abc"));
    CHECK(tokenward_outbound_headers(tokenward_step_outbound(step), &headers, &count) == TOKENWARD_OK && count == 4);
    CHECK(is(headers[0].name, "Authorization") && is(headers[0].value, "Basic eA=="));
    CHECK(reply_active(step) == TOKENWARD_OK);
    decision = tokenward_step_decision(step);
    CHECK(tokenward_decision_is_allow(decision));
    CHECK(tokenward_decision_reason(decision) == 0 && tokenward_decision_status(decision) == 0);
    CHECK(tokenward_decision_source(decision) == TOKENWARD_SOURCE_ENDPOINT);
    CHECK(tokenward_decision_headers_alone(decision, &number, &names, &count) == TOKENWARD_ABSENT);
    shared = tokenward_decision_shared(decision);
    CHECK(tokenward_decision_target(decision, &s) == TOKENWARD_OK && is(s, "/a?b=1"));
    CHECK(tokenward_decision_response_headers(decision, &headers, &count) == TOKENWARD_OK && count == 1);
    CHECK(is(headers[0].name, "Cache-Control") && is(headers[0].value, "private"));
    CHECK(tokenward_decision_remove(decision, &names, &count) == TOKENWARD_OK && count == 1);
    CHECK(is(names[0], "X_Consumer_ID"));
    CHECK(tokenward_decision_set(decision, &headers, &count) == TOKENWARD_OK && count == 5);
    CHECK(is(headers[0].name, "X-Consumer-ID") && is(headers[0].value, "7"));
    CHECK(is(headers[1].name, "X-Consumer-Username") && is(headers[1].value, "alice"));
    /* The same array, each time. */
    CHECK(tokenward_decision_set(decision, &again, &count) == TOKENWARD_OK && again == headers);

    CHECK(tokenward_decision_identity(decision) == TOKENWARD_IDENTITY_CONSUMER);
    consumer = tokenward_decision_consumer(decision);
    CHECK(tokenward_consumer_id(consumer, &s) == TOKENWARD_OK && is(s, "7"));
    CHECK(tokenward_consumer_username(consumer, &s) == TOKENWARD_OK && is(s, "alice"));
    CHECK(tokenward_consumer_custom_id(consumer, &s) == TOKENWARD_ABSENT);
    CHECK(tokenward_consumer_tag_at(consumer, 1, &s) == TOKENWARD_OK && is(s, "b"));
    CHECK(tokenward_consumer_group_at(consumer, 0, &s) == TOKENWARD_OK && is(s, "g"));

    CHECK(tokenward_decision_claim(decision, "username", 8, &s) == TOKENWARD_OK && is(s, "\"alice\""));
    CHECK(tokenward_decision_claim_text(decision, "username", 8, &s) == TOKENWARD_OK && is(s, "alice"));
    CHECK(tokenward_decision_claim_text(decision, "sub", 3, &s) == TOKENWARD_OK);
    CHECK(s.len == 4 && memcmp(s.data, "a\0\"b", 4) == 0);
    /* Looked at again it is the same array: a decision does not grow by being looked at. */
    {
        const char  *first = s.data;

        CHECK(tokenward_decision_claim_text(decision, "sub", 3, &s) == TOKENWARD_OK && s.data == first && s.len == 4);
    }
    CHECK(tokenward_decision_claim_at(decision, "/realm/roles/1", 14, &s) == TOKENWARD_OK && is(s, "20"));
    CHECK(tokenward_decision_claim_value(decision, introspector, NULL, "sub", 3, &s) == TOKENWARD_OK);
    CHECK(is(s, "UTF-8''a%00%22b"));
    CHECK(tokenward_fingerprint(introspector, NULL, &request, digits) == TOKENWARD_OK);
    CHECK(memcmp(digits, "ba7816bf", 8) == 0);
    CHECK(tokenward_decision_claim_at(decision, "", 0, &s) == TOKENWARD_OK && s.len > 80 && s.data[0] == '{');
    CHECK(tokenward_decision_expires_us(decision, &expires) == TOKENWARD_OK && expires == 1700000060500000);
    tokenward_step_free(step);

    /* At one look: of a call there is nothing to know; a hit changes header lines alone; a refusal is none. */
    request.target = text("/a");
    request_headers[0].name = text("authorization");
    request_headers[0].value = text("Bearer at-one-look");
    request.trailers_len = 0;
    CHECK(tokenward_is_lean(introspector, NULL, "GET", 3) && !tokenward_is_lean(introspector, NULL, "POST", 4));
    CHECK(tokenward_begin_brief(introspector, NULL, &request, &NOW, &brief, sizeof(brief)) == TOKENWARD_OK);
    CHECK(brief.struct_size == sizeof(brief) && stands_at(brief.step) == 'o');
    CHECK(brief.decision == NULL && !brief.allow && !brief.headers_alone && brief.shared == 0 && brief.remove == NULL);
    CHECK(reply_active(brief.step) == TOKENWARD_OK);
    tokenward_step_free(brief.step);
    CHECK(tokenward_begin_brief(introspector, NULL, &request, &NOW, &brief, sizeof(brief)) == TOKENWARD_OK);
    CHECK(brief.decision == tokenward_step_decision(brief.step) && brief.allow == 1 && brief.headers_alone == 1);
    CHECK(brief.identity == TOKENWARD_IDENTITY_CONSUMER && brief.shared == tokenward_decision_shared(brief.decision));
    CHECK(brief.shared != 0 && brief.remove_len == 1 && is(brief.remove[0], "Authorization"));
    tokenward_step_free(brief.step);
    request.headers_len = 0;
    CHECK(tokenward_begin_brief(introspector, NULL, &request, &NOW, &brief, sizeof(brief)) == TOKENWARD_OK);
    CHECK(brief.decision != NULL && !brief.allow && !brief.headers_alone && brief.shared == 0 && brief.remove == NULL);
    CHECK(brief.identity == TOKENWARD_IDENTITY_NONE && stands_at(brief.step) == 'd');
    tokenward_step_free(brief.step);

    /* From a body, and remembered. */
    request.method = text("POST");
    request.target = text("/");
    request_headers[0].name = text("Content-Type");
    request_headers[0].value = text("application/x-www-form-urlencoded");
    request.trailers_len = 0;
    request_headers[1].name = text("Content-Length");
    request_headers[1].value = text("20");
    request.headers_len = 2;
    CHECK(tokenward_needs_body(introspector, NULL, &request, &needed) == TOKENWARD_OK && needed);
    CHECK(tokenward_body_bytes(introspector) == 1048576);
    request.body = text("access_token=abc&b=1");
    CHECK(tokenward_begin(introspector, NULL, &request, &NOW, &step) == TOKENWARD_OK);
    decision = tokenward_step_decision(step);
    CHECK(tokenward_decision_source(decision) == TOKENWARD_SOURCE_CACHE);
    CHECK(tokenward_decision_shared(decision) == shared && shared != 0);
    CHECK(tokenward_decision_body(decision, &s) == TOKENWARD_OK && is(s, "b=1"));
    CHECK(tokenward_decision_headers_alone(decision, &shared, &names, &count) == TOKENWARD_ABSENT);
    tokenward_step_free(step);

    /* Headers alone change. */
    request.method = text("GET");
    request.body.data = NULL, request.body.len = 0;
    request_headers[0].name = text("authorization");
    request_headers[0].value = text("Bearer abc");
    request.headers_len = 1;
    CHECK(tokenward_begin(introspector, NULL, &request, &NOW, &step) == TOKENWARD_OK);
    decision = tokenward_step_decision(step);
    count = 9;
    CHECK(tokenward_decision_headers_alone(decision, &number, &names, &count) == TOKENWARD_OK);
    CHECK(number == shared && count == 1 && is(names[0], "Authorization"));
    tokenward_step_free(step);
    request_headers[1].name = text("X-Credential-Sub");
    request_headers[1].value = text("root");
    request.headers_len = 2;
    CHECK(tokenward_begin(introspector, NULL, &request, &NOW, &step) == TOKENWARD_OK);
    decision = tokenward_step_decision(step);
    CHECK(tokenward_decision_headers_alone(decision, &number, &names, &count) == TOKENWARD_OK);
    CHECK(number == shared && count == 2 && is(names[0], "Authorization") && is(names[1], "X-Credential-Sub"));
    tokenward_step_free(step);
    request.headers_len = 0;
    CHECK(tokenward_begin(introspector, NULL, &request, &NOW, &step) == TOKENWARD_OK);
    CHECK(tokenward_decision_headers_alone(tokenward_step_decision(step), &number, &names, &count) == TOKENWARD_ABSENT);
    tokenward_step_free(step);
    request.headers_len = 2;
    request_headers[0].name = text("Content-Type");
    request_headers[0].value = text("application/x-www-form-urlencoded");
    request_headers[1].name = text("Content-Length");
    request_headers[1].value = text("20");
    request.method = text("POST");
    request.body = text("access_token=abc&b=1");

    /* A further policy: another realm, and scopes that nobody has. */
    CHECK(tokenward_policy_new(introspector, "{\"require\": {\"scopes\": [\"x\"]}}", 30, &policy, NULL) == TOKENWARD_OK);
    CHECK(tokenward_begin(introspector, policy, &request, &NOW, &step) == TOKENWARD_OK);
    decision = tokenward_step_decision(step);
    CHECK(!tokenward_decision_is_allow(decision));
    CHECK(tokenward_decision_reason(decision) == TOKENWARD_REASON_INSUFFICIENT_SCOPE);
    CHECK(tokenward_decision_status(decision) == 403);
    CHECK(tokenward_decision_source(decision) == TOKENWARD_SOURCE_CACHE);
    CHECK(tokenward_decision_identity(decision) == TOKENWARD_IDENTITY_NONE);
    CHECK(tokenward_decision_consumer(decision) == NULL);
    CHECK(tokenward_decision_refusal_headers(decision, &headers, &count) == TOKENWARD_OK && count == 3);
    CHECK(is(headers[2].name, "WWW-Authenticate"));
    CHECK(tokenward_decision_refusal_body(decision, &s) == TOKENWARD_OK && s.len > 20 && s.data[0] == '{');
    tokenward_step_free(step);
    tokenward_policy_free(policy);

    /* 503 with Retry-After, whose digits stand in the decision itself. */
    step = begin(introspector, "other");
    CHECK(reply_failed(step, TOKENWARD_FAILURE_DNS) == TOKENWARD_OK);
    decision = tokenward_step_decision(step);
    CHECK(tokenward_decision_refusal_headers(decision, &headers, &count) == TOKENWARD_OK && count == 3);
    CHECK(is(headers[2].name, "Retry-After") && is(headers[2].value, "1"));
    tokenward_step_free(step);
    tokenward_introspector_free(introspector);
}
