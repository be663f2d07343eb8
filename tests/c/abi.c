/* Versions, and structs of other headers. */

#include <stddef.h>

#include "suite.h"


/* Where each field is in 1.0 on a machine of 64 bits: it stays there, and structs of 1.0 keep their size. */

static void
layout(void)
{
#define AT(type, field, at) CHECK(offsetof(type, field) == (at))
    if (sizeof(void *) != 8 || sizeof(size_t) != 8) {
        return;
    }
    CHECK(sizeof(tokenward_str) == 16 && sizeof(tokenward_header) == 32 && sizeof(tokenward_problem) == 32);
    CHECK(sizeof(tokenward_time) == 16);
    AT(tokenward_str, data, 0);
    AT(tokenward_str, len, 8);
    AT(tokenward_header, name, 0);
    AT(tokenward_header, value, 16);
    AT(tokenward_problem, path, 0);
    AT(tokenward_problem, message, 16);
    AT(tokenward_time, wall_us, 0);
    AT(tokenward_time, monotonic_us, 8);

    AT(tokenward_source, struct_size, 0);
    AT(tokenward_source, text, 8);
    AT(tokenward_source, consumers, 24);
    AT(tokenward_source, folder, 40);
    AT(tokenward_source, select, 56);
    CHECK(sizeof(tokenward_source) >= 72);
    AT(tokenward_options, struct_size, 0);
    AT(tokenward_options, log, 8);
    AT(tokenward_options, log_userdata, 16);
    AT(tokenward_options, log_release, 24);
    AT(tokenward_options, log_level, 32);
    AT(tokenward_options, log_lines, 36);
    CHECK(sizeof(tokenward_options) >= 40);
    AT(tokenward_request, struct_size, 0);
    AT(tokenward_request, method, 8);
    AT(tokenward_request, target, 24);
    AT(tokenward_request, headers, 40);
    AT(tokenward_request, headers_len, 48);
    AT(tokenward_request, trailers, 56);
    AT(tokenward_request, trailers_len, 64);
    AT(tokenward_request, body, 72);
    CHECK(sizeof(tokenward_request) >= 88);
    AT(tokenward_reply, struct_size, 0);
    AT(tokenward_reply, failure, 8);
    AT(tokenward_reply, status, 12);
    AT(tokenward_reply, headers, 16);
    AT(tokenward_reply, headers_len, 24);
    AT(tokenward_reply, body, 32);
    CHECK(sizeof(tokenward_reply) >= 48);
    AT(tokenward_summary, struct_size, 0);
    AT(tokenward_summary, allow, 8);
    AT(tokenward_summary, status, 24);
    AT(tokenward_summary, remove, 32);
    AT(tokenward_summary, set, 48);
    AT(tokenward_summary, headers, 64);
    AT(tokenward_summary, target, 80);
    AT(tokenward_summary, body, 96);
    AT(tokenward_summary, consumer_id, 112);
    AT(tokenward_summary, consumer_custom_id, 144);
    CHECK(sizeof(tokenward_summary) >= 160);
    AT(tokenward_brief, struct_size, 0);
    AT(tokenward_brief, step, 8);
    AT(tokenward_brief, decision, 16);
    AT(tokenward_brief, allow, 24);
    AT(tokenward_brief, headers_alone, 28);
    AT(tokenward_brief, identity, 32);
    AT(tokenward_brief, shared, 40);
    AT(tokenward_brief, remove, 48);
    AT(tokenward_brief, remove_len, 56);
    CHECK(sizeof(tokenward_brief) >= 64);
#undef AT
}


/* The structs of a program that was compiled against 1.0, behind which its memory holds anything: a later library reads no further. */

static void
a_program_of_1_0(void)
{
    struct {
        tokenward_request  request;
        char               behind[256];
    } given;
    char                     credentials[64];
    tokenward_step          *step = NULL;
    tokenward_header         header;
    tokenward_introspector  *introspector = introspector_of(NULL);

    memset(&given, 0xff, sizeof(given));
    given.request = request_with("abc", &header, credentials, sizeof(credentials));
    if (sizeof(void *) == 8) {
        given.request.struct_size = 88;
    }
    CHECK(tokenward_begin(introspector, NULL, &given.request, &NOW, &step) == TOKENWARD_OK);
    CHECK(reply_active(step) == TOKENWARD_OK);
    CHECK(tokenward_decision_is_allow(tokenward_step_decision(step)));
    tokenward_step_free(step);
    tokenward_introspector_free(introspector);
}


void
topic_abi(void)
{
    uint32_t                 major = TOKENWARD_ABI_VERSION >> 16, minor = TOKENWARD_ABI_VERSION & 0xffff;
    char                     credentials[64];
    size_t                   sizes[4], i;
    uint32_t                 next = getenv("TOKENWARD_NEXT") != NULL;
    tokenward_step          *step = NULL;
    tokenward_reply          reply;
    tokenward_header         header;
    tokenward_request        request = request_with("abc", &header, credentials, sizeof(credentials));
    tokenward_introspector  *introspector = introspector_of(NULL);

    /* The library is this header's, or one of a minor version more: the run script has both. */
    CHECK(tokenward_abi_version() == (uint32_t) TOKENWARD_ABI_VERSION + next);
    CHECK(tokenward_abi_check(TOKENWARD_ABI_VERSION) == TOKENWARD_OK);
    CHECK(tokenward_abi_check((major + 1) << 16 | minor) == TOKENWARD_ABI_MISMATCH);
    CHECK(tokenward_abi_check((major - 1) << 16 | minor) == TOKENWARD_ABI_MISMATCH);
    CHECK(tokenward_abi_check(major << 16 | (minor + 1 + next)) == TOKENWARD_ABI_MISMATCH);
    CHECK(tokenward_abi_check(major << 16 | (minor + next)) == TOKENWARD_OK);
    if (minor > 0) {
        CHECK(tokenward_abi_check(major << 16 | (minor - 1)) == TOKENWARD_OK);
    }
    CHECK(tokenward_version()[0] >= '0' && tokenward_version()[0] <= '9');
    CHECK(strcmp(tokenward_result_name(TOKENWARD_FREED), "TOKENWARD_FREED") == 0);
    CHECK(strcmp(tokenward_result_name(99), "unknown") == 0);

    /* A struct that was not set up, or of another header, is refused, and what it would have been for stays. */
    step = begin(introspector, "abc");
    memset(&reply, 0, sizeof(reply));
    sizes[0] = 0;
    sizes[1] = sizeof(tokenward_reply) - 1;
    sizes[2] = sizeof(tokenward_request) + 8;
    sizes[3] = SIZE_MAX;
    for (i = 0; i < 4; i++) {
        reply.struct_size = sizes[i];
        CHECK(tokenward_step_reply(step, &reply, &NOW) == TOKENWARD_INVALID_ARGUMENT);
        request.struct_size = sizes[i];
        CHECK(tokenward_begin(introspector, NULL, &request, &NOW, POISON(tokenward_step *)) == TOKENWARD_INVALID_ARGUMENT);
    }
    CHECK(stands_at(step) == 'o');
    tokenward_step_free(step);
    tokenward_introspector_free(introspector);

    layout();
    a_program_of_1_0();
}
