/* Numbers, lengths and texts that cannot be. */

#include "suite.h"


void
topic_arguments(void)
{
    char                     credentials[64];
    bool                     needed = true, forgotten = true;
    tokenward_step          *step, *none = NULL;
    tokenward_str            name;
    tokenward_reply          reply;
    tokenward_header         header;
    tokenward_policy        *policy = NULL;
    tokenward_request        request = request_with("abc", &header, credentials, sizeof(credentials));
    tokenward_introspector  *introspector = introspector_of(NULL);

    /* The step still stands at its call after each of them, and goes on. */
    step = begin(introspector, "abc");
    CHECK(reply_failed(step, 9) == TOKENWARD_INVALID_ARGUMENT);
    CHECK(reply_failed(step, UINT32_MAX) == TOKENWARD_INVALID_ARGUMENT);
    memset(&reply, 0, sizeof(reply));
    reply.struct_size = sizeof(reply);
    CHECK(tokenward_step_reply(step, &reply, &NOW) == TOKENWARD_INVALID_ARGUMENT);     /* neither status nor failure */
    reply.status = 99;
    CHECK(tokenward_step_reply(step, &reply, &NOW) == TOKENWARD_INVALID_ARGUMENT);
    reply.status = 1000;
    CHECK(tokenward_step_reply(step, &reply, &NOW) == TOKENWARD_INVALID_ARGUMENT);
    reply.status = 65536 + 200;
    CHECK(tokenward_step_reply(step, &reply, &NOW) == TOKENWARD_INVALID_ARGUMENT);
    reply.status = 200;
    reply.headers_len = 1;
    CHECK(tokenward_step_reply(step, &reply, &NOW) == TOKENWARD_NULL_POINTER);
    reply.headers_len = 0;
    reply.body.len = 1;
    CHECK(tokenward_step_reply(step, &reply, &NOW) == TOKENWARD_NULL_POINTER);
    reply.body.data = "";
    reply.body.len = SIZE_MAX;
    CHECK(tokenward_step_reply(step, &reply, &NOW) == TOKENWARD_INVALID_ARGUMENT);
    CHECK(stands_at(step) == 'o');
    CHECK(reply_active(step) == TOKENWARD_OK);
    tokenward_step_free(step);

    header.value.len = SIZE_MAX;
    CHECK(tokenward_begin(introspector, NULL, &request, &NOW, &none) == TOKENWARD_INVALID_ARGUMENT);
    header.value.len = 1;
    request.headers_len = SIZE_MAX / 2;
    CHECK(tokenward_begin(introspector, NULL, &request, &NOW, &none) == TOKENWARD_INVALID_ARGUMENT);
    request.headers_len = 1;
    request.headers = (const tokenward_header *) ((const char *) &header + 1);
    CHECK(tokenward_begin(introspector, NULL, &request, &NOW, &none) == TOKENWARD_INVALID_ARGUMENT);
    CHECK(tokenward_begin(introspector, NULL, (const tokenward_request *) ((const char *) &request + 1), &NOW, &none)
          == TOKENWARD_INVALID_ARGUMENT);
    request.headers = &header;
    request.trailers_len = 1;
    CHECK(tokenward_begin(introspector, NULL, &request, &NOW, &none) == TOKENWARD_NULL_POINTER);
    request.trailers_len = 0;
    request.method.data = NULL;
    CHECK(tokenward_begin(introspector, NULL, &request, &NOW, &none) == TOKENWARD_NULL_POINTER);
    CHECK(none == NULL);

    /* An empty request is one: without a token. */
    memset(&request, 0, sizeof(request));
    request.struct_size = sizeof(request);
    CHECK(tokenward_needs_body(introspector, NULL, &request, &needed) == TOKENWARD_OK && !needed);
    CHECK(tokenward_begin(introspector, NULL, &request, &NOW, &none) == TOKENWARD_OK);
    CHECK(tokenward_decision_reason(tokenward_step_decision(none)) == TOKENWARD_REASON_TOKEN_MISSING);
    tokenward_step_free(none);

    CHECK(tokenward_policy_new(introspector, "\xff", 1, &policy, NULL) == TOKENWARD_NOT_UTF8);
    CHECK(tokenward_policy_new(introspector, "{", 1, &policy, NULL) == TOKENWARD_INVALID_CONFIG);
    CHECK(policy == NULL);
    CHECK(tokenward_introspector_forget(introspector, "\xff", 1, &forgotten) == TOKENWARD_NOT_UTF8);
    CHECK(forgotten);
    CHECK(tokenward_introspector_forget(introspector, "no", 2, &forgotten) == TOKENWARD_OK && !forgotten);
    CHECK(tokenward_introspector_forget(introspector, "abc", 3, &forgotten) == TOKENWARD_OK && forgotten);

    CHECK(tokenward_is_managed("X_Consumer.ID", 13));
    CHECK(!tokenward_is_managed("X-Consumers", 11));
    CHECK(tokenward_reason_name(TOKENWARD_REASON_OVERLOADED, &name) == TOKENWARD_OK && is(name, "overloaded"));
    tokenward_introspector_free(introspector);
}
