/* Counters. */

#include "suite.h"


void
topic_stats(void)
{
    size_t                   bucket;
    uint64_t                 value = 0, bound = 0, sum = 0;
    tokenward_str            s;
    tokenward_step          *step;
    tokenward_snapshot      *snapshot = NULL;
    tokenward_introspector  *introspector = introspector_of(NULL);

    step = begin(introspector, "abc");
    CHECK(reply_active(step) == TOKENWARD_OK);
    tokenward_step_free(step);
    tokenward_step_free(begin(introspector, "abc"));
    tokenward_step_free(begin(introspector, "abc"));
    step = begin(introspector, "xyz");
    CHECK(reply_failed(step, TOKENWARD_FAILURE_DNS) == TOKENWARD_OK);
    tokenward_step_free(step);

    CHECK(tokenward_snapshot_new(introspector, &snapshot) == TOKENWARD_OK);
    tokenward_introspector_free(introspector);
    CHECK(tokenward_snapshot_counter(snapshot, TOKENWARD_COUNTER_HITS, &value) == TOKENWARD_OK && value == 2);
    CHECK(tokenward_snapshot_counter(snapshot, TOKENWARD_COUNTER_MISSES, &value) == TOKENWARD_OK && value == 2);
    CHECK(tokenward_snapshot_counter(snapshot, TOKENWARD_COUNTER_ALLOWED, &value) == TOKENWARD_OK && value == 3);
    CHECK(tokenward_snapshot_counter(snapshot, TOKENWARD_COUNTER_ENTRIES, &value) == TOKENWARD_OK && value == 1);
    CHECK(tokenward_snapshot_denied(snapshot, TOKENWARD_REASON_ENDPOINT_UNREACHABLE, &value) == TOKENWARD_OK);
    CHECK(value == 1);
    for (bucket = 0; tokenward_snapshot_latency(snapshot, bucket, &bound, &value) == TOKENWARD_OK; bucket++) {
        sum += value;
    }
    CHECK(bucket == 12 && bound == UINT64_MAX && sum == 2);
    CHECK(tokenward_snapshot_prometheus(snapshot, &s) == TOKENWARD_OK);
    CHECK(s.len > 1000 && memcmp(s.data, "# HELP tokenward_", 17) == 0);
    tokenward_snapshot_free(snapshot);
}
