/* Each function is called exactly once. */

#include "suite.h"

typedef struct {
    int  calls, ready;
} seen_t;


static void
note(void *userdata, bool ready)
{
    seen_t  *seen = (seen_t *) userdata;

    seen->calls++;
    seen->ready = ready;
}


void
topic_callbacks(void)
{
    int                      i;
    seen_t                   seen[6];
    tokenward_time           late = { NOW.wall_us + 60000000, NOW.monotonic_us + 60000000 };
    tokenward_step          *asks, *waits[5];
    tokenward_introspector  *introspector = introspector_of(NULL);

    memset(seen, 0, sizeof(seen));
    asks = begin(introspector, "abc");
    for (i = 0; i < 5; i++) {
        waits[i] = begin(introspector, "abc");
    }

    /* Freed, or replaced by another: false. */
    CHECK(tokenward_step_on_ready(waits[0], note, &seen[0]) == TOKENWARD_OK);
    tokenward_step_free(waits[0]);
    CHECK(seen[0].calls == 1 && !seen[0].ready);
    CHECK(tokenward_step_on_ready(waits[1], note, &seen[1]) == TOKENWARD_OK);
    CHECK(tokenward_step_on_ready(waits[1], note, &seen[2]) == TOKENWARD_OK);
    CHECK(seen[1].calls == 1 && !seen[1].ready && seen[2].calls == 0);
    /* Replaced by a tag: false as well. */
    CHECK(tokenward_step_on_ready(waits[2], note, &seen[3]) == TOKENWARD_OK);
    CHECK(tokenward_step_set_tag(waits[2], 5) == TOKENWARD_OK);
    CHECK(seen[3].calls == 1 && !seen[3].ready);
    /* Resumed at its end: false. */
    CHECK(tokenward_step_on_ready(waits[3], note, &seen[4]) == TOKENWARD_OK);
    CHECK(tokenward_step_resume(waits[3], &late) == TOKENWARD_OK);
    CHECK(tokenward_decision_reason(tokenward_step_decision(waits[3])) == TOKENWARD_REASON_ENDPOINT_TIMED_OUT);
    CHECK(seen[4].calls == 1 && !seen[4].ready);

    /* The answer: true; and at once where it is there already. */
    CHECK(reply_active(asks) == TOKENWARD_OK);
    CHECK(seen[2].calls == 1 && seen[2].ready);
    CHECK(tokenward_step_on_ready(waits[4], note, &seen[5]) == TOKENWARD_OK);
    CHECK(seen[5].calls == 1 && seen[5].ready);
    CHECK(stands_at(waits[4]) == 'w');

    for (i = 1; i < 5; i++) {
        tokenward_step_free(waits[i]);
    }
    tokenward_step_free(asks);

    /* The asker goes away: one of those who wait asks. */
    memset(seen, 0, sizeof(seen));
    asks = begin(introspector, "xyz");
    waits[0] = begin(introspector, "xyz");
    CHECK(tokenward_step_on_ready(waits[0], note, &seen[0]) == TOKENWARD_OK);
    tokenward_step_free(asks);
    CHECK(seen[0].calls == 1 && seen[0].ready);
    CHECK(tokenward_step_resume(waits[0], &NOW) == TOKENWARD_OK);
    CHECK(stands_at(waits[0]) == 'o');
    tokenward_step_free(waits[0]);
    CHECK(seen[0].calls == 1);
    tokenward_introspector_free(introspector);
}
