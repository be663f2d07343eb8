/* What the topics of the C suite share. Everything compiles as C99 and as C++14. */

#ifndef SUITE_H
#define SUITE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tokenward.h>

/* Only in libraries that are built for tests. */
#ifdef __cplusplus
extern "C" {
#endif
enum tokenward_result tokenward_testing_panic(void);
void tokenward_testing_panic_next(uint32_t times);
#ifdef __cplusplus
}
#endif

extern int checks, failures;

#define CHECK(condition)                                                                          \
    do {                                                                                          \
        checks++;                                                                                 \
        if (!(condition)) {                                                                       \
            failures++;                                                                           \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);               \
        }                                                                                         \
    } while (0)

/* An output that must not be written to. */
#define POISON(type) ((type *) (uintptr_t) 0x5a5a5a50)

extern const tokenward_time NOW;

tokenward_str text(const char *c);
int is(tokenward_str s, const char *expected);

/* A document of this JSON; the process ends if it is refused. */
tokenward_document *document_of(const char *json);
/* With one consumer, alice. */
tokenward_introspector *introspector_of(const tokenward_options *options);
/* A request of GET / with this token. */
tokenward_step *begin(const tokenward_introspector *introspector, const char *token);
tokenward_request request_with(const char *token, tokenward_header *header, char *credentials, size_t size);
/* The answer `{"active":true,...}` of alice. */
tokenward_result reply_active(tokenward_step *step);
tokenward_result reply_failed(tokenward_step *step, uint32_t failure);
/* What a step stands at: 'o', 'w', 'd', and '-' for nothing. */
char stands_at(const tokenward_step *step);

void topic_abi(void);
void topic_arguments(void);
void topic_callbacks(void);
void topic_client(void);
void topic_decisions(void);
void topic_documents(void);
void topic_logs(void);
void topic_nulls(void);
void topic_order(void);
void topic_outputs(void);
void topic_panic(void);
void topic_reentry(void);
void topic_stats(void);
void topic_tags(void);
void topic_threads(void);
void topic_turns(void);
void topic_used(void);

#endif
