/* Tokenward in an event loop: several requests at once on one thread, which never blocks but in poll().
 *
 *     cc loop.c $(pkg-config --cflags --libs tokenward) -o loop
 *     ./loop tokenward.json TOKEN...
 *
 * It pretends that clients sent `GET /orders` with each of the tokens, all at the same moment. The loop makes the calls to the
 * introspection endpoint itself, over plain HTTP and with one connection each: a real host has an HTTP client with TLS.
 *
 * A request is a step. A step stands at one of three things, and `advance` asks which:
 *
 *     a call       make it, and hand the answer to tokenward_step_reply
 *     a wait       another request asks about the same token already: park this one until its function is called
 *     a decision   done
 */

#define _POSIX_C_SOURCE 200112L

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <tokenward.h>

#define MAX_REQUESTS  64
#define MAX_MESSAGE   65536    /* longer calls and answers fail */

typedef struct {
    const char      *token;
    tokenward_step  *step;       /* NULL once there is a decision */
    int              fd;         /* the call under way, or -1 */
    int              woken;      /* the wait can go on */
    uint64_t         deadline;   /* of the call or the wait, on the monotonic clock */
    size_t           sent, out_len, in_len;
    char             out[MAX_MESSAGE], in[MAX_MESSAGE];
} request_t;

static void advance(request_t *r);


/* Tokenward has no clock: the host says what time it is, on two clocks. */

static tokenward_time
now(void)
{
    struct timespec  wall, monotonic;
    tokenward_time   t;

    clock_gettime(CLOCK_REALTIME, &wall);
    clock_gettime(CLOCK_MONOTONIC, &monotonic);
    t.wall_us = (uint64_t) wall.tv_sec * 1000000 + (uint64_t) wall.tv_nsec / 1000;
    t.monotonic_us = (uint64_t) monotonic.tv_sec * 1000000 + (uint64_t) monotonic.tv_nsec / 1000;
    return t;
}


static tokenward_str
text(const char *c)
{
    tokenward_str  s;

    s.data = c;
    s.len = strlen(c);
    return s;
}


/* How the call went goes to the step, which goes on from there: here with a failure, */

static void
fail(request_t *r, uint32_t failure)
{
    tokenward_time   t = now();
    tokenward_reply  reply;

    if (r->fd >= 0) {
        close(r->fd);
        r->fd = -1;
    }
    memset(&reply, 0, sizeof(reply));
    reply.struct_size = sizeof(reply);
    reply.failure = failure;
    (void) tokenward_step_reply(r->step, &reply, &t);
    advance(r);
}


/* and here with the answer, which has been read to its end. It is plain, with `Connection: close`; all of it is in `in`. */

static void
answer(request_t *r)
{
    size_t             count = 0, length;
    char              *line, *end, *body, *colon;
    tokenward_time     t = now();
    tokenward_reply    reply;
    tokenward_result   result;
    tokenward_header  *headers;

    close(r->fd);
    r->fd = -1;
    r->in[r->in_len] = '\0';
    body = strstr(r->in, "\r\n\r\n");
    if (body == NULL) {
        fail(r, TOKENWARD_FAILURE_CLOSED);
        return;
    }
    if (strncmp(r->in, "HTTP/1.1 ", 9) != 0) {
        fail(r, TOKENWARD_FAILURE_PROTOCOL);
        return;
    }
    memset(&reply, 0, sizeof(reply));
    reply.struct_size = sizeof(reply);
    reply.status = (uint32_t) strtoul(r->in + 9, NULL, 10);
    reply.body.data = body + 4;
    reply.body.len = r->in_len - (size_t) (body + 4 - r->in);

    /* Every header line goes along: Tokenward looks at Content-Type, Content-Encoding and Retry-After. */
    for (line = strstr(r->in, "\r\n") + 2; line < body + 2; line = strstr(line, "\r\n") + 2) {
        count++;
    }
    headers = (tokenward_header *) malloc((count + 1) * sizeof(*headers));
    if (headers == NULL) {
        fail(r, TOKENWARD_FAILURE_PROTOCOL);
        return;
    }
    count = 0;
    for (line = strstr(r->in, "\r\n") + 2; line < body + 2; line = end + 2) {
        end = strstr(line, "\r\n");
        colon = (char *) memchr(line, ':', (size_t) (end - line));
        if (colon == NULL) {
            free(headers);
            fail(r, TOKENWARD_FAILURE_PROTOCOL);
            return;
        }
        headers[count].name.data = line;
        headers[count].name.len = (size_t) (colon - line);
        do {
            colon++;
        } while (*colon == ' ');
        headers[count].value.data = colon;
        headers[count].value.len = (size_t) (end - colon);
        if (strncasecmp(line, "content-length:", 15) == 0) {
            length = strtoul(colon, NULL, 10);
            if (length > reply.body.len) {
                free(headers);
                fail(r, TOKENWARD_FAILURE_CUT_OFF);    /* a part of an answer is none */
                return;
            }
            reply.body.len = length;
        }
        count++;
    }
    reply.headers = headers;
    reply.headers_len = count;

    result = tokenward_step_reply(r->step, &reply, &t);
    free(headers);                                     /* what is passed in is borrowed for the call */
    if (result == TOKENWARD_INVALID_ARGUMENT) {
        fail(r, TOKENWARD_FAILURE_PROTOCOL);           /* a status that is none, say: the step still stands at its call */
        return;
    }
    advance(r);
}


/* The call: what Tokenward wants sent, on a socket that does not block. */

static void
call(request_t *r, const tokenward_outbound *outbound)
{
    int                      failed;
    size_t                   i, count, length;
    char                     host[256], port[8];
    const char              *at, *path, *colon;
    struct addrinfo          hints, *address;
    tokenward_str            url, body;
    const tokenward_header  *headers;

    r->deadline = tokenward_outbound_deadline_us(outbound);

    if (tokenward_outbound_url(outbound, &url) != TOKENWARD_OK
        || tokenward_outbound_body(outbound, &body) != TOKENWARD_OK
        || tokenward_outbound_headers(outbound, &headers, &count) != TOKENWARD_OK
        || url.len < 8 || memcmp(url.data, "http://", 7) != 0)
    {
        fail(r, TOKENWARD_FAILURE_TLS);
        return;
    }

    at = url.data + 7;
    path = (const char *) memchr(at, '/', url.len - 7);     /* there always is one: the URL is normalized */
    colon = (const char *) memchr(at, ':', (size_t) (path - at));
    length = (size_t) ((colon == NULL ? path : colon) - at);
    if (length >= sizeof(host) || (colon != NULL && path - colon > 6)) {
        fail(r, TOKENWARD_FAILURE_DNS);
        return;
    }
    memcpy(host, at, length);
    host[length] = '\0';
    strcpy(port, "80");
    if (colon != NULL) {
        memcpy(port, colon + 1, (size_t) (path - colon - 1));
        port[path - colon - 1] = '\0';
    }

    r->out_len = (size_t) snprintf(r->out, sizeof(r->out), "POST %.*s HTTP/1.1\r\nHost: %.*s\r\nConnection: close\r\n"
                                   "Content-Length: %lu\r\n",
                                   (int) (url.data + url.len - path), path, (int) (path - at), at,
                                   (unsigned long) body.len);
    for (i = 0; i < count && r->out_len < sizeof(r->out); i++) {
        r->out_len += (size_t) snprintf(r->out + r->out_len, sizeof(r->out) - r->out_len, "%.*s: %.*s\r\n",
                                        (int) headers[i].name.len, headers[i].name.data,
                                        (int) headers[i].value.len, headers[i].value.data);
    }
    if (r->out_len + 2 + body.len > sizeof(r->out)) {
        fail(r, TOKENWARD_FAILURE_PROTOCOL);
        return;
    }
    memcpy(r->out + r->out_len, "\r\n", 2);
    memcpy(r->out + r->out_len + 2, body.data, body.len);
    r->out_len += 2 + body.len;
    r->sent = r->in_len = 0;

    memset(&hints, 0, sizeof(hints));
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICHOST;                         /* a real loop has a resolver that does not block */
    if (getaddrinfo(host, port, &hints, &address) != 0) {
        fail(r, TOKENWARD_FAILURE_DNS);
        return;
    }
    r->fd = socket(address->ai_family, SOCK_STREAM, 0);
    if (r->fd >= 0) {
        fcntl(r->fd, F_SETFL, O_NONBLOCK);
    }
    failed = r->fd < 0 || (connect(r->fd, address->ai_addr, address->ai_addrlen) != 0 && errno != EINPROGRESS);
    freeaddrinfo(address);
    if (failed) {
        fail(r, TOKENWARD_FAILURE_CONNECT);
    }
}


/* Called once for each wait: with true when it can go on, with false when it ended otherwise. It may run in the middle of another
 * request's reply, so it only takes a note; the loop does the rest. */

static void
on_ready(void *userdata, bool ready)
{
    request_t  *r = (request_t *) userdata;

    r->woken = r->woken || ready;
}


static void
done(request_t *r, const tokenward_decision *decision)
{
    tokenward_str  s;

    printf("%s: ", r->token);
    if (tokenward_decision_is_allow(decision)) {
        printf("allow");
        if (tokenward_consumer_id(tokenward_decision_consumer(decision), &s) == TOKENWARD_OK) {
            printf(" consumer %.*s", (int) s.len, s.data);
        }
        printf("%s\n", tokenward_decision_source(decision) == TOKENWARD_SOURCE_WAITING ? " (shared)" : "");
    } else {
        printf("deny %u\n", (unsigned) tokenward_decision_status(decision));
    }
    tokenward_step_free(r->step);
    r->step = NULL;
}


/* What the step stands at. Whatever goes wrong on the way, the request has no decision that allows it. */

static void
advance(request_t *r)
{
    const tokenward_wait      *wait;
    const tokenward_outbound  *outbound;

    outbound = tokenward_step_outbound(r->step);
    if (outbound != NULL) {
        call(r, outbound);
        return;
    }
    wait = tokenward_step_wait(r->step);
    if (wait != NULL) {
        r->woken = 0;
        r->deadline = tokenward_wait_deadline_us(wait);
        (void) tokenward_step_on_ready(r->step, on_ready, r);
        return;
    }
    done(r, tokenward_step_decision(r->step));
}


static void
resume(request_t *r)
{
    tokenward_time  t = now();

    (void) tokenward_step_resume(r->step, &t);
    advance(r);
}


static void
begin(const tokenward_introspector *introspector, request_t *r, const char *token)
{
    char              *credentials;
    size_t             size = strlen("Bearer ") + strlen(token) + 1;
    tokenward_time     t = now();
    tokenward_result   result;
    tokenward_header   header;
    tokenward_request  request;

    r->token = token;
    r->fd = -1;
    credentials = (char *) malloc(size);
    if (credentials == NULL) {
        printf("%s: deny 500\n", token);
        return;
    }
    snprintf(credentials, size, "Bearer %s", token);
    header.name = text("Authorization");
    header.value = text(credentials);
    memset(&request, 0, sizeof(request));
    request.struct_size = sizeof(request);
    request.method = text("GET");
    request.target = text("/orders");
    request.headers = &header;
    request.headers_len = 1;
    result = tokenward_begin(introspector, NULL, &request, &t, &r->step);
    free(credentials);
    if (result != TOKENWARD_OK) {
        printf("%s: deny 500\n", token);
        return;
    }
    advance(r);
}


/* The connection of a call can be written to or read from. */

static void
ready(request_t *r)
{
    int        error = 0;
    ssize_t    n;
    socklen_t  length = sizeof(error);

    if (r->sent < r->out_len) {
        if (getsockopt(r->fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0 || error != 0) {
            fail(r, TOKENWARD_FAILURE_CONNECT);
            return;
        }
        n = send(r->fd, r->out + r->sent, r->out_len - r->sent, MSG_NOSIGNAL);
        if (n > 0) {
            r->sent += (size_t) n;
        } else if (errno != EAGAIN && errno != EINTR) {
            fail(r, TOKENWARD_FAILURE_CLOSED);
        }
        return;
    }
    if (r->in_len == sizeof(r->in) - 1) {
        fail(r, TOKENWARD_FAILURE_TOO_LONG);
        return;
    }
    n = recv(r->fd, r->in + r->in_len, sizeof(r->in) - 1 - r->in_len, 0);
    if (n > 0) {
        r->in_len += (size_t) n;
    } else if (n == 0) {
        answer(r);
    } else if (errno != EAGAIN && errno != EINTR) {
        fail(r, TOKENWARD_FAILURE_CLOSED);
    }
}


/* The loop: sockets, waits that were woken, and deadlines, until every request has its decision. */

static void
run(request_t *requests, int count)
{
    int            i, left, timeout;
    uint64_t       t, until;
    struct pollfd  fds[MAX_REQUESTS];

    for ( ;; ) {
        left = 0;
        timeout = 60000;
        t = now().monotonic_us;
        for (i = 0; i < count; i++) {
            request_t  *r = &requests[i];

            fds[i].fd = -1;
            fds[i].revents = 0;
            if (r->step == NULL) {
                continue;
            }
            left++;
            fds[i].fd = r->fd;
            fds[i].events = r->sent < r->out_len ? POLLOUT : POLLIN;
            until = r->woken || r->deadline <= t ? 0 : (r->deadline - t) / 1000 + 1;
            if (until < (uint64_t) timeout) {
                timeout = (int) until;
            }
        }
        if (left == 0) {
            return;
        }
        if (poll(fds, (nfds_t) count, timeout) < 0 && errno != EINTR) {
            perror("poll");
            exit(1);
        }
        t = now().monotonic_us;
        for (i = 0; i < count; i++) {
            request_t  *r = &requests[i];

            if (r->step == NULL) {
                continue;
            }
            if (r->fd >= 0 && fds[i].fd == r->fd && fds[i].revents != 0) {
                ready(r);
            } else if (r->fd >= 0 && r->deadline <= t) {
                fail(r, TOKENWARD_FAILURE_TIMED_OUT);
            } else if (r->fd < 0 && (r->woken || r->deadline <= t)) {
                resume(r);
            }
        }
    }
}


int
main(int argc, char **argv)
{
    int                      i, count = argc - 2;
    static char              content[65536];
    static request_t         requests[MAX_REQUESTS];
    FILE                    *file;
    tokenward_str            message;
    tokenward_error         *error = NULL;
    tokenward_source         source;
    tokenward_document      *document = NULL;
    tokenward_introspector  *introspector = NULL;

    if (tokenward_abi_check(TOKENWARD_ABI_VERSION) != TOKENWARD_OK || count < 1 || count > MAX_REQUESTS) {
        fprintf(stderr, "usage: loop tokenward.json TOKEN...\n");
        return 2;
    }
    file = fopen(argv[1], "rb");
    if (file == NULL) {
        perror(argv[1]);
        return 1;
    }
    memset(&source, 0, sizeof(source));
    source.struct_size = sizeof(source);
    source.text.data = content;
    source.text.len = fread(content, 1, sizeof(content), file);
    fclose(file);
    if (source.text.len == sizeof(content)) {
        fprintf(stderr, "%s: too long for this program\n", argv[1]);
        return 1;
    }
    if (tokenward_document_new(&source, &document, &error) != TOKENWARD_OK) {
        if (tokenward_error_message(error, &message) == TOKENWARD_OK) {
            fprintf(stderr, "%.*s\n", (int) message.len, message.data);
        }
        tokenward_error_free(error);
        return 1;
    }
    if (tokenward_introspector_new(document, NULL, &introspector, NULL) != TOKENWARD_OK) {
        return 1;
    }
    tokenward_document_free(document);

    for (i = 0; i < count; i++) {
        begin(introspector, &requests[i], argv[i + 2]);
    }
    run(requests, count);

    tokenward_introspector_free(introspector);
    return 0;
}
