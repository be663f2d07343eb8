/* One introspector, many threads; functions that are called on others' threads. */

#include <pthread.h>

#include "suite.h"

#define THREADS  4
#define ROUNDS   200

static tokenward_introspector  *introspector;

typedef struct {
    pthread_mutex_t  lock;
    pthread_cond_t   changed;
    int              calls;
    int              ready;
    pthread_t        caller;
} signal_t;


static void
note(void *userdata, bool ready)
{
    signal_t  *s = (signal_t *) userdata;

    pthread_mutex_lock(&s->lock);
    s->calls++;
    s->ready = ready;
    s->caller = pthread_self();
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->lock);
}


static void *
reply(void *step)
{
    CHECK(reply_active((tokenward_step *) step) == TOKENWARD_OK);
    return NULL;
}


/* Everybody wants one token, which is forgotten now and then: whoever asks answers, and the others wait for their function. */

static void *
crowd(void *failed)
{
    int              i;
    signal_t         s;
    tokenward_step  *step;

    pthread_mutex_init(&s.lock, NULL);
    pthread_cond_init(&s.changed, NULL);
    for (i = 0; i < ROUNDS; i++) {
        char               credentials[64];
        tokenward_header   header;
        tokenward_request  request = request_with("crowd", &header, credentials, sizeof(credentials));

        s.calls = 0;
        step = NULL;
        if (tokenward_begin(introspector, NULL, &request, &NOW, &step) != TOKENWARD_OK) {
            ++*(int *) failed;
            continue;
        }
        while (tokenward_step_decision(step) == NULL) {
            if (tokenward_step_outbound(step) != NULL) {
                if (i % 7 == 3) {
                    break;                        /* goes away: somebody who waits asks */
                }
                if (reply_active(step) != TOKENWARD_OK) {
                    ++*(int *) failed;
                }
                continue;
            }
            s.calls = 0;
            if (tokenward_step_on_ready(step, note, &s) != TOKENWARD_OK) {
                ++*(int *) failed;
            }
            pthread_mutex_lock(&s.lock);
            while (s.calls == 0) {
                pthread_cond_wait(&s.changed, &s.lock);
            }
            pthread_mutex_unlock(&s.lock);
            if (!s.ready || s.calls != 1 || tokenward_step_resume(step, &NOW) != TOKENWARD_OK) {
                ++*(int *) failed;
            }
        }
        if (tokenward_step_decision(step) != NULL && !tokenward_decision_is_allow(tokenward_step_decision(step))) {
            ++*(int *) failed;
        }
        tokenward_step_free(step);
        if (i % 5 == 0 && tokenward_introspector_forget_all(introspector) != TOKENWARD_OK) {
            ++*(int *) failed;
        }
    }
    pthread_cond_destroy(&s.changed);
    pthread_mutex_destroy(&s.lock);
    return NULL;
}


void
topic_threads(void)
{
    int                  i, failed[THREADS];
    signal_t             s;
    pthread_t            thread, threads[THREADS];
    tokenward_step      *asks, *waits;
    tokenward_snapshot  *snapshot = NULL;
    uint64_t             in_flight = 1;

    introspector = introspector_of(NULL);

    /* The function runs on the thread that replied. */
    memset(&s, 0, sizeof(s));
    pthread_mutex_init(&s.lock, NULL);
    pthread_cond_init(&s.changed, NULL);
    asks = begin(introspector, "abc");
    waits = begin(introspector, "abc");
    CHECK(tokenward_step_on_ready(waits, note, &s) == TOKENWARD_OK);
    CHECK(pthread_create(&thread, NULL, reply, asks) == 0);
    pthread_mutex_lock(&s.lock);
    while (s.calls == 0) {
        pthread_cond_wait(&s.changed, &s.lock);
    }
    pthread_mutex_unlock(&s.lock);
    CHECK(s.calls == 1 && s.ready && pthread_equal(s.caller, thread));
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(tokenward_step_resume(waits, &NOW) == TOKENWARD_OK);
    CHECK(tokenward_decision_is_allow(tokenward_step_decision(waits)));
    tokenward_step_free(waits);
    tokenward_step_free(asks);
    pthread_cond_destroy(&s.changed);
    pthread_mutex_destroy(&s.lock);

    memset(failed, 0, sizeof(failed));
    for (i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, crowd, &failed[i]) == 0);
    }
    for (i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK(failed[i] == 0);
    }
    CHECK(tokenward_snapshot_new(introspector, &snapshot) == TOKENWARD_OK);
    CHECK(tokenward_snapshot_counter(snapshot, TOKENWARD_COUNTER_IN_FLIGHT, &in_flight) == TOKENWARD_OK);
    CHECK(in_flight == 0);
    tokenward_snapshot_free(snapshot);
    tokenward_introspector_free(introspector);
}
