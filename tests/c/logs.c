/* Log lines: to a function, or kept. */

#include "suite.h"

typedef struct {
    int   lines, released, reason;
    char  last[256];
} seen_t;


static void
take(void *userdata, const tokenward_line *line)
{
    seen_t         *seen = (seen_t *) userdata;
    tokenward_str   s;

    seen->lines++;
    seen->reason = (int) tokenward_line_reason(line);
    if (tokenward_line_text(line, &s) == TOKENWARD_OK && s.len < sizeof(seen->last)) {
        memcpy(seen->last, s.data, s.len);
        seen->last[s.len] = '\0';
    }
}


static void
release(void *userdata)
{
    ((seen_t *) userdata)->released++;
}


void
topic_logs(void)
{
    size_t                   count = 0;
    seen_t                   seen;
    tokenward_str            s;
    tokenward_line          *line = NULL;
    tokenward_step          *step, *again;
    tokenward_options        options;
    tokenward_introspector  *introspector;
    const tokenward_header  *fields;

    memset(&seen, 0, sizeof(seen));
    memset(&options, 0, sizeof(options));
    options.struct_size = sizeof(options);
    options.log = take;
    options.log_userdata = &seen;
    options.log_release = release;
    options.log_level = 9;

    /* What was not taken is not released. */
    {
        tokenward_document  *document = document_of("{\"introspection_url\": \"https://a.example/\", \"authorization_value\": \"x\"}");

        introspector = NULL;
        CHECK(tokenward_introspector_new(document, &options, &introspector, NULL) == TOKENWARD_INVALID_ARGUMENT);
        tokenward_document_free(document);
    }
    CHECK(introspector == NULL && seen.released == 0);

    options.log_level = TOKENWARD_LEVEL_WARN;
    introspector = introspector_of(&options);
    seen.lines = 0;
    step = begin(introspector, "abc");
    CHECK(reply_failed(step, TOKENWARD_FAILURE_TLS) == TOKENWARD_OK);
    CHECK(seen.lines == 1 && seen.reason == TOKENWARD_REASON_ENDPOINT_UNREACHABLE);
    CHECK(strstr(seen.last, "failure=tls") != NULL && strstr(seen.last, "abc") == NULL);
    tokenward_step_free(step);
    CHECK(tokenward_introspector_forget_all(introspector) == TOKENWARD_OK);
    CHECK(tokenward_next_log(introspector, &line) == TOKENWARD_ABSENT);

    /* Released with the last that can log: here a step that outlives its introspector. */
    step = begin(introspector, "abc");
    tokenward_introspector_free(introspector);
    CHECK(seen.released == 0);
    tokenward_step_free(step);
    CHECK(seen.released == 1);

    /* A step that has its decision logs no more, however it came to it. */
    seen.released = 0;
    introspector = introspector_of(&options);
    step = begin(introspector, "abc");
    CHECK(reply_active(step) == TOKENWARD_OK);
    again = begin(introspector, "abc");
    CHECK(stands_at(again) == 'd');
    tokenward_introspector_free(introspector);
    CHECK(seen.released == 1 && stands_at(step) == 'd' && stands_at(again) == 'd');
    tokenward_step_free(step);
    tokenward_step_free(again);
    CHECK(seen.released == 1);

    /* Nor does one whose introspector is gone when it comes to its decision: it is the last. */
    seen.released = 0;
    introspector = introspector_of(&options);
    step = begin(introspector, "abc");
    tokenward_introspector_free(introspector);
    CHECK(seen.released == 0);
    CHECK(reply_active(step) == TOKENWARD_OK);
    CHECK(seen.released == 1 && stands_at(step) == 'd');
    tokenward_step_free(step);

    /* Kept, the newest ones. */
    memset(&options, 0, sizeof(options));
    options.struct_size = sizeof(options);
    options.log_level = TOKENWARD_LEVEL_DEBUG;
    options.log_lines = 2;
    introspector = introspector_of(&options);
    step = begin(introspector, "a");
    CHECK(reply_failed(step, TOKENWARD_FAILURE_DNS) == TOKENWARD_OK);
    tokenward_step_free(step);
    step = begin(introspector, "b");
    CHECK(reply_failed(step, TOKENWARD_FAILURE_PROTOCOL) == TOKENWARD_OK);
    tokenward_step_free(step);
    CHECK(tokenward_next_log(introspector, &line) == TOKENWARD_OK);
    CHECK(tokenward_line_reason(line) == TOKENWARD_REASON_REPLY_MALFORMED);
    CHECK(tokenward_line_message(line, &s) == TOKENWARD_OK && s.len > 5);
    CHECK(tokenward_line_fields(line, &fields, &count) == TOKENWARD_OK);
    CHECK(tokenward_line_text(line, &s) == TOKENWARD_OK && s.len > 10);
    tokenward_line_free(line);
    CHECK(tokenward_next_log(introspector, &line) == TOKENWARD_OK);
    tokenward_line_free(line);
    CHECK(tokenward_next_log(introspector, &line) == TOKENWARD_ABSENT);
    tokenward_introspector_free(introspector);
}
