/* Waits for hosts that cannot be called back. */

#include "suite.h"

typedef struct {
    tokenward_introspector  *introspector;
    tokenward_step          *asks;
    uint64_t                 tag;
    tokenward_result         result;
} seen_t;


static void
replies(void *userdata, bool ready)
{
    seen_t  *seen = (seen_t *) userdata;

    if (!ready) {
        CHECK(reply_active(seen->asks) == TOKENWARD_OK);
    }
}


static void
asks_for_a_tag(void *userdata, bool ready)
{
    seen_t  *seen = (seen_t *) userdata;

    CHECK(ready);
    seen->result = tokenward_next_ready(seen->introspector, &seen->tag);
}


/* The answer comes while the tag is being set: nobody gets it before tokenward_step_set_tag is done with the step. */

static void
a_tag_comes_when_its_step_is_whole(void)
{
    seen_t                   seen;
    tokenward_step          *tagged, *other;
    tokenward_introspector  *introspector = introspector_of(NULL);

    memset(&seen, 0, sizeof(seen));
    seen.introspector = introspector;
    seen.asks = begin(introspector, "abc");
    tagged = begin(introspector, "abc");
    other = begin(introspector, "abc");
    CHECK(tokenward_step_on_ready(tagged, replies, &seen) == TOKENWARD_OK);
    CHECK(tokenward_step_on_ready(other, asks_for_a_tag, &seen) == TOKENWARD_OK);
    CHECK(tokenward_step_set_tag(tagged, 5) == TOKENWARD_OK);
    CHECK(seen.result == TOKENWARD_ABSENT && seen.tag == 0);
    CHECK(tokenward_next_ready(introspector, &seen.tag) == TOKENWARD_OK && seen.tag == 5);
    tokenward_step_free(seen.asks);
    tokenward_step_free(tagged);
    tokenward_step_free(other);
    tokenward_introspector_free(introspector);
}


/* A tag whose wait is just being given up is given to nobody, a function that runs meanwhile included. */

static void
a_tag_ends_before_its_wait(void)
{
    seen_t                   seen;
    tokenward_step          *tagged, *other;
    tokenward_introspector  *introspector = introspector_of(NULL);

    memset(&seen, 0, sizeof(seen));
    seen.introspector = introspector;
    seen.asks = begin(introspector, "abc");
    tagged = begin(introspector, "abc");
    CHECK(tokenward_step_set_tag(tagged, 7) == TOKENWARD_OK);
    /* Elected, since it is the only one; the one that comes then is woken when it goes. */
    tokenward_step_free(seen.asks);
    other = begin(introspector, "abc");
    CHECK(tokenward_step_on_ready(other, asks_for_a_tag, &seen) == TOKENWARD_OK);
    seen.result = TOKENWARD_OK;
    tokenward_step_free(tagged);
    CHECK(seen.result == TOKENWARD_ABSENT && seen.tag == 0);
    CHECK(tokenward_next_ready(introspector, &seen.tag) == TOKENWARD_ABSENT);
    tokenward_step_free(other);
    tokenward_introspector_free(introspector);
}


/* Tags that nobody asks for go with their waits: there are never more than steps that wait. */

static void
tags_go_with_their_waits(void)
{
    int                      i;
    uint64_t                 tag = 0;
    tokenward_time           late = { NOW.wall_us + 60000000, NOW.monotonic_us + 60000000 };
    tokenward_step          *asks, *waits, *stays;
    tokenward_introspector  *introspector = introspector_of(NULL);

    asks = begin(introspector, "abc");
    stays = begin(introspector, "abc");
    CHECK(reply_active(asks) == TOKENWARD_OK);
    for (i = 0; i < 100; i++) {
        CHECK(tokenward_step_set_tag(stays, (uint64_t) i) == TOKENWARD_OK);
    }
    CHECK(tokenward_next_ready(introspector, &tag) == TOKENWARD_OK && tag == 99);
    CHECK(tokenward_next_ready(introspector, &tag) == TOKENWARD_ABSENT);

    /* Resumed before anybody asked, */
    CHECK(tokenward_step_set_tag(stays, 100) == TOKENWARD_OK);
    CHECK(tokenward_step_resume(stays, &NOW) == TOKENWARD_OK && stands_at(stays) == 'd');
    CHECK(tokenward_next_ready(introspector, &tag) == TOKENWARD_ABSENT);
    tokenward_step_free(stays);
    tokenward_step_free(asks);

    /* freed, */
    for (i = 0; i < 100; i++) {
        CHECK(tokenward_introspector_forget_all(introspector) == TOKENWARD_OK);
        asks = begin(introspector, "abc");
        waits = begin(introspector, "abc");
        CHECK(tokenward_step_set_tag(waits, 7) == TOKENWARD_OK);
        CHECK(reply_active(asks) == TOKENWARD_OK);
        tokenward_step_free(waits);
        tokenward_step_free(asks);
    }
    CHECK(tokenward_next_ready(introspector, &tag) == TOKENWARD_ABSENT);

    /* or given a function. */
    CHECK(tokenward_introspector_forget_all(introspector) == TOKENWARD_OK);
    memset(&tag, 0, sizeof(tag));
    asks = begin(introspector, "abc");
    waits = begin(introspector, "abc");
    CHECK(tokenward_step_set_tag(waits, 8) == TOKENWARD_OK);

    /* A wait that is resumed early keeps its tag. */
    CHECK(tokenward_step_resume(waits, &NOW) == TOKENWARD_OK && stands_at(waits) == 'w');
    CHECK(reply_active(asks) == TOKENWARD_OK);
    CHECK(tokenward_next_ready(introspector, &tag) == TOKENWARD_OK && tag == 8);
    CHECK(tokenward_step_set_tag(waits, 9) == TOKENWARD_OK);
    {
        seen_t  seen;

        memset(&seen, 0, sizeof(seen));
        seen.introspector = introspector;
        CHECK(tokenward_step_on_ready(waits, asks_for_a_tag, &seen) == TOKENWARD_OK);
        CHECK(seen.result == TOKENWARD_ABSENT);
    }
    CHECK(tokenward_step_resume(waits, &late) == TOKENWARD_OK);
    tokenward_step_free(waits);
    tokenward_step_free(asks);
    tokenward_introspector_free(introspector);
}


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

    a_tag_comes_when_its_step_is_whole();
    a_tag_ends_before_its_wait();
    tags_go_with_their_waits();
}
