/* A step is used once at each thing it stands at. */

#include "suite.h"


static void
ignore(void *userdata, bool ready)
{
    (void) ready;
    ++*(int *) userdata;
}


void
topic_used(void)
{
    int                      calls = 0;
    tokenward_step          *asks, *waits;
    tokenward_introspector  *introspector = introspector_of(NULL);

    asks = begin(introspector, "abc");
    waits = begin(introspector, "abc");

    /* At the wrong thing: nothing happens. */
    CHECK(tokenward_step_resume(asks, &NOW) == TOKENWARD_WRONG_STEP);
    CHECK(tokenward_step_on_ready(asks, ignore, &calls) == TOKENWARD_WRONG_STEP);
    CHECK(tokenward_step_set_tag(asks, 1) == TOKENWARD_WRONG_STEP);
    CHECK(reply_active(waits) == TOKENWARD_WRONG_STEP);
    CHECK(stands_at(asks) == 'o' && stands_at(waits) == 'w');

    /* Early: the wait again, as often as one likes. */
    CHECK(tokenward_step_resume(waits, &NOW) == TOKENWARD_OK);
    CHECK(tokenward_step_resume(waits, &NOW) == TOKENWARD_OK);
    CHECK(stands_at(waits) == 'w');

    /* A retry is another call, and then it is over. */
    CHECK(reply_failed(asks, TOKENWARD_FAILURE_CONNECT) == TOKENWARD_OK);
    CHECK(stands_at(asks) == 'o');
    CHECK(reply_active(asks) == TOKENWARD_OK);
    CHECK(stands_at(asks) == 'd');
    CHECK(reply_active(asks) == TOKENWARD_ALREADY_USED);
    CHECK(reply_failed(asks, TOKENWARD_FAILURE_DNS) == TOKENWARD_ALREADY_USED);
    CHECK(tokenward_step_resume(asks, &NOW) == TOKENWARD_ALREADY_USED);
    CHECK(tokenward_step_on_ready(asks, ignore, &calls) == TOKENWARD_ALREADY_USED);
    CHECK(tokenward_step_set_tag(asks, 1) == TOKENWARD_ALREADY_USED);
    CHECK(tokenward_decision_is_allow(tokenward_step_decision(asks)));

    CHECK(tokenward_step_resume(waits, &NOW) == TOKENWARD_OK);
    CHECK(stands_at(waits) == 'd');
    CHECK(tokenward_decision_source(tokenward_step_decision(waits)) == TOKENWARD_SOURCE_WAITING);
    CHECK(tokenward_step_resume(waits, &NOW) == TOKENWARD_ALREADY_USED);
    CHECK(calls == 0);

    tokenward_step_free(asks);
    tokenward_step_free(waits);
    tokenward_introspector_free(introspector);
}
