/* Tokenward in a program without an event loop: one request after the other, or one for each thread.
 *
 *     cc blocking.c $(pkg-config --cflags --libs tokenward) -o blocking
 *     ./blocking tokenward.json TOKEN...
 *
 * For each token it pretends that a client sent `GET /orders` with it, and prints what becomes of that request. Four things are
 * to be learnt: a document is read, an introspector is made of it, a request is authenticated, and its decision is looked at.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tokenward.h>

/* Strings have a length and no NUL at the end. These make one of C's, and print one. */

static tokenward_str
text(const char *c)
{
    tokenward_str  s;

    s.data = c;
    s.len = strlen(c);
    return s;
}


static void
print(const char *before, tokenward_str s, const char *after)
{
    printf("%s%.*s%s", before, (int) s.len, s.data == NULL ? "" : s.data, after);
}


/* 1. A document is a configuration in JSON, with its consumers, or a Kong file. It is checked when it is read, and an error says
 * everything that is wrong with it at once. */

static tokenward_document *
read_document(const char *path)
{
    static char          content[65536];
    FILE                *file;
    tokenward_source     source;
    tokenward_document  *document = NULL;
    tokenward_error     *error = NULL;
    tokenward_str        message;

    file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        return NULL;
    }

    /* Structs with a struct_size are zeroed, given their size, then filled: what is not set has its default. */
    memset(&source, 0, sizeof(source));
    source.struct_size = sizeof(source);
    source.text.data = content;
    source.text.len = fread(content, 1, sizeof(content), file);
    fclose(file);
    if (source.text.len == sizeof(content)) {
        fprintf(stderr, "%s: too long for this program\n", path);
        return NULL;
    }

    if (tokenward_document_new(&source, &document, &error) != TOKENWARD_OK) {
        if (tokenward_error_message(error, &message) == TOKENWARD_OK) {
            fprintf(stderr, "%.*s\n", (int) message.len, message.data);
        }
        tokenward_error_free(error);
        return NULL;
    }

    return document;
}


/* 2. Log lines come to a function. There is no secret in them. */

static void
log_line(void *userdata, const tokenward_line *line)
{
    tokenward_str  s;

    (void) userdata;
    if (tokenward_line_text(line, &s) == TOKENWARD_OK) {
        fprintf(stderr, "log: %.*s\n", (int) s.len, s.data);
    }
}


/* 4. A decision. A request goes on only if it is an allow; a proxy then removes, sets, and replaces what it is told to. */

static void
show(const tokenward_decision *decision)
{
    size_t                   i, count;
    tokenward_str            s;
    const tokenward_str     *names;
    const tokenward_header  *headers;

    if (!tokenward_decision_is_allow(decision)) {
        printf("deny %u", (unsigned) tokenward_decision_status(decision));
        if (tokenward_reason_name(tokenward_decision_reason(decision), &s) == TOKENWARD_OK) {
            print(" ", s, "\n");
        }
        if (tokenward_decision_refusal_headers(decision, &headers, &count) == TOKENWARD_OK) {
            for (i = 0; i < count; i++) {
                print("  ", headers[i].name, ": ");
                print("", headers[i].value, "\n");
            }
        }
        if (tokenward_decision_refusal_body(decision, &s) == TOKENWARD_OK) {
            print("  ", s, "\n");
        }
        return;
    }

    printf("allow%s\n", tokenward_decision_source(decision) == TOKENWARD_SOURCE_CACHE ? " (remembered)" : "");
    if (tokenward_decision_remove(decision, &names, &count) == TOKENWARD_OK) {
        for (i = 0; i < count; i++) {
            print("  - ", names[i], "\n");
        }
    }
    if (tokenward_decision_set(decision, &headers, &count) == TOKENWARD_OK) {
        for (i = 0; i < count; i++) {
            print("  + ", headers[i].name, ": ");
            print("", headers[i].value, "\n");
        }
    }

    /* A claim that is not among the headers. TOKENWARD_ABSENT says that the authorization server did not mention it. */
    if (tokenward_decision_claim_at(decision, "/realm/roles", 12, &s) == TOKENWARD_OK) {
        print("  roles: ", s, "\n");
    }
}


int
main(int argc, char **argv)
{
    int                      i;
    char                    *credentials;
    size_t                   size;
    tokenward_header         headers[2];
    tokenward_request        request;
    tokenward_options        options;
    tokenward_document      *document;
    tokenward_introspector  *introspector = NULL;
    tokenward_step          *step;

    /* The library that was found may be another than the header that was compiled. */
    if (tokenward_abi_check(TOKENWARD_ABI_VERSION) != TOKENWARD_OK) {
        fprintf(stderr, "libtokenward %s has another ABI\n", tokenward_version());
        return 2;
    }
    if (argc < 3) {
        fprintf(stderr, "usage: blocking tokenward.json TOKEN...\n");
        return 2;
    }

    document = read_document(argv[1]);
    if (document == NULL) {
        return 1;
    }

    memset(&options, 0, sizeof(options));
    options.struct_size = sizeof(options);
    options.log = log_line;
    options.log_level = TOKENWARD_LEVEL_WARN;
    if (tokenward_introspector_new(document, &options, &introspector, NULL) != TOKENWARD_OK) {
        tokenward_document_free(document);
        return 1;
    }
    tokenward_document_free(document);

    /* 3. Requests. Give every header line, as it came: that is also how a client's own X-Consumer-ID is found and removed. */
    for (i = 2; i < argc; i++) {
        size = strlen("Bearer ") + strlen(argv[i]) + 1;
        credentials = (char *) malloc(size);
        if (credentials == NULL) {
            return 1;
        }
        snprintf(credentials, size, "Bearer %s", argv[i]);
        headers[0].name = text("Authorization");
        headers[0].value = text(credentials);
        headers[1].name = text("X-Consumer-ID");
        headers[1].value = text("somebody else");

        memset(&request, 0, sizeof(request));
        request.struct_size = sizeof(request);
        request.method = text("GET");
        request.target = text("/orders");
        request.headers = headers;
        request.headers_len = 2;

        printf("%s: ", argv[i]);
        step = NULL;
        if (tokenward_authenticate(introspector, NULL, &request, &step) != TOKENWARD_OK) {
            printf("deny 500\n");                 /* no step, no decision: no request that goes on */
        } else {
            show(tokenward_step_decision(step));
            tokenward_step_free(step);            /* and with it the decision and all that was seen of it */
        }
        free(credentials);
    }

    tokenward_introspector_free(introspector);
    return 0;
}
