/* Documents: what is wrong with them, what is probably not meant, what a host needs to know. */

#include "suite.h"

static const char *const KONG =
    "_format_version: \"3.0\"\n"
    "consumers:\n"
    "- username: alice\n"
    "- username: bob\n"
    "plugins:\n"
    "- name: oauth2-introspection\n"
    "  config:\n"
    "    introspection_url: http://as.example/\n"
    "    authorization_value: Basic eA==\n";


void
topic_documents(void)
{
    size_t                     i;
    tokenward_str              s, pem;
    tokenward_step            *step;
    tokenward_error           *error = NULL;
    tokenward_source           source;
    tokenward_problem          problem;
    tokenward_document        *document = NULL;
    tokenward_introspector    *introspector = introspector_of(NULL);
    const tokenward_consumer  *consumer;

    memset(&source, 0, sizeof(source));
    source.struct_size = sizeof(source);

    /* A Kong file. */
    source.text = text(KONG);
    CHECK(tokenward_document_new(&source, &document, &error) == TOKENWARD_OK && error == NULL);
    CHECK(tokenward_document_warning_count(document) >= 1);
    for (i = 0; i < tokenward_document_warning_count(document); i++) {
        CHECK(tokenward_document_warning_at(document, i, &problem) == TOKENWARD_OK && problem.message.len > 10);
    }
    CHECK(tokenward_document_consumer_count(document) == 2);
    consumer = tokenward_document_consumer_at(document, 1);
    CHECK(tokenward_consumer_username(consumer, &s) == TOKENWARD_OK && is(s, "bob"));
    CHECK(tokenward_document_consumer_at(document, 2) == NULL);
    CHECK(tokenward_document_introspection_url(document, &s) == TOKENWARD_OK && is(s, "http://as.example/"));
    CHECK(tokenward_document_timeout_us(document) == 10000000);
    CHECK(tokenward_document_keepalive_us(document) == 60000000);
    CHECK(tokenward_document_reply_bytes(document) == 1048576);
    CHECK(tokenward_document_concurrent_introspections(document) == 1024);
    CHECK(tokenward_document_tls_roots(document, &s, &pem) == TOKENWARD_ABSENT);

    /* Replaced: the consumers alone, then the configuration alone. */
    step = begin(introspector, "abc");
    CHECK(reply_active(step) == TOKENWARD_OK);
    tokenward_step_free(step);
    CHECK(tokenward_introspector_replace_consumers(introspector, document) == TOKENWARD_OK);
    step = begin(introspector, "abc");
    CHECK(tokenward_decision_source(tokenward_step_decision(step)) == TOKENWARD_SOURCE_CACHE);
    CHECK(tokenward_consumer_id(tokenward_decision_consumer(tokenward_step_decision(step)), &s) == TOKENWARD_OK);
    CHECK(s.len == 36);
    tokenward_step_free(step);
    CHECK(tokenward_introspector_replace_config(introspector, document, &error) == TOKENWARD_OK && error == NULL);
    step = begin(introspector, "abc");
    CHECK(tokenward_outbound_url(tokenward_step_outbound(step), &s) == TOKENWARD_OK && is(s, "http://as.example/"));
    tokenward_step_free(step);
    tokenward_document_free(document);

    /* All errors at once, those of the consumers as well. */
    document = NULL;
    source.text = text("{\"introspection_url\": 3, \"tll\": 1}");
    CHECK(tokenward_document_new(&source, &document, &error) == TOKENWARD_INVALID_CONFIG && document == NULL);
    CHECK(tokenward_error_count(error) == 3);
    CHECK(tokenward_error_at(error, 0, &problem) == TOKENWARD_OK && is(problem.path, "introspection_url"));
    CHECK(tokenward_error_message(error, &s) == TOKENWARD_OK && s.len > 60);
    tokenward_error_free(error);
    CHECK(tokenward_document_new(&source, &document, NULL) == TOKENWARD_INVALID_CONFIG);
    source.text = text("{\"introspection_url\": \"https://a.example/\", \"authorization_value\": \"x\"}");
    source.consumers = text("[{}]");
    CHECK(tokenward_document_new(&source, &document, NULL) == TOKENWARD_INVALID_CONFIG);
    source.consumers = text("[{\"username\": \"carol\"}]");
    CHECK(tokenward_document_new(&source, &document, NULL) == TOKENWARD_OK);
    CHECK(tokenward_document_consumer_count(document) == 1);
    tokenward_document_free(document);
    source.text.data = "\xff";
    source.text.len = 1;
    CHECK(tokenward_document_new(&source, &document, NULL) == TOKENWARD_NOT_UTF8);

    /* A folder for relative paths. */
    source.text = text("{\"introspection_url\": \"https://a.example/\", \"authorization_value\": {\"file\": \"none\"}}");
    source.folder = text("/nowhere");
    CHECK(tokenward_document_new(&source, &document, &error) == TOKENWARD_INVALID_CONFIG);
    CHECK(tokenward_error_message(error, &s) == TOKENWARD_OK);
    {
        char  message[256];

        CHECK(s.len < sizeof(message));
        memcpy(message, s.data, s.len);
        message[s.len] = '\0';
        CHECK(strstr(message, "/nowhere/none") != NULL);
    }
    tokenward_error_free(error);
    tokenward_introspector_free(introspector);
}
