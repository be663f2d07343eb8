/* Versions, and structs of other headers. */

#include "suite.h"


void
topic_abi(void)
{
    uint32_t                 major = TOKENWARD_ABI_VERSION >> 16, minor = TOKENWARD_ABI_VERSION & 0xffff;
    char                     credentials[64];
    size_t                   sizes[4], i;
    tokenward_step          *step = NULL;
    tokenward_reply          reply;
    tokenward_header         header;
    tokenward_request        request = request_with("abc", &header, credentials, sizeof(credentials));
    tokenward_introspector  *introspector = introspector_of(NULL);

    CHECK(tokenward_abi_version() == (uint32_t) TOKENWARD_ABI_VERSION);
    CHECK(tokenward_abi_check(TOKENWARD_ABI_VERSION) == TOKENWARD_OK);
    CHECK(tokenward_abi_check((major + 1) << 16 | minor) == TOKENWARD_ABI_MISMATCH);
    CHECK(tokenward_abi_check((major - 1) << 16 | minor) == TOKENWARD_ABI_MISMATCH);
    CHECK(tokenward_abi_check(major << 16 | (minor + 1)) == TOKENWARD_ABI_MISMATCH);
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
    sizes[2] = sizeof(tokenward_reply) + 8;
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
}
