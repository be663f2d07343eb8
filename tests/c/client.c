/* The blocking client, as far as it goes without a server: examples/c has one. */

#include "suite.h"


void
topic_client(void)
{
    char                     credentials[64];
    tokenward_step          *step = NULL;
    tokenward_header         header;
    tokenward_policy        *policy = NULL;
    tokenward_request        request = request_with("abc", &header, credentials, sizeof(credentials));
    tokenward_document      *document;
    tokenward_introspector  *introspector = NULL;

    /* Nobody listens on port 1. */
    document = document_of("{\"introspection_url\": \"http://127.0.0.1:1/\", \"authorization_value\": \"x\", \"timeout\": 3000}");
    CHECK(tokenward_introspector_new(document, NULL, &introspector, NULL) == TOKENWARD_OK);
    tokenward_document_free(document);
    CHECK(tokenward_policy_new(introspector, "{\"realm\": \"other\"}", 18, &policy, NULL) == TOKENWARD_OK);

    CHECK(tokenward_authenticate(introspector, NULL, &request, &step) == TOKENWARD_OK);
    CHECK(tokenward_decision_reason(tokenward_step_decision(step)) == TOKENWARD_REASON_ENDPOINT_UNREACHABLE);
    CHECK(tokenward_decision_status(tokenward_step_decision(step)) == 503);
    CHECK(reply_active(step) == TOKENWARD_ALREADY_USED);
    tokenward_step_free(step);

    request.headers_len = 0;
    CHECK(tokenward_authenticate(introspector, policy, &request, &step) == TOKENWARD_OK);
    CHECK(tokenward_decision_status(tokenward_step_decision(step)) == 401);
    tokenward_step_free(step);
    tokenward_policy_free(policy);
    tokenward_introspector_free(introspector);
}
