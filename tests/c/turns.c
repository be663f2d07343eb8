/* Callbacks take turns: none runs inside of another, however they come about. */

#include "suite.h"

enum { WAITS = 4000 };

typedef struct {
    int                      depth, deepest, calls, ready;
    int                      next, in_a_line;
    tokenward_step          *steps[WAITS];
    tokenward_introspector  *introspector;
} seen_t;


static void
enter(seen_t *seen, bool ready)
{
    seen->calls++;
    seen->ready += ready;
    seen->depth++;
    if (seen->depth > seen->deepest) {
        seen->deepest = seen->depth;
    }
}


static void
only_counts(void *userdata, bool ready)
{
    seen_t  *seen = (seen_t *) userdata;

    enter(seen, ready);
    seen->depth--;
}


static void
frees_the_second(void *userdata, bool ready)
{
    seen_t  *seen = (seen_t *) userdata;

    enter(seen, ready);
    tokenward_step_free(seen->steps[1]);
    seen->steps[1] = NULL;
    CHECK(seen->calls == 1);
    seen->depth--;
}


static void
registers_for_the_next(void *userdata, bool ready)
{
    seen_t  *seen = (seen_t *) userdata;

    enter(seen, ready);
    if (seen->next < WAITS) {
        CHECK(tokenward_step_on_ready(seen->steps[seen->next++], registers_for_the_next, seen) == TOKENWARD_OK);
    }
    seen->depth--;
}


static void
frees_what_it_registered(void *userdata, bool ready)
{
    seen_t  *seen = (seen_t *) userdata;

    enter(seen, ready);
    CHECK(tokenward_step_on_ready(seen->steps[1], only_counts, seen) == TOKENWARD_OK);
    tokenward_step_free(seen->steps[1]);
    seen->steps[1] = NULL;
    seen->depth--;
}


static void
a_line_registers(void *userdata, const tokenward_line *line)
{
    seen_t  *seen = (seen_t *) userdata;

    (void) line;
    if (seen->steps[0] != NULL && !seen->in_a_line) {
        seen->in_a_line = 1;
        seen->depth++;
        CHECK(tokenward_step_on_ready(seen->steps[0], only_counts, seen) == TOKENWARD_OK);
        CHECK(seen->calls == 0);
        seen->depth--;
    }
}


static void
wait_for(seen_t *seen, int count, const char *token, tokenward_step **asks)
{
    int  i;

    *asks = begin(seen->introspector, token);
    for (i = 0; i < count; i++) {
        seen->steps[i] = begin(seen->introspector, token);
        if (stands_at(seen->steps[i]) != 'w') {
            CHECK(!"it waits");
        }
    }
}


static void
free_all(seen_t *seen, int count, tokenward_step *asks)
{
    int  i;

    for (i = 0; i < count; i++) {
        tokenward_step_free(seen->steps[i]);
    }
    tokenward_step_free(asks);
    tokenward_introspector_free(seen->introspector);
}


void
topic_turns(void)
{
    tokenward_step     *asks, *unanswered;
    tokenward_options   options;
    seen_t             *seen = (seen_t *) calloc(1, sizeof(seen_t));

    /* A step that is freed within a function: its own function comes after that one, inside of a reply; */
    seen->introspector = introspector_of(NULL);
    wait_for(seen, 2, "reply", &asks);
    CHECK(tokenward_step_on_ready(seen->steps[0], frees_the_second, seen) == TOKENWARD_OK);
    CHECK(tokenward_step_on_ready(seen->steps[1], only_counts, seen) == TOKENWARD_OK);
    CHECK(reply_active(asks) == TOKENWARD_OK);
    CHECK(seen->calls == 2 && seen->ready == 1 && seen->deepest == 1);
    free_all(seen, 2, asks);

    /* and inside of the registration, where the answer is there already. */
    memset(seen, 0, sizeof(*seen));
    seen->introspector = introspector_of(NULL);
    wait_for(seen, 1, "registered", &asks);
    unanswered = begin(seen->introspector, "unanswered");
    seen->steps[1] = begin(seen->introspector, "unanswered");
    CHECK(tokenward_step_on_ready(seen->steps[1], only_counts, seen) == TOKENWARD_OK);
    CHECK(reply_active(asks) == TOKENWARD_OK && seen->calls == 0);
    CHECK(tokenward_step_on_ready(seen->steps[0], frees_the_second, seen) == TOKENWARD_OK);
    CHECK(seen->calls == 2 && seen->ready == 1 && seen->deepest == 1);
    tokenward_step_free(unanswered);
    free_all(seen, 2, asks);

    /* A wait that is given up while its function waits for its turn: it is told so. */
    memset(seen, 0, sizeof(*seen));
    seen->introspector = introspector_of(NULL);
    wait_for(seen, 2, "given-up", &asks);
    CHECK(reply_active(asks) == TOKENWARD_OK);
    CHECK(tokenward_step_on_ready(seen->steps[0], frees_what_it_registered, seen) == TOKENWARD_OK);
    CHECK(seen->calls == 2 && seen->ready == 1 && seen->deepest == 1);
    free_all(seen, 2, asks);

    /* Each function registers for the next wait, which is ready as well: the stack does not grow with them. */
    memset(seen, 0, sizeof(*seen));
    seen->introspector = introspector_of(NULL);
    wait_for(seen, WAITS, "chain", &asks);
    CHECK(reply_active(asks) == TOKENWARD_OK);
    seen->next = 1;
    CHECK(tokenward_step_on_ready(seen->steps[0], registers_for_the_next, seen) == TOKENWARD_OK);
    CHECK(seen->calls == WAITS && seen->ready == WAITS && seen->deepest == 1);
    free_all(seen, WAITS, asks);

    /* Within a log function it comes after that. */
    memset(seen, 0, sizeof(*seen));
    memset(&options, 0, sizeof(options));
    options.struct_size = sizeof(options);
    options.log = a_line_registers;
    options.log_userdata = seen;
    seen->introspector = introspector_of(&options);
    wait_for(seen, 1, "line", &asks);
    CHECK(reply_failed(asks, TOKENWARD_FAILURE_TLS) == TOKENWARD_OK);
    CHECK(seen->in_a_line && seen->calls == 1 && seen->ready == 1 && seen->deepest == 1);
    free_all(seen, 1, asks);
    free(seen);
}
