/* One hit over and over, as core/benches/instructions.rs does it: its instructions are counted under callgrind and compared.
 *
 *     hit ROUNDS [edits]
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tokenward.h>

static const char *const CONFIG =
    "{\"introspection_url\": \"https://as.example/\", \"authorization_value\": \"Basic eA==\", \"ttl\": 100000,"
    " \"consumers\": [{\"id\": \"c1\", \"username\": \"jdoe\"}]}";
static const char *const ACTIVE =
    "{\"active\":true,\"client_id\":\"l238j323ds-23ij4\",\"username\":\"jdoe\",\"scope\":\"read write dolphin\",\n"
    "\"sub\":\"Z5O3upPC88QrAjx00dis\",\"aud\":\"https://protected.example.net/resource\","
    "\"iss\":\"https://server.example.com/\",\"exp\":1419356238}";

static const char *const HEADERS[8][2] = {
    { "Host", "api.example.com" },
    { "User-Agent", "curl/8.5.0" },
    { "Accept", "*/*" },
    { "Accept-Encoding", "gzip, deflate, br" },
    { "X-Forwarded-For", "192.0.2.7" },
    { "X-Request-Id", "6f1c1d4f0c5e4e0a8d6f3b0f3f0c6f1c" },
    { "Connection", "keep-alive" },
    { "Authorization", "Bearer 0123456789012345678901234567890123456789abc" },
};


static tokenward_str
text(const char *c)
{
    tokenward_str  s;

    s.data = c;
    s.len = strlen(c);
    return s;
}


int
main(int argc, char **argv)
{
    int                      edits = argc > 2;
    long                     round, rounds = argc > 1 ? atol(argv[1]) : 0;
    size_t                   i, count;
    tokenward_time           now = { 1419352000000000u, 1000000u };
    tokenward_step          *step = NULL;
    tokenward_reply          reply;
    tokenward_header         headers[8], type;
    tokenward_source         source;
    tokenward_request        request;
    tokenward_document      *document = NULL;
    tokenward_introspector  *introspector = NULL;
    const tokenward_str     *names;
    const tokenward_header  *set;

    memset(&source, 0, sizeof(source));
    source.struct_size = sizeof(source);
    source.text = text(CONFIG);
    if (tokenward_document_new(&source, &document, NULL) != TOKENWARD_OK
        || tokenward_introspector_new(document, NULL, &introspector, NULL) != TOKENWARD_OK)
    {
        return 1;
    }
    tokenward_document_free(document);
    for (i = 0; i < 8; i++) {
        headers[i].name = text(HEADERS[i][0]);
        headers[i].value = text(HEADERS[i][1]);
    }
    memset(&request, 0, sizeof(request));
    request.struct_size = sizeof(request);
    request.method = text("GET");
    request.target = text("/orders?page=2");
    request.headers = headers;
    request.headers_len = 8;

    memset(&reply, 0, sizeof(reply));
    reply.struct_size = sizeof(reply);
    reply.status = 200;
    reply.body = text(ACTIVE);
    type.name = text("content-type");
    type.value = text("application/json");
    reply.headers = &type;
    reply.headers_len = 1;
    if (tokenward_begin(introspector, NULL, &request, &now, &step) != TOKENWARD_OK
        || tokenward_step_reply(step, &reply, &now) != TOKENWARD_OK)
    {
        return 1;
    }
    tokenward_step_free(step);

    for (round = 0; round < rounds; round++) {
        const tokenward_decision  *decision;

        if (tokenward_begin(introspector, NULL, &request, &now, &step) != TOKENWARD_OK) {
            return 1;
        }
        decision = tokenward_step_decision(step);
        if (!tokenward_decision_is_allow(decision) || tokenward_decision_source(decision) != TOKENWARD_SOURCE_CACHE) {
            return 1;
        }
        if (edits
            && (tokenward_decision_remove(decision, &names, &count) != TOKENWARD_OK || count != 1
                || tokenward_decision_set(decision, &set, &count) != TOKENWARD_OK || count != 9))
        {
            return 1;
        }
        tokenward_step_free(step);
    }
    tokenward_introspector_free(introspector);
    return 0;
}
