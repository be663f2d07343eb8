/* A defect does not cross the boundary. */

#include <pthread.h>

#include "suite.h"


static void *
elsewhere(void *result)
{
    *(tokenward_result *) result = tokenward_testing_panic();
    return NULL;
}


static void
note(void *userdata, bool ready)
{
    int  *calls = (int *) userdata;

    calls[ready]++;
}


/* A step that met one holds a refusal, whoever waited for it goes on, and functions are called. */

static void
a_step(void)
{
    int                      calls[2] = { 0, 0 };
    tokenward_step          *asks, *waits;
    tokenward_introspector  *introspector = introspector_of(NULL);

    asks = begin(introspector, "abc");
    waits = begin(introspector, "abc");
    CHECK(tokenward_step_on_ready(waits, note, calls) == TOKENWARD_OK);
    tokenward_testing_panic_next(1);
    CHECK(reply_active(asks) == TOKENWARD_PANIC);
    CHECK(stands_at(asks) == 'd');
    CHECK(!tokenward_decision_is_allow(tokenward_step_decision(asks)));
    CHECK(tokenward_decision_reason(tokenward_step_decision(asks)) == TOKENWARD_REASON_INTERNAL);
    CHECK(reply_active(asks) == TOKENWARD_ALREADY_USED);
    tokenward_step_free(asks);
    CHECK(calls[1] == 1 && calls[0] == 0);
    CHECK(tokenward_step_resume(waits, &NOW) == TOKENWARD_OK && stands_at(waits) == 'o');
    tokenward_testing_panic_next(1);
    CHECK(reply_failed(waits, TOKENWARD_FAILURE_CONNECT) == TOKENWARD_PANIC && stands_at(waits) == 'd');
    tokenward_step_free(waits);

    asks = begin(introspector, "abc");
    waits = begin(introspector, "abc");
    tokenward_testing_panic_next(1);
    CHECK(tokenward_step_on_ready(waits, note, calls) == TOKENWARD_PANIC && stands_at(waits) == 'd');
    CHECK(calls[1] == 1 && calls[0] == 1);
    tokenward_step_free(waits);
    waits = begin(introspector, "abc");
    tokenward_testing_panic_next(1);
    CHECK(tokenward_step_resume(waits, &NOW) == TOKENWARD_PANIC && stands_at(waits) == 'd');
    tokenward_step_free(waits);
    CHECK(reply_active(asks) == TOKENWARD_OK);
    CHECK(tokenward_decision_is_allow(tokenward_step_decision(asks)));
    tokenward_step_free(asks);

    /* One more while the refusal is made: it is made all the same, and the step is no longer busy. */
    asks = begin(introspector, "twice");
    tokenward_testing_panic_next(2);
    CHECK(reply_active(asks) == TOKENWARD_PANIC);
    CHECK(stands_at(asks) == 'd');
    CHECK(!tokenward_decision_is_allow(tokenward_step_decision(asks)));
    CHECK(tokenward_decision_reason(tokenward_step_decision(asks)) == TOKENWARD_REASON_INTERNAL);
    CHECK(tokenward_decision_status(tokenward_step_decision(asks)) == 500);
    tokenward_step_free(asks);
    tokenward_introspector_free(introspector);
}


/* The function of a wait whose step meets a defect may free it all the same. */

static void
frees(void *userdata, bool ready)
{
    tokenward_step  **step = (tokenward_step **) userdata;

    CHECK(!ready);
    tokenward_step_free(*step);
    *step = NULL;
}


static void
a_step_that_is_freed(void)
{
    int                      calls[2] = { 0, 0 };
    tokenward_step          *asks, *waits;
    tokenward_introspector  *introspector = introspector_of(NULL);

    asks = begin(introspector, "abc");
    waits = begin(introspector, "abc");
    CHECK(tokenward_step_on_ready(waits, frees, &waits) == TOKENWARD_OK);
    tokenward_testing_panic_next(1);
    CHECK(tokenward_step_on_ready(waits, note, calls) == TOKENWARD_FREED);
    CHECK(waits == NULL && calls[0] == 1 && calls[1] == 0);
    tokenward_step_free(asks);
    tokenward_introspector_free(introspector);
}


void
topic_panic(void)
{
    pthread_t                thread;
    tokenward_step          *step = NULL;
    tokenward_result         result = TOKENWARD_OK;
    tokenward_introspector  *introspector = introspector_of(NULL);

    fprintf(stderr, "(panics follow, which are meant)\n");
    CHECK(tokenward_testing_panic() == TOKENWARD_PANIC);
    CHECK(pthread_create(&thread, NULL, elsewhere, &result) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(result == TOKENWARD_PANIC);

    /* Everything else works on, */
    step = begin(introspector, "abc");
    CHECK(reply_active(step) == TOKENWARD_OK);
    CHECK(tokenward_decision_is_allow(tokenward_step_decision(step)));
    tokenward_step_free(step);

    /* and a host that met one has a refusal to answer with. */
    CHECK(tokenward_internal(introspector, false, &step) == TOKENWARD_OK);
    CHECK(tokenward_decision_status(tokenward_step_decision(step)) == 500);
    CHECK(tokenward_decision_reason(tokenward_step_decision(step)) == TOKENWARD_REASON_INTERNAL);
    tokenward_step_free(step);
    tokenward_introspector_free(introspector);

    a_step();
    a_step_that_is_freed();
}
