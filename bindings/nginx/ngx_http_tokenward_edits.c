
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


/* Lines that were set for the answers of hits lately: 8 MB at most. */

#define NGX_HTTP_TOKENWARD_KEPT       1024
#define NGX_HTTP_TOKENWARD_MAX_LINES  8192

typedef struct {
    uint64_t                      seen;
    ngx_http_tokenward_lines_t   *lines;
} ngx_http_tokenward_kept_t;


static ngx_int_t ngx_http_tokenward_relist(ngx_http_request_t *r,
    ngx_http_tokenward_ctx_t *ctx, const ngx_list_t *from, ngx_http_tokenward_names_t *without,
    const tokenward_header *set, size_t count);
static ngx_http_tokenward_lines_t *ngx_http_tokenward_find(uint64_t shared);
static void ngx_http_tokenward_keep(uint64_t shared, ngx_table_elt_t *elts,
    size_t count);
static ngx_int_t ngx_http_tokenward_set_name(ngx_http_request_t *r,
    ngx_table_elt_t *h);


static ngx_http_tokenward_name_t  ngx_http_tokenward_name_cache
    [NGX_HTTP_TOKENWARD_NAMES];

static ngx_http_tokenward_kept_t  ngx_http_tokenward_kept
    [NGX_HTTP_TOKENWARD_KEPT];


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


/* Names are short: a call costs more than the comparison. */

static ngx_inline ngx_uint_t
ngx_http_tokenward_is_same(const u_char *a, const u_char *b, size_t len)
{
    size_t    i;
    uint64_t  x, y;

    if (len < sizeof(uint64_t)) {
        return ngx_memcmp(a, b, len) == 0;
    }

    /* the last word may overlap the one before */

    for (i = 0; /* void */ ; i = ngx_min(i + sizeof(uint64_t),
                                         len - sizeof(uint64_t)))
    {
        ngx_memcpy(&x, a + i, sizeof(uint64_t));
        ngx_memcpy(&y, b + i, sizeof(uint64_t));

        if (x != y) {
            return 0;
        }

        if (i == len - sizeof(uint64_t)) {
            return 1;
        }
    }
}


static ngx_inline ngx_uint_t
ngx_http_tokenward_is_name(ngx_table_elt_t *h, const tokenward_str *name)
{
    return h->key.len == name->len
           && (ngx_http_tokenward_is_same(h->key.data, (u_char *) name->data,
                                          name->len)
               || ngx_strncasecmp(h->key.data, (u_char *) name->data, name->len)
                  == 0);
}


/* Most requests have one name to go: Authorization. */

static ngx_inline ngx_uint_t
ngx_http_tokenward_is_without(ngx_table_elt_t *h,
    ngx_http_tokenward_names_t *without)
{
    size_t  i;

    if (without->count == 1) {
        return ngx_http_tokenward_is_name(h, without->names);
    }

    if (without->names == NULL) {
        return without->count == 0 && ngx_http_tokenward_is_managed(h);
    }

    for (i = 0; i < without->count; i++) {
        if (ngx_http_tokenward_is_name(h, &without->names[i])) {
            return 1;
        }
    }

    return 0;
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

    return ngx_http_tokenward_relist(r, NULL, &client, &managed, NULL, 0);
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
    uint64_t                     shared;
    ngx_uint_t                   what;
    tokenward_str                text;
    ngx_http_request_t          *r;
    const tokenward_header      *set;
    const tokenward_decision    *decision;
    ngx_http_tokenward_names_t   without;

    r = ctx->request;
    decision = ctx->decision;

    if (tokenward_decision_remove(decision, &without.names, &without.count)
        != TOKENWARD_OK)
    {
        return NGX_ERROR;
    }

    ctx->edited = 1;

    shared = ctx->tail_used ? 0 : tokenward_decision_shared(decision);
    ctx->lines = shared ? ngx_http_tokenward_find(shared) : ctx->lines;

    if (shared && ctx->lines) {
        set = NULL;
        count = ctx->lines->count;

    } else if (tokenward_decision_set(decision, &set, &count) != TOKENWARD_OK) {
        return NGX_ERROR;
    }

    if (without.count || count) {
        if (ngx_http_tokenward_relist(r, ctx, &ctx->headers, &without, set,
                                      count)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        if (shared && set && count) {
            ngx_http_tokenward_keep(shared,
                                    r->headers_in.headers.last->elts, count);
        }
    }

    what = NGX_HTTP_TOKENWARD_STALE_HEADER;

    if (ctx->target.len && memchr(ctx->target.data, '?', ctx->target.len))
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


/*
 * What most requests come to: one line goes or none, and lines that were set
 * before are set again. NGX_DECLINED: it is more than that, and nothing was
 * done yet.
 */

ngx_int_t
ngx_http_tokenward_apply_again(ngx_http_tokenward_ctx_t *ctx,
    const tokenward_brief *brief)
{
    ngx_uint_t                   i, n, at;
    ngx_list_t                  *list;
    ngx_list_part_t             *part;
    ngx_table_elt_t             *client;
    ngx_http_request_t          *r;
    ngx_http_tokenward_lines_t  *lines;

    if (!brief->headers_alone || brief->shared == 0 || ctx->tail_used
        || ctx->headers.part.next)
    {
        return NGX_DECLINED;
    }

    r = ctx->request;

    client = ctx->headers.part.elts;
    n = ctx->headers.part.nelts;
    at = n;

    if (brief->remove_len) {

        /* others of the name would be counted, too */

        if (brief->remove_len != 1 || ctx->ncredentials != 1
            || !ngx_http_tokenward_is_name(ctx->credential, brief->remove))
        {
            return NGX_DECLINED;
        }

        at = ctx->credential - client;
    }

    lines = ngx_http_tokenward_find(brief->shared);

    if (lines == NULL) {
        return NGX_DECLINED;
    }

    if (lines->count > NGX_HTTP_TOKENWARD_TAIL) {
        ngx_http_tokenward_release(lines);
        return NGX_DECLINED;
    }

    ctx->lines = lines;
    ctx->edited = 1;
    ctx->tail_used = 1;

    if (at < n && r->headers_in.authorization == ctx->credential) {
        r->headers_in.authorization = NULL;
    }

    /* what is before the line, what is behind it, and what is set */

    list = &r->headers_in.headers;
    part = &list->part;

    if (at) {
        part->elts = client;
        part->nelts = at;
        part->next = &ctx->parts[0];
        part = part->next;
    }

    if (at + 1 < n) {
        part->elts = &client[at + 1];
        part->nelts = n - at - 1;
        part->next = &ctx->parts[1];
        part = part->next;
    }

    /* of a few lines each: what is made for long copies starts slowly */

    for (i = 0; i < lines->count; i++) {
        ctx->tail[i] = lines->elts[i];
    }

    part->elts = ctx->tail;
    part->nelts = lines->count;
    part->next = NULL;

    list->last = part;
    list->size = sizeof(ngx_table_elt_t);
    list->nalloc = NGX_HTTP_TOKENWARD_TAIL;
    list->pool = r->pool;

    ngx_http_tokenward_flush(r, NGX_HTTP_TOKENWARD_STALE_HEADER);

    return NGX_OK;
}


/* With a reference for the caller; NULL: they were not kept. */

static ngx_http_tokenward_lines_t *
ngx_http_tokenward_find(uint64_t shared)
{
    ngx_http_tokenward_kept_t  *kept;

    kept = &ngx_http_tokenward_kept[shared % NGX_HTTP_TOKENWARD_KEPT];

    if (kept->lines == NULL || kept->lines->shared != shared) {
        return NULL;
    }

    kept->lines->refs++;

    return kept->lines;
}


/*
 * Lines that come a second time are kept under their number, which is never
 * used again: texts too, since the decision that they are views of may go.
 */

static void
ngx_http_tokenward_keep(uint64_t shared, ngx_table_elt_t *elts, size_t count)
{
    u_char                      *p;
    size_t                       i, size;
    ngx_table_elt_t             *h;
    ngx_http_tokenward_kept_t   *kept;
    ngx_http_tokenward_lines_t  *lines;

    kept = &ngx_http_tokenward_kept[shared % NGX_HTTP_TOKENWARD_KEPT];

    if (kept->seen != shared) {
        kept->seen = shared;
        return;
    }

    size = sizeof(ngx_http_tokenward_lines_t) + count * sizeof(ngx_table_elt_t);

    for (i = 0; i < count; i++) {
        size += 2 * elts[i].key.len + elts[i].value.len;
    }

    if (size > NGX_HTTP_TOKENWARD_MAX_LINES) {
        return;
    }

    lines = ngx_alloc(size, ngx_cycle->log);
    if (lines == NULL) {
        return;
    }

    lines->shared = shared;
    lines->refs = 1;
    lines->count = count;

    p = (u_char *) &lines->elts[count];

    for (i = 0; i < count; i++) {
        h = &lines->elts[i];
        *h = elts[i];

        h->key.data = p;
        p = ngx_cpymem(p, elts[i].key.data, h->key.len);

        h->lowcase_key = p;
        p = ngx_cpymem(p, elts[i].lowcase_key, h->key.len);

        h->value.data = p;
        p = ngx_cpymem(p, elts[i].value.data, h->value.len);
    }

    ngx_http_tokenward_release(kept->lines);
    kept->lines = lines;
}


void
ngx_http_tokenward_release(ngx_http_tokenward_lines_t *lines)
{
    if (lines && --lines->refs == 0) {
        ngx_free(lines);
    }
}


/* A part behind the last one, or the first of all. */

static ngx_inline ngx_list_part_t *
ngx_http_tokenward_add_part(ngx_http_request_t *r,
    ngx_http_tokenward_ctx_t *ctx, ngx_uint_t *nparts, ngx_list_part_t *last,
    ngx_list_part_t *first)
{
    ngx_list_part_t  *part;

    if (last == NULL) {
        return first;
    }

    if (*nparts < NGX_HTTP_TOKENWARD_PARTS) {
        part = &ctx->parts[(*nparts)++];

    } else {
        part = ngx_palloc(r->pool, sizeof(ngx_list_part_t));
        if (part == NULL) {
            return NULL;
        }
    }

    part->next = NULL;
    last->next = part;

    return part;
}


/* r's headers become those of a list, without some and with others behind. */

static ngx_int_t
ngx_http_tokenward_relist(ngx_http_request_t *r,
    ngx_http_tokenward_ctx_t *ctx, const ngx_list_t *from,
    ngx_http_tokenward_names_t *without, const tokenward_header *set,
    size_t count)
{
    ngx_uint_t               i, begin, room, nparts;
    ngx_list_t               list;
    ngx_list_part_t         *last;
    ngx_table_elt_t         *h, *tail;
    const ngx_list_part_t   *part;

    /* what other modules add goes behind ours, then to arrays as long */

    room = count + 4;
    tail = NULL;
    nparts = NGX_HTTP_TOKENWARD_PARTS;

    if (ctx && !ctx->tail_used) {
        ctx->tail_used = 1;
        nparts = 0;

        if (count && count <= NGX_HTTP_TOKENWARD_TAIL) {
            room = NGX_HTTP_TOKENWARD_TAIL;
            tail = ctx->tail;
        }
    }

    if (count && tail == NULL) {
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

        for (i = 0; i < part->nelts; i++) {

            if (!ngx_http_tokenward_is_without(&h[i], without)) {
                continue;
            }

            if (&h[i] == r->headers_in.authorization) {
                r->headers_in.authorization = NULL;
            }

            if (i > begin) {
                last = ngx_http_tokenward_add_part(r, ctx, &nparts, last,
                                                   &list.part);
                if (last == NULL) {
                    return NGX_ERROR;
                }

                last->elts = &h[begin];
                last->nelts = i - begin;
            }

            begin = i + 1;
        }

        if (i > begin) {
            last = ngx_http_tokenward_add_part(r, ctx, &nparts, last,
                                               &list.part);
            if (last == NULL) {
                return NGX_ERROR;
            }

            last->elts = &h[begin];
            last->nelts = i - begin;
        }
    }

    if (count && set == NULL) {
        ngx_memcpy(tail, ctx->lines->elts, count * sizeof(ngx_table_elt_t));
    }

    for (i = 0; set && i < count; i++) {
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
        last = ngx_http_tokenward_add_part(r, ctx, &nparts, last, NULL);
        if (last == NULL) {
            return NGX_ERROR;
        }
    }

    last->elts = tail;
    last->nelts = count;

    r->headers_in.headers.last = last;

    return NGX_OK;
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

    if (known->len == len && ngx_http_tokenward_is_same(known->name, name, len))
    {
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
