/* Callbacks that come back: that free, resume and reply, to their own step and to others. */

#include "suite.h"

typedef struct {
    int               calls, ready;
    tokenward_step   *step, *other;
    tokenward_result  result;
    char              stood_at;
} seen_t;


static seen_t *
note(void *userdata, bool ready)
{
    seen_t  *seen = (seen_t *) userdata;

    seen->calls++;
    seen->ready = ready;
    return seen;
}


static void
frees_its_step(void *userdata, bool ready)
{
    tokenward_step_free(note(userdata, ready)->step);
}


static void
frees_another_step(void *userdata, bool ready)
{
    tokenward_step_free(note(userdata, ready)->other);
}


static void
resumes_its_step(void *userdata, bool ready)
{
    seen_t  *seen = note(userdata, ready);

    seen->result = tokenward_step_resume(seen->step, &NOW);
    seen->stood_at = stands_at(seen->step);
}


static void
replies_to_another_step(void *userdata, bool ready)
{
    seen_t  *seen = note(userdata, ready);

    seen->result = reply_active(seen->other);
    seen->stood_at = stands_at(seen->other);
}


/* Frees what `other` points to a seen_t of: its step is gone before its function runs. */
static void
frees_the_step_of_another(void *userdata, bool ready)
{
    seen_t  *seen = note(userdata, ready);
    seen_t  *other = (seen_t *) (void *) seen->other;

    tokenward_step_free(other->step);
    other->step = NULL;
}


static void
only_notes(void *userdata, bool ready)
{
    note(userdata, ready);
}


/* Answers the asker and frees the step that it is about, while another function is being registered for that. */
static void
replies_and_frees(void *userdata, bool ready)
{
    seen_t  *seen = note(userdata, ready);

    seen->result = reply_active(seen->other);
    tokenward_step_free(seen->step);
}


/* Looks at the wait that a function is being registered for, by the view it had before and by a new one. */
static void
looks_at_its_wait(void *userdata, bool ready)
{
    seen_t                *seen = note(userdata, ready);
    const tokenward_wait  *view = (const tokenward_wait *) (void *) seen->other;

    seen->stood_at = stands_at(seen->step);
    CHECK(tokenward_step_wait(seen->step) == view);
    CHECK(tokenward_wait_deadline_us(view) == NOW.monotonic_us + 10000000);
    seen->result = tokenward_step_resume(seen->step, &NOW);
    CHECK(tokenward_step_set_tag(seen->step, 1) == TOKENWARD_ALREADY_USED);
    CHECK(tokenward_step_on_ready(seen->step, looks_at_its_wait, seen) == TOKENWARD_ALREADY_USED);
}


static void
begins_another_request(void *userdata, bool ready)
{
    seen_t                  *seen = note(userdata, ready);
    tokenward_introspector  *introspector = (tokenward_introspector *) seen->other;
    tokenward_step          *step = begin(introspector, "another");

    seen->stood_at = stands_at(step);
    CHECK(tokenward_introspector_forget_all(introspector) == TOKENWARD_OK);
    tokenward_step_free(step);
}


void
topic_reentry(void)
{
    seen_t                   seen, more;
    tokenward_step          *asks, *waits;
    tokenward_introspector  *introspector = introspector_of(NULL);

    /* A wait that is freed by its own function, inside of another step's reply; */
    memset(&seen, 0, sizeof(seen));
    asks = begin(introspector, "1");
    seen.step = begin(introspector, "1");
    CHECK(tokenward_step_on_ready(seen.step, frees_its_step, &seen) == TOKENWARD_OK);
    CHECK(reply_active(asks) == TOKENWARD_OK);
    CHECK(seen.calls == 1 && seen.ready);
    tokenward_step_free(asks);

    /* resumed by it; */
    memset(&seen, 0, sizeof(seen));
    asks = begin(introspector, "2");
    seen.step = begin(introspector, "2");
    CHECK(tokenward_step_on_ready(seen.step, resumes_its_step, &seen) == TOKENWARD_OK);
    CHECK(reply_active(asks) == TOKENWARD_OK);
    CHECK(seen.calls == 1 && seen.result == TOKENWARD_OK && seen.stood_at == 'd');
    tokenward_step_free(asks);
    tokenward_step_free(seen.step);

    /* freed by it inside of on_ready itself, since the answer is there; */
    memset(&seen, 0, sizeof(seen));
    asks = begin(introspector, "3");
    seen.step = begin(introspector, "3");
    CHECK(reply_active(asks) == TOKENWARD_OK);
    CHECK(tokenward_step_on_ready(seen.step, frees_its_step, &seen) == TOKENWARD_OK);
    CHECK(seen.calls == 1 && seen.ready);
    tokenward_step_free(asks);

    /* and resumed inside of on_ready itself. */
    memset(&seen, 0, sizeof(seen));
    asks = begin(introspector, "4");
    seen.step = begin(introspector, "4");
    CHECK(reply_active(asks) == TOKENWARD_OK);
    CHECK(tokenward_step_on_ready(seen.step, resumes_its_step, &seen) == TOKENWARD_OK);
    CHECK(seen.calls == 1 && seen.result == TOKENWARD_OK && seen.stood_at == 'd');
    tokenward_step_free(asks);
    tokenward_step_free(seen.step);

    /* The step that is replied to, freed by the function of one that waited for it: it is gone when the reply returns. */
    memset(&seen, 0, sizeof(seen));
    asks = seen.other = begin(introspector, "5");
    waits = begin(introspector, "5");
    CHECK(tokenward_step_on_ready(waits, frees_another_step, &seen) == TOKENWARD_OK);
    CHECK(reply_active(asks) == TOKENWARD_FREED);
    CHECK(seen.calls == 1 && seen.ready);
    tokenward_step_free(waits);

    /* Replied to from there: it is busy. */
    memset(&seen, 0, sizeof(seen));
    asks = seen.other = begin(introspector, "6");
    waits = begin(introspector, "6");
    CHECK(tokenward_step_on_ready(waits, replies_to_another_step, &seen) == TOKENWARD_OK);
    CHECK(reply_active(asks) == TOKENWARD_OK);
    CHECK(seen.calls == 1 && seen.result == TOKENWARD_ALREADY_USED && seen.stood_at == '-');
    CHECK(stands_at(asks) == 'd');
    tokenward_step_free(asks);
    tokenward_step_free(waits);

    /* A wait that is freed, and freed again by the function that this calls: once. */
    memset(&seen, 0, sizeof(seen));
    asks = begin(introspector, "7");
    seen.step = begin(introspector, "7");
    CHECK(tokenward_step_on_ready(seen.step, frees_its_step, &seen) == TOKENWARD_OK);
    tokenward_step_free(seen.step);
    CHECK(seen.calls == 1 && !seen.ready);

    /* A function that is replaced frees the step: the new one is called with false, and nothing is left. */
    memset(&seen, 0, sizeof(seen));
    memset(&more, 0, sizeof(more));
    seen.step = begin(introspector, "7");
    CHECK(tokenward_step_on_ready(seen.step, frees_its_step, &seen) == TOKENWARD_OK);
    CHECK(tokenward_step_on_ready(seen.step, frees_another_step, &more) == TOKENWARD_FREED);
    CHECK(seen.calls == 1 && !seen.ready && more.calls == 1 && !more.ready);

    /* The same by a tag; */
    memset(&seen, 0, sizeof(seen));
    seen.step = begin(introspector, "7");
    CHECK(tokenward_step_on_ready(seen.step, frees_its_step, &seen) == TOKENWARD_OK);
    CHECK(tokenward_step_set_tag(seen.step, 1) == TOKENWARD_FREED);
    CHECK(seen.calls == 1 && !seen.ready);

    /* and while it is resumed after its time. */
    memset(&seen, 0, sizeof(seen));
    seen.step = begin(introspector, "7");
    CHECK(tokenward_step_on_ready(seen.step, frees_its_step, &seen) == TOKENWARD_OK);
    {
        tokenward_time  late = { NOW.wall_us + 60000000, NOW.monotonic_us + 60000000 };

        CHECK(tokenward_step_resume(seen.step, &late) == TOKENWARD_FREED);
    }
    CHECK(seen.calls == 1 && !seen.ready);
    tokenward_step_free(asks);

    /* A step that an earlier function freed is not ready, whoever answers. */
    memset(&seen, 0, sizeof(seen));
    memset(&more, 0, sizeof(more));
    asks = begin(introspector, "two-wait");
    seen.step = begin(introspector, "two-wait");
    more.step = begin(introspector, "two-wait");
    seen.other = (tokenward_step *) (void *) &more;
    CHECK(tokenward_step_on_ready(seen.step, frees_the_step_of_another, &seen) == TOKENWARD_OK);
    CHECK(tokenward_step_on_ready(more.step, only_notes, &more) == TOKENWARD_OK);
    CHECK(reply_active(asks) == TOKENWARD_OK);
    CHECK(seen.calls == 1 && seen.ready && more.calls == 1 && !more.ready && more.step == NULL);
    tokenward_step_free(seen.step);
    tokenward_step_free(asks);

    /* Nor is one that is freed while a function is registered for it. */
    memset(&seen, 0, sizeof(seen));
    memset(&more, 0, sizeof(more));
    asks = begin(introspector, "registers");
    seen.step = begin(introspector, "registers");
    seen.other = asks;
    CHECK(tokenward_step_on_ready(seen.step, replies_and_frees, &seen) == TOKENWARD_OK);
    CHECK(tokenward_step_on_ready(seen.step, only_notes, &more) == TOKENWARD_FREED);
    CHECK(seen.calls == 1 && !seen.ready && seen.result == TOKENWARD_OK && more.calls == 1 && !more.ready);
    tokenward_step_free(asks);

    /* A wait can be looked at while a function or tag is registered for it, and nothing else be done with it. */
    memset(&seen, 0, sizeof(seen));
    memset(&more, 0, sizeof(more));
    asks = begin(introspector, "looks");
    seen.step = begin(introspector, "looks");
    seen.other = (tokenward_step *) (uintptr_t) tokenward_step_wait(seen.step);
    CHECK(tokenward_step_on_ready(seen.step, looks_at_its_wait, &seen) == TOKENWARD_OK);
    CHECK(tokenward_step_on_ready(seen.step, only_notes, &more) == TOKENWARD_OK);
    CHECK(seen.calls == 1 && !seen.ready && seen.stood_at == 'w' && seen.result == TOKENWARD_ALREADY_USED);
    CHECK(tokenward_step_on_ready(seen.step, looks_at_its_wait, &seen) == TOKENWARD_OK);
    CHECK(tokenward_step_set_tag(seen.step, 1) == TOKENWARD_OK);
    CHECK(seen.calls == 2 && !seen.ready && seen.stood_at == 'w' && seen.result == TOKENWARD_ALREADY_USED);
    CHECK(more.calls == 1 && !more.ready);
    tokenward_step_free(seen.step);
    tokenward_step_free(asks);

    /* Tokenward may be used from a callback. */
    memset(&seen, 0, sizeof(seen));
    asks = begin(introspector, "8");
    waits = begin(introspector, "8");
    seen.other = (tokenward_step *) introspector;
    CHECK(tokenward_step_on_ready(waits, begins_another_request, &seen) == TOKENWARD_OK);
    tokenward_step_free(asks);
    CHECK(seen.calls == 1 && seen.ready && seen.stood_at == 'o');
    tokenward_step_free(waits);

    tokenward_introspector_free(introspector);
}
