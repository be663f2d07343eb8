
/*
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * What a decision does to the request. Header lines stay where they are in
 * memory, since r->headers_in points at some of them: lists are made anew of
 * pieces of the client's arrays, and what is set stands in an array behind.
 */

#include "ngx_http_tokenward.h"


/* Names of lines that a list is made without; NULL: the managed ones. */

typedef struct {
    const tokenward_str  *names;
    size_t                count;
} ngx_http_tokenward_names_t;


/* What the worker has seen of names that are set: hash and lower case. */

#define NGX_HTTP_TOKENWARD_NAMES     64
#define NGX_HTTP_TOKENWARD_NAME_LEN  48

typedef struct {
    ngx_uint_t                    hash;
    size_t                        len;
    u_char                        name[NGX_HTTP_TOKENWARD_NAME_LEN];
    u_char                        lowcase[NGX_HTTP_TOKENWARD_NAME_LEN];
} ngx_http_tokenward_name_t;


typedef struct {
    ngx_uint_t                    index;
    ngx_uint_t                    what;
} ngx_http_tokenward_stale_t;

#define NGX_HTTP_TOKENWARD_STALE_HEADER  1
#define NGX_HTTP_TOKENWARD_STALE_TARGET  2
#define NGX_HTTP_TOKENWARD_STALE_BODY    4


static ngx_int_t ngx_http_tokenward_relist(ngx_http_request_t *r,
    const ngx_list_t *from, ngx_http_tokenward_names_t *without,
    const tokenward_header *set, size_t count);
static ngx_uint_t ngx_http_tokenward_is_without(ngx_table_elt_t *h,
    ngx_http_tokenward_names_t *without);
static ngx_int_t ngx_http_tokenward_set_name(ngx_http_request_t *r,
    ngx_table_elt_t *h);
static ngx_int_t ngx_http_tokenward_new_target(ngx_http_tokenward_ctx_t *ctx,
    tokenward_str *target);
static ngx_int_t ngx_http_tokenward_new_args(ngx_http_tokenward_ctx_t *ctx,
    ngx_str_t *args);
static ngx_int_t ngx_http_tokenward_new_body(ngx_http_tokenward_ctx_t *ctx,
    tokenward_str *body);
static void ngx_http_tokenward_flush(ngx_http_request_t *r, ngx_uint_t what);


static ngx_http_tokenward_name_t  ngx_http_tokenward_name_cache
    [NGX_HTTP_TOKENWARD_NAMES];


/*
 * A shortcut past what no managed name can begin with: all of them are longer
 * than ten bytes, and begin with x, a separator, and a or c.
 */

static ngx_inline ngx_uint_t
ngx_http_tokenward_is_managed(ngx_table_elt_t *h)
{
    return h->key.len > 10
           && (h->key.data[0] | 0x20) == 'x'
           && ((h->key.data[2] | 0x20) == 'c' || (h->key.data[2] | 0x20) == 'a')
           && tokenward_is_managed((const char *) h->key.data, h->key.len);
}


/*
 * Takes out what only Tokenward may set, before the server's own directives
 * can see it.
 */

ngx_int_t
ngx_http_tokenward_strip(ngx_http_request_t *r)
{
    ngx_uint_t                   i;
    ngx_list_t                   client;
    ngx_list_part_t             *part;
    ngx_table_elt_t             *h;
    ngx_http_tokenward_names_t   managed;

    part = &r->headers_in.headers.part;
    h = part->elts;

    for (i = 0; /* void */ ; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                return NGX_OK;
            }

            part = part->next;
            h = part->elts;
            i = 0;

            if (part->nelts == 0) {
                continue;
            }
        }

        if (ngx_http_tokenward_is_managed(&h[i])) {
            break;
        }
    }

    managed.names = NULL;
    managed.count = 0;

    client = r->headers_in.headers;

    return ngx_http_tokenward_relist(r, &client, &managed, NULL, 0);
}


void
ngx_http_tokenward_save(ngx_http_tokenward_ctx_t *ctx)
{
    ngx_http_request_t  *r;

    r = ctx->request;

    ctx->headers = r->headers_in.headers;
    ctx->authorization = r->headers_in.authorization;
    ctx->method = r->method_name;
    ctx->target = r->unparsed_uri;
}


/*
 * The headers as they came, for another decision. A body that was rewritten
 * stays: it is shorter by a token, and the one that was read is kept.
 */

void
ngx_http_tokenward_restore(ngx_http_tokenward_ctx_t *ctx)
{
    ngx_http_request_t  *r;

    r = ctx->request;

    if (!ctx->edited) {
        return;
    }

    r->headers_in.headers = ctx->headers;
    r->headers_in.authorization = ctx->authorization;
    r->unparsed_uri = ctx->target;

    ngx_http_tokenward_flush(r, NGX_HTTP_TOKENWARD_STALE_HEADER
                                |NGX_HTTP_TOKENWARD_STALE_TARGET);

    ctx->edited = 0;
}


/* NGX_ERROR: the request must not go on. */

ngx_int_t
ngx_http_tokenward_apply(ngx_http_tokenward_ctx_t *ctx)
{
    size_t                       count;
    ngx_uint_t                   i, what;
    tokenward_str                text;
    ngx_http_request_t          *r;
    const tokenward_header      *set;
    const tokenward_decision    *decision;
    ngx_http_tokenward_names_t   without;

    r = ctx->request;
    decision = ctx->decision;

    if (tokenward_decision_remove(decision, &without.names, &without.count)
        != TOKENWARD_OK
        || tokenward_decision_set(decision, &set, &count) != TOKENWARD_OK)
    {
        return NGX_ERROR;
    }

    ctx->edited = 1;

    if (without.count || count) {
        if (ngx_http_tokenward_relist(r, &ctx->headers, &without, set, count)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    for (i = 0; i < without.count; i++) {
        if (without.names[i].len == sizeof("authorization") - 1
            && ngx_strncasecmp((u_char *) without.names[i].data,
                               (u_char *) "authorization",
                               sizeof("authorization") - 1)
               == 0)
        {
            r->headers_in.authorization = NULL;
        }
    }

    what = NGX_HTTP_TOKENWARD_STALE_HEADER;

    if (ctx->target.data != NULL
        && ngx_strlchr(ctx->target.data, ctx->target.data + ctx->target.len,
                       '?')
           != NULL)
    {
        switch (tokenward_decision_target(decision, &text)) {

        case TOKENWARD_OK:
            if (ngx_http_tokenward_new_target(ctx, &text) != NGX_OK) {
                return NGX_ERROR;
            }

            what |= NGX_HTTP_TOKENWARD_STALE_TARGET;
            break;

        case TOKENWARD_ABSENT:
            break;

        default:
            return NGX_ERROR;
        }
    }

    if (ctx->body_read) {
        switch (tokenward_decision_body(decision, &text)) {

        case TOKENWARD_OK:
            if (ngx_http_tokenward_new_body(ctx, &text) != NGX_OK) {
                return NGX_ERROR;
            }

            what |= NGX_HTTP_TOKENWARD_STALE_BODY;
            break;

        case TOKENWARD_ABSENT:
            break;

        default:
            return NGX_ERROR;
        }
    }

    if (tokenward_decision_response_headers(decision, &set, &count)
        != TOKENWARD_OK)
    {
        return NGX_ERROR;
    }

    ctx->wanted = (count != 0);

    ngx_http_tokenward_flush(r, what);

    return NGX_OK;
}


/* r's headers become those of a list, without some and with others behind. */

static ngx_int_t
ngx_http_tokenward_relist(ngx_http_request_t *r, const ngx_list_t *from,
    ngx_http_tokenward_names_t *without, const tokenward_header *set,
    size_t count)
{
    ngx_uint_t               i, begin, room;
    ngx_list_t               list;
    ngx_list_part_t         *last;
    ngx_table_elt_t         *h, *tail;
    const ngx_list_part_t   *part;

    /* what other modules add goes behind ours, then to arrays as long */

    room = count + 4;
    tail = NULL;

    if (count) {
        tail = ngx_palloc(r->pool, room * sizeof(ngx_table_elt_t));
        if (tail == NULL) {
            return NGX_ERROR;
        }
    }

    list.size = sizeof(ngx_table_elt_t);
    list.nalloc = room;
    list.pool = r->pool;
    list.part.elts = NULL;
    list.part.nelts = 0;
    list.part.next = NULL;

    last = NULL;

    for (part = &from->part; part; part = part->next) {

        h = part->elts;
        begin = 0;

        for (i = 0; i <= part->nelts; i++) {

            if (i < part->nelts
                && !ngx_http_tokenward_is_without(&h[i], without))
            {
                continue;
            }

            if (i > begin) {
                if (last == NULL) {
                    last = &list.part;

                } else {
                    last->next = ngx_palloc(r->pool, sizeof(ngx_list_part_t));
                    if (last->next == NULL) {
                        return NGX_ERROR;
                    }

                    last = last->next;
                }

                last->elts = &h[begin];
                last->nelts = i - begin;
                last->next = NULL;
            }

            begin = i + 1;
        }
    }

    for (i = 0; i < count; i++) {
        h = &tail[i];

        h->key.data = (u_char *) set[i].name.data;
        h->key.len = set[i].name.len;
        h->value.data = (u_char *) set[i].value.data;
        h->value.len = set[i].value.len;

#if (nginx_version >= 1023000)
        h->next = NULL;
#endif

        if (ngx_http_tokenward_set_name(r, h) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    r->headers_in.headers = list;

    /* the first part is inside of the list */

    if (last == NULL || last == &list.part) {
        last = &r->headers_in.headers.part;
    }

    if (count == 0) {

        /*
         * No part but the first may be empty: nginx reads the first line of
         * each. What is added goes to an array of its own.
         */

        if (last->nelts == 0) {
            tail = ngx_palloc(r->pool, room * sizeof(ngx_table_elt_t));
            if (tail == NULL) {
                return NGX_ERROR;
            }

            last->elts = tail;

        } else {
            r->headers_in.headers.nalloc = last->nelts;
        }

        r->headers_in.headers.last = last;

        return NGX_OK;
    }

    if (last->nelts) {
        last->next = ngx_palloc(r->pool, sizeof(ngx_list_part_t));
        if (last->next == NULL) {
            return NGX_ERROR;
        }

        last = last->next;
    }

    last->elts = tail;
    last->nelts = count;
    last->next = NULL;

    r->headers_in.headers.last = last;

    return NGX_OK;
}


static ngx_uint_t
ngx_http_tokenward_is_without(ngx_table_elt_t *h,
    ngx_http_tokenward_names_t *without)
{
    size_t  i;

    if (without->names == NULL) {
        return without->count == 0 && ngx_http_tokenward_is_managed(h);
    }

    for (i = 0; i < without->count; i++) {
        if (h->key.len == without->names[i].len
            && ngx_strncasecmp(h->key.data, (u_char *) without->names[i].data,
                               h->key.len)
               == 0)
        {
            return 1;
        }
    }

    return 0;
}


/*
 * The same few names are set again and again: a worker remembers their hashes.
 */

static ngx_int_t
ngx_http_tokenward_set_name(ngx_http_request_t *r, ngx_table_elt_t *h)
{
    size_t                      len;
    u_char                     *name;
    ngx_http_tokenward_name_t  *known;

    name = h->key.data;
    len = h->key.len;

    if (len == 0 || len > NGX_HTTP_TOKENWARD_NAME_LEN) {
        h->lowcase_key = ngx_pnalloc(r->pool, len + 1);
        if (h->lowcase_key == NULL) {
            return NGX_ERROR;
        }

        h->hash = ngx_hash_strlow(h->lowcase_key, name, len);
        return NGX_OK;
    }

    known = &ngx_http_tokenward_name_cache[(len * 31 + name[len - 1] * 7
                                            + name[len / 2])
                                           % NGX_HTTP_TOKENWARD_NAMES];

    if (known->len == len && ngx_memcmp(known->name, name, len) == 0) {
        h->hash = known->hash;
        h->lowcase_key = known->lowcase;
        return NGX_OK;
    }

    /* requests under way may point at a name that is there */

    if (known->len) {
        h->lowcase_key = ngx_pnalloc(r->pool, len);
        if (h->lowcase_key == NULL) {
            return NGX_ERROR;
        }

        h->hash = ngx_hash_strlow(h->lowcase_key, name, len);
        return NGX_OK;
    }

    ngx_memcpy(known->name, name, len);
    known->hash = ngx_hash_strlow(known->lowcase, name, len);
    known->len = len;

    h->hash = known->hash;
    h->lowcase_key = known->lowcase;

    return NGX_OK;
}


/*
 * Without the credential: what is passed on, what variables show, and the
 * request line that goes to logs.
 */

static ngx_int_t
ngx_http_tokenward_new_target(ngx_http_tokenward_ctx_t *ctx,
    tokenward_str *target)
{
    u_char              *p;
    ngx_str_t            args, line;
    ngx_http_request_t  *r;

    r = ctx->request;

    r->unparsed_uri.data = (u_char *) target->data;
    r->unparsed_uri.len = target->len;

    p = ngx_strlchr(r->unparsed_uri.data,
                    r->unparsed_uri.data + r->unparsed_uri.len, '?');

    if (p) {
        args.data = p + 1;
        args.len = r->unparsed_uri.data + r->unparsed_uri.len - args.data;

    } else {
        ngx_str_null(&args);
    }

    if (ngx_http_tokenward_new_args(ctx, &args) != NGX_OK) {
        return NGX_ERROR;
    }

    line.len = r->method_name.len + 1 + target->len;

    if (r->http_protocol.len) {
        line.len += 1 + r->http_protocol.len;
    }

    line.data = ngx_pnalloc(r->pool, line.len);
    if (line.data == NULL) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(line.data, r->method_name.data, r->method_name.len);
    *p++ = ' ';
    p = ngx_cpymem(p, target->data, target->len);

    if (r->http_protocol.len) {
        *p++ = ' ';
        ngx_memcpy(p, r->http_protocol.data, r->http_protocol.len);
    }

    r->request_line = line;

    return NGX_OK;
}


/*
 * A rewrite may have put the client's query behind one of its own: it is
 * replaced where it stands.
 */

static ngx_int_t
ngx_http_tokenward_new_args(ngx_http_tokenward_ctx_t *ctx, ngx_str_t *args)
{
    u_char              *p, *last;
    size_t               before, after;
    ngx_str_t            query, made;
    ngx_http_request_t  *r;

    r = ctx->request;

    p = ngx_strlchr(ctx->target.data, ctx->target.data + ctx->target.len, '?');
    if (p == NULL || r->args.len == 0) {
        return NGX_OK;
    }

    query.data = p + 1;
    query.len = ctx->target.data + ctx->target.len - query.data;

    p = r->args.data;
    last = r->args.data + r->args.len;

    while (p + query.len <= last
           && ngx_memcmp(p, query.data, query.len) != 0)
    {
        p++;
    }

    if (query.len == 0 || p + query.len > last) {
        return NGX_OK;
    }

    before = p - r->args.data;
    after = last - p - query.len;

    if (before == 0 && after == 0) {
        r->args = *args;
        return NGX_OK;
    }

    if (args->len == 0 && before && p[-1] == '&') {
        before--;
    }

    made.data = ngx_pnalloc(r->pool, before + args->len + after);
    if (made.data == NULL) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(made.data, r->args.data, before);

    if (args->len) {
        p = ngx_cpymem(p, args->data, args->len);
    }

    p = ngx_cpymem(p, last - after, after);

    made.len = p - made.data;
    r->args = made;

    return NGX_OK;
}


/* The body that was read, as one piece: in place where it is one already. */

ngx_int_t
ngx_http_tokenward_view_body(ngx_http_tokenward_ctx_t *ctx, size_t limit)
{
    off_t                size;
    size_t               n, len;
    ssize_t              got;
    ngx_buf_t           *b;
    ngx_chain_t         *cl;
    ngx_http_request_t  *r;

    r = ctx->request;

    ctx->body.data = (u_char *) "";
    ctx->body.len = 0;

    if (r->request_body == NULL || r->request_body->bufs == NULL) {
        return NGX_OK;
    }

    cl = r->request_body->bufs;

    if (cl->next == NULL && !cl->buf->in_file) {
        ctx->body.data = cl->buf->pos;
        ctx->body.len = cl->buf->last - cl->buf->pos;
        return NGX_OK;
    }

    size = 0;

    for (/* void */ ; cl; cl = cl->next) {
        size += ngx_buf_size(cl->buf);
    }

    /* one byte more than the limit shows that it is over it */

    len = (size > (off_t) limit) ? limit + 1 : (size_t) size;

    ctx->body.data = ngx_palloc(r->pool, len ? len : 1);
    if (ctx->body.data == NULL) {
        return NGX_ERROR;
    }

    for (cl = r->request_body->bufs; cl && ctx->body.len < len; cl = cl->next) {
        b = cl->buf;
        n = ngx_min((size_t) ngx_buf_size(b), len - ctx->body.len);

        if (n == 0) {
            continue;
        }

        if (b->in_file) {
            got = ngx_read_file(b->file, ctx->body.data + ctx->body.len, n,
                                b->file_pos);

            if (got == NGX_ERROR || (size_t) got != n) {
                return NGX_ERROR;
            }

        } else {
            ngx_memcpy(ctx->body.data + ctx->body.len, b->pos, n);
        }

        ctx->body.len += n;
    }

    return ctx->body.len == len ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_http_tokenward_new_body(ngx_http_tokenward_ctx_t *ctx, tokenward_str *body)
{
    u_char              *p;
    ngx_buf_t           *b;
    ngx_uint_t           i;
    ngx_chain_t         *cl;
    ngx_table_elt_t     *h;
    ngx_list_part_t     *part;
    ngx_http_request_t  *r;

    r = ctx->request;

    b = ngx_calloc_buf(r->pool);
    cl = ngx_alloc_chain_link(r->pool);
    p = ngx_pnalloc(r->pool, NGX_OFF_T_LEN);

    if (b == NULL || cl == NULL || p == NULL || r->request_body == NULL) {
        return NGX_ERROR;
    }

    b->start = (u_char *) body->data;
    b->pos = b->start;
    b->last = b->start + body->len;
    b->end = b->last;
    b->memory = 1;
    b->last_buf = 1;

    cl->buf = b;
    cl->next = NULL;

    r->request_body->bufs = body->len ? cl : NULL;
    r->request_body->temp_file = NULL;

    r->headers_in.content_length_n = body->len;
    r->headers_in.chunked = 0;

    /* Content-Length takes the place of Transfer-Encoding */

    part = &r->headers_in.headers.part;
    h = part->elts;

    for (i = 0; /* void */ ; i++) {

        while (i >= part->nelts) {
            if (part->next == NULL) {
                return NGX_OK;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if ((h[i].key.len == sizeof("Transfer-Encoding") - 1
             && ngx_strncasecmp(h[i].key.data, (u_char *) "Transfer-Encoding",
                                sizeof("Transfer-Encoding") - 1)
                == 0)
            || (h[i].key.len == sizeof("Content-Length") - 1
                && ngx_strncasecmp(h[i].key.data, (u_char *) "Content-Length",
                                   sizeof("Content-Length") - 1)
                   == 0))
        {
            ngx_str_set(&h[i].key, "Content-Length");
            h[i].lowcase_key = (u_char *) "content-length";
            h[i].hash = ngx_hash_key(h[i].lowcase_key, h[i].key.len);
            h[i].value.data = p;
            h[i].value.len = ngx_sprintf(p, "%uz", body->len) - p;

            r->headers_in.content_length = &h[i];
            r->headers_in.transfer_encoding = NULL;

            return NGX_OK;
        }
    }
}


/*
 * Variables keep what they were asked for once. Those that show headers that
 * were removed or set, or a target or body that was rewritten, are asked again.
 */

static void
ngx_http_tokenward_flush(ngx_http_request_t *r, ngx_uint_t what)
{
    ngx_uint_t                       i;
    ngx_http_tokenward_stale_t      *stale;
    ngx_http_tokenward_main_conf_t  *tmcf;

    tmcf = ngx_http_get_module_main_conf(r, ngx_http_tokenward_module);
    stale = tmcf->stale.elts;

    for (i = 0; i < tmcf->stale.nelts; i++) {
        if (stale[i].what & what) {
            r->variables[stale[i].index].valid = 0;
            r->variables[stale[i].index].not_found = 0;
        }
    }
}


ngx_int_t
ngx_http_tokenward_mark_stale(ngx_cycle_t *cycle)
{
    ngx_uint_t                       i, what;
    ngx_str_t                        name;
    ngx_http_variable_t             *v;
    ngx_http_core_main_conf_t       *cmcf;
    ngx_http_tokenward_stale_t      *stale;
    ngx_http_tokenward_main_conf_t  *tmcf;

    static ngx_str_t  target[] = {
        ngx_string("request_uri"), ngx_string("args"),
        ngx_string("query_string"), ngx_string("is_args"),
        ngx_string("request"), ngx_string("arg_access_token"),
        ngx_null_string
    };
    ngx_str_t        *one;

    cmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_core_module);
    tmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                               ngx_http_tokenward_module);

    if (ngx_array_init(&tmcf->stale, cycle->pool, 4,
                       sizeof(ngx_http_tokenward_stale_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    v = cmcf->variables.elts;

    for (i = 0; i < cmcf->variables.nelts; i++) {
        name = v[i].name;
        what = 0;

        if (name.len > 5 && ngx_strncmp(name.data, "http_", 5) == 0) {
            name.data += 5;
            name.len -= 5;

            if (name.len == sizeof("authorization") - 1
                && ngx_strncmp(name.data, "authorization", name.len) == 0)
            {
                what = NGX_HTTP_TOKENWARD_STALE_HEADER;

            } else if (tokenward_is_managed((const char *) name.data,
                                            name.len))
            {
                what = NGX_HTTP_TOKENWARD_STALE_HEADER;

            } else if (ngx_strncmp(name.data, "content_length", name.len) == 0
                       || ngx_strncmp(name.data, "transfer_encoding", name.len)
                          == 0)
            {
                what = NGX_HTTP_TOKENWARD_STALE_BODY;
            }

        } else if (name.len == sizeof("content_length") - 1
                   && ngx_strncmp(name.data, "content_length", name.len) == 0)
        {
            what = NGX_HTTP_TOKENWARD_STALE_BODY;

        } else {
            for (one = target; one->len; one++) {
                if (name.len == one->len
                    && ngx_strncmp(name.data, one->data, one->len) == 0)
                {
                    what = NGX_HTTP_TOKENWARD_STALE_TARGET;
                }
            }
        }

        if (what == 0) {
            continue;
        }

        stale = ngx_array_push(&tmcf->stale);
        if (stale == NULL) {
            return NGX_ERROR;
        }

        stale->index = i;
        stale->what = what;
    }

    return NGX_OK;
}
