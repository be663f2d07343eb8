/* The C suite: `suite` runs every topic, `suite NAME` one. The last line is in the form of Rust's test runner. */

#include "suite.h"

int checks, failures;

const tokenward_time NOW = { 1700000000000000u, 1000000u };

static const char *const CONFIG =
    "{\"introspection_url\": \"https://as.example/introspect\", \"authorization_value\": \"Basic eA==\","
    " \"token_from\": [\"header\", \"query\", \"body\"],"
    " \"consumers\": [{\"id\": \"7\", \"username\": \"alice\", \"tags\": [\"a\", \"b\"], \"groups\": [\"g\"]}]}";

static const char *const ACTIVE =
    "{\"active\": true, \"username\": \"alice\", \"sub\": \"a\\u0000\\\"b\", \"exp\": 1700000060.5,"
    " \"realm\": {\"roles\": [\"x\", 20]}}";


tokenward_str
text(const char *c)
{
    tokenward_str  s;

    s.data = c;
    s.len = strlen(c);
    return s;
}


int
is(tokenward_str s, const char *expected)
{
    return s.len == strlen(expected) && memcmp(s.data, expected, s.len) == 0;
}


tokenward_document *
document_of(const char *json)
{
    tokenward_source     source;
    tokenward_document  *document = NULL;

    memset(&source, 0, sizeof(source));
    source.struct_size = sizeof(source);
    source.text = text(json);
    if (tokenward_document_new(&source, &document, NULL) != TOKENWARD_OK) {
        fprintf(stderr, "refused: %s\n", json);
        exit(1);
    }
    return document;
}


tokenward_introspector *
introspector_of(const tokenward_options *options)
{
    tokenward_document      *document = document_of(CONFIG);
    tokenward_introspector  *introspector = NULL;

    CHECK(tokenward_introspector_new(document, options, &introspector, NULL) == TOKENWARD_OK);
    tokenward_document_free(document);
    return introspector;
}


tokenward_request
request_with(const char *token, tokenward_header *header, char *credentials, size_t size)
{
    tokenward_request  request;

    snprintf(credentials, size, "Bearer %s", token);
    header->name = text("Authorization");
    header->value = text(credentials);
    memset(&request, 0, sizeof(request));
    request.struct_size = sizeof(request);
    request.method = text("GET");
    request.target = text("/");
    request.headers = header;
    request.headers_len = 1;
    return request;
}


tokenward_step *
begin(const tokenward_introspector *introspector, const char *token)
{
    char               credentials[64];
    tokenward_step    *step = NULL;
    tokenward_header   header;
    tokenward_request  request = request_with(token, &header, credentials, sizeof(credentials));

    CHECK(tokenward_begin(introspector, NULL, &request, &NOW, &step) == TOKENWARD_OK);
    /* What was passed in is not kept. */
    memset(credentials, 'x', sizeof(credentials));
    memset(&header, 0, sizeof(header));
    memset(&request, 0, sizeof(request));
    return step;
}


tokenward_result
reply_active(tokenward_step *step)
{
    tokenward_reply   reply;
    tokenward_header  header;

    header.name = text("Content-Type");
    header.value = text("application/json");
    memset(&reply, 0, sizeof(reply));
    reply.struct_size = sizeof(reply);
    reply.status = 200;
    reply.headers = &header;
    reply.headers_len = 1;
    reply.body = text(ACTIVE);
    return tokenward_step_reply(step, &reply, &NOW);
}


tokenward_result
reply_failed(tokenward_step *step, uint32_t failure)
{
    tokenward_reply  reply;

    memset(&reply, 0, sizeof(reply));
    reply.struct_size = sizeof(reply);
    reply.failure = failure;
    return tokenward_step_reply(step, &reply, &NOW);
}


char
stands_at(const tokenward_step *step)
{
    int  outbound = tokenward_step_outbound(step) != NULL;
    int  wait = tokenward_step_wait(step) != NULL;
    int  decision = tokenward_step_decision(step) != NULL;

    CHECK(outbound + wait + decision <= 1);
    return outbound ? 'o' : wait ? 'w' : decision ? 'd' : '-';
}


static const struct {
    const char  *name;
    void       (*run)(void);
} TOPICS[] = {
    { "abi", topic_abi },
    { "arguments", topic_arguments },
    { "callbacks", topic_callbacks },
    { "client", topic_client },
    { "decisions", topic_decisions },
    { "documents", topic_documents },
    { "logs", topic_logs },
    { "nulls", topic_nulls },
    { "order", topic_order },
    { "outputs", topic_outputs },
    { "panic", topic_panic },
    { "reentry", topic_reentry },
    { "stats", topic_stats },
    { "tags", topic_tags },
    { "threads", topic_threads },
    { "turns", topic_turns },
    { "used", topic_used },
};


int
main(int argc, char **argv)
{
    int     before, passed = 0, failed = 0;
    size_t  i;

    for (i = 0; i < sizeof(TOPICS) / sizeof(TOPICS[0]); i++) {
        if (argc > 1 && strcmp(argv[1], TOPICS[i].name) != 0) {
            continue;
        }
        before = failures;
        checks = 0;
        TOPICS[i].run();
        printf("test %s ... %s (%d checks)\n", TOPICS[i].name, failures == before ? "ok" : "FAILED", checks);
        if (failures == before && checks > 0) {
            passed++;
        } else {
            failed++;
        }
    }
    printf("test result: %s. %d passed; %d failed;\n", failed ? "FAILED" : "ok", passed, failed);
    return failed != 0;
}
