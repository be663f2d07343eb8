/* Counters. */

#include "suite.h"


void
topic_stats(void)
{
    size_t                   bucket, i, count = 0;
    uint64_t                 value = 0, bound = 0, sum = 0, twice[100];
    const uint64_t          *numbers = NULL;
    tokenward_str            s;
    tokenward_step          *step;
    tokenward_snapshot      *snapshot = NULL, *sums = NULL;
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
    CHECK(tokenward_snapshot_numbers(snapshot, &numbers, &count) == TOKENWARD_OK && count > 20);
    for (i = 0; i < count && i < 100; i++) {
        twice[i] = numbers[i] * 2;
    }
    CHECK(tokenward_snapshot_of_numbers(twice, count - 1, &sums) == TOKENWARD_INVALID_ARGUMENT);
    CHECK(tokenward_snapshot_of_numbers(twice, count, &sums) == TOKENWARD_OK);
    CHECK(tokenward_snapshot_counter(sums, TOKENWARD_COUNTER_HITS, &value) == TOKENWARD_OK && value == 4);
    CHECK(tokenward_snapshot_counter(sums, TOKENWARD_COUNTER_ENTRIES, &value) == TOKENWARD_OK && value == 2);
    CHECK(numbers[count - TOKENWARD_SNAPSHOT_GAUGES] == 1);
    tokenward_snapshot_free(sums);
    CHECK(tokenward_snapshot_prometheus(snapshot, &s) == TOKENWARD_OK);
    CHECK(s.len > 1000 && memcmp(s.data, "# HELP tokenward_", 17) == 0);
    tokenward_snapshot_free(snapshot);
}
