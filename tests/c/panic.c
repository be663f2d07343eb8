/* A defect does not cross the boundary. */

#include <pthread.h>

#include "suite.h"


static void *
elsewhere(void *result)
{
    *(tokenward_result *) result = tokenward_testing_panic();
    return NULL;
}


void
topic_panic(void)
{
    pthread_t                thread;
    tokenward_step          *step = NULL;
    tokenward_result         result = TOKENWARD_OK;
    tokenward_introspector  *introspector = introspector_of(NULL);

    fprintf(stderr, "(two panics follow, which are meant)\n");
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
}
