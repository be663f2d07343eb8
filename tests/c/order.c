/* Handles are freed in any order. */

#include "suite.h"

#define HANDLES  7

static void
in_this_order(const int *order)
{
    int                        i;
    char                       credentials[64];
    tokenward_str              s;
    tokenward_line            *line = NULL;
    tokenward_step            *asks = NULL, *waits = NULL, *decided = NULL;
    tokenward_header           header;
    tokenward_policy          *policy = NULL;
    tokenward_options          options;
    tokenward_request          request = request_with("abc", &header, credentials, sizeof(credentials));
    tokenward_snapshot        *snapshot = NULL;
    tokenward_introspector    *introspector;

    memset(&options, 0, sizeof(options));
    options.struct_size = sizeof(options);
    options.log_lines = 4;
    options.log_level = TOKENWARD_LEVEL_DEBUG;
    introspector = introspector_of(&options);
    CHECK(tokenward_policy_new(introspector, "{\"realm\": \"r\"}", 14, &policy, NULL) == TOKENWARD_OK);
    CHECK(tokenward_begin(introspector, policy, &request, &NOW, &asks) == TOKENWARD_OK);
    CHECK(tokenward_begin(introspector, policy, &request, &NOW, &waits) == TOKENWARD_OK);
    request.headers_len = 0;
    CHECK(tokenward_begin(introspector, policy, &request, &NOW, &decided) == TOKENWARD_OK);
    CHECK(tokenward_snapshot_new(introspector, &snapshot) == TOKENWARD_OK);
    CHECK(tokenward_next_log(introspector, &line) == TOKENWARD_OK);

    for (i = 0; i < HANDLES; i++) {
        switch (order[i]) {
        case 0:
            tokenward_introspector_free(introspector);
            break;
        case 1:
            tokenward_policy_free(policy);
            break;
        case 2:
            /* A step works without its introspector and policy. */
            CHECK(reply_active(asks) == TOKENWARD_OK);
            CHECK(tokenward_decision_is_allow(tokenward_step_decision(asks)));
            tokenward_step_free(asks);
            break;
        case 3:
            CHECK(tokenward_step_resume(waits, &NOW) == TOKENWARD_OK);
            CHECK(stands_at(waits) == 'd' || stands_at(waits) == 'w');
            tokenward_step_free(waits);
            break;
        case 4:
            CHECK(tokenward_decision_status(tokenward_step_decision(decided)) == 401);
            tokenward_step_free(decided);
            break;
        case 5:
            CHECK(tokenward_snapshot_prometheus(snapshot, &s) == TOKENWARD_OK && s.len > 1000);
            tokenward_snapshot_free(snapshot);
            break;
        default:
            CHECK(tokenward_line_text(line, &s) == TOKENWARD_OK && s.len > 5);
            tokenward_line_free(line);
        }
    }
}


/* The steps alone have two orders that matter; every handle comes first and last once. */

void
topic_order(void)
{
    int  i, first, order[HANDLES];

    for (first = 0; first < HANDLES; first++) {
        for (i = 0; i < HANDLES; i++) {
            order[i] = (first + i) % HANDLES;
        }
        in_this_order(order);
        for (i = 0; i < HANDLES; i++) {
            order[i] = (first + HANDLES - i) % HANDLES;
        }
        in_this_order(order);
        for (i = 0; i < HANDLES; i++) {
            order[i] = (first + 3 * i) % HANDLES;
        }
        in_this_order(order);
    }
}
