/* Waits for hosts that cannot be called back. */

#include "suite.h"


void
topic_tags(void)
{
    uint64_t                 tag = 0;
    tokenward_step          *asks, *waits[3];
    tokenward_introspector  *introspector = introspector_of(NULL);

    asks = begin(introspector, "abc");
    waits[0] = begin(introspector, "abc");
    waits[1] = begin(introspector, "abc");
    waits[2] = begin(introspector, "abc");
    CHECK(tokenward_step_set_tag(waits[0], 7) == TOKENWARD_OK);
    CHECK(tokenward_step_set_tag(waits[0], 10) == TOKENWARD_OK);
    CHECK(tokenward_step_set_tag(waits[1], UINT64_MAX) == TOKENWARD_OK);
    CHECK(tokenward_step_set_tag(waits[2], 12) == TOKENWARD_OK);
    CHECK(tokenward_next_ready(introspector, &tag) == TOKENWARD_ABSENT);

    /* One that ends first gives none. */
    tokenward_step_free(waits[2]);
    CHECK(tokenward_next_ready(introspector, &tag) == TOKENWARD_ABSENT);

    CHECK(reply_active(asks) == TOKENWARD_OK);
    CHECK(tokenward_next_ready(introspector, &tag) == TOKENWARD_OK && tag == 10);
    CHECK(tokenward_next_ready(introspector, &tag) == TOKENWARD_OK && tag == UINT64_MAX);
    CHECK(tokenward_next_ready(introspector, &tag) == TOKENWARD_ABSENT);

    /* At once, where the answer is there already. */
    CHECK(tokenward_step_set_tag(waits[0], 11) == TOKENWARD_OK);
    CHECK(tokenward_next_ready(introspector, &tag) == TOKENWARD_OK && tag == 11);
    CHECK(tokenward_step_resume(waits[0], &NOW) == TOKENWARD_OK && stands_at(waits[0]) == 'd');

    tokenward_step_free(waits[0]);
    tokenward_introspector_free(introspector);
    /* A step's tag after its introspector: nobody is left to ask for it. */
    CHECK(tokenward_step_resume(waits[1], &NOW) == TOKENWARD_OK);
    tokenward_step_free(waits[1]);
    tokenward_step_free(asks);
}
