
/*
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The context of a main request: made, found again, let go of; and what it is
 * refused with.
 */

#include "ngx_http_tokenward.h"


/* About 300 kB. */
#define NGX_HTTP_TOKENWARD_MAX_FREE  256


static ngx_uint_t ngx_http_tokenward_names_token(u_char *p, u_char *end);
static void ngx_http_tokenward_mask(ngx_http_request_t *r);
static ngx_table_elt_t *ngx_http_tokenward_add_header(ngx_http_request_t *r,
    const tokenward_header *header);
static void ngx_http_tokenward_cleanup_ctx(void *data);
static void ngx_http_tokenward_cleanup_step(void *data);


/* Contexts for requests to come. */

static ngx_http_tokenward_ctx_t  *ngx_http_tokenward_free_ctx;
static ngx_uint_t                 ngx_http_tokenward_nfree;


/* The context of a main request: also after its slot was cleared. */

ngx_http_tokenward_ctx_t *
ngx_http_tokenward_ctx(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t        *cln;
    ngx_http_tokenward_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_tokenward_module);

    if (ctx == NULL && (r->internal || r->filter_finalize)) {

        for (cln = r->pool->cleanup; cln; cln = cln->next) {
            if (cln->handler == ngx_http_tokenward_cleanup_ctx) {
                return cln->data;
            }
        }
    }

    return ctx;
}


ngx_http_tokenward_ctx_t *
ngx_http_tokenward_create_ctx(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t        *cln;
    ngx_http_tokenward_ctx_t  *ctx;

    cln = ngx_pool_cleanup_add(r->pool, 0);
    if (cln == NULL) {
        return NULL;
    }

    ctx = ngx_http_tokenward_free_ctx;

    if (ctx) {
        ngx_http_tokenward_free_ctx = ctx->next;
        ngx_http_tokenward_nfree--;

    } else {
        ctx = ngx_alloc(sizeof(ngx_http_tokenward_ctx_t), r->connection->log);
        if (ctx == NULL) {
            return NULL;
        }
    }

    ngx_memzero(ctx, offsetof(ngx_http_tokenward_ctx_t, next));

    ctx->request = r;
    ngx_http_tokenward_save(ctx);

    cln->handler = ngx_http_tokenward_cleanup_ctx;
    cln->data = ctx;

    ngx_http_tokenward_mask(r);

    ngx_http_set_ctx(r, ctx, ngx_http_tokenward_module);

    return ctx;
}


/* Whether "access_token" begins here, percent-encoded or not. */

static ngx_uint_t
ngx_http_tokenward_names_token(u_char *p, u_char *end)
{
    u_char     c;
    u_char    *name;
    ngx_int_t  decoded;

    for (name = (u_char *) "access_token"; *name; name++) {

        if (p == end) {
            return 0;
        }

        c = *p++;

        if (c == '%' && end - p >= 2) {
            decoded = ngx_hextoi(p, 2);

            if (decoded != NGX_ERROR) {
                c = (u_char) decoded;
                p += 2;
            }
        }

        if (c != *name) {
            return 0;
        }
    }

    return 1;
}


/*
 * Lines in the error log quote the request line. One that shows a token loses
 * its query, until the request is allowed and has one without the token.
 */

static void
ngx_http_tokenward_mask(ngx_http_request_t *r)
{
    u_char     *p, *query, *end;
    size_t      len;
    ngx_str_t   line;

    line = r->request_line;

    query = line.len ? memchr(line.data, '?', line.len) : NULL;

    if (query == NULL) {
        return;
    }

    end = line.data + line.len;

    for (p = query; p < end; p++) {
        if (ngx_http_tokenward_names_token(p, end)) {
            break;
        }
    }

    if (p == end) {
        return;
    }

    len = query - line.data;
    p = ngx_pnalloc(r->pool, len + 1 + r->http_protocol.len);

    if (p == NULL) {
        r->request_line.len = len;
        return;
    }

    r->request_line.data = p;
    p = ngx_cpymem(p, line.data, len);

    if (r->http_protocol.len) {
        *p++ = ' ';
        p = ngx_cpymem(p, r->http_protocol.data, r->http_protocol.len);
    }

    r->request_line.len = p - r->request_line.data;
}


/*
 * nginx's own status: satisfy and error_page do what they always do. The body
 * comes from the filters, if nginx makes the answer itself.
 */

ngx_int_t
ngx_http_tokenward_refuse(ngx_http_tokenward_ctx_t *ctx)
{
    size_t                   i, count;
    ngx_table_elt_t         *h;
    ngx_http_request_t      *r;
    const tokenward_header  *headers;

    r = ctx->request;

    ctx->status = tokenward_decision_status(ctx->decision);

    if (ctx->status < NGX_HTTP_BAD_REQUEST || ctx->status > 599) {
        ctx->status = NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx->refused = 1;

    if (tokenward_decision_refusal_headers(ctx->decision, &headers, &count)
        != TOKENWARD_OK)
    {
        return ctx->status;
    }

    for (i = 0; i < count; i++) {

        if (headers[i].name.len == sizeof("WWW-Authenticate") - 1
            && ngx_strncasecmp((u_char *) headers[i].name.data,
                               (u_char *) "WWW-Authenticate",
                               headers[i].name.len)
               == 0)
        {
            if (r->headers_out.www_authenticate) {
                r->headers_out.www_authenticate->hash = 0;
            }

            h = ngx_http_tokenward_add_header(r, &headers[i]);
            if (h == NULL) {
                return NGX_HTTP_INTERNAL_SERVER_ERROR;
            }

            r->headers_out.www_authenticate = h;

        } else if (!ctx->challenged
                   && headers[i].name.len == sizeof("Retry-After") - 1
                   && ngx_strncasecmp((u_char *) headers[i].name.data,
                                      (u_char *) "Retry-After",
                                      headers[i].name.len)
                      == 0)
        {
            if (ngx_http_tokenward_add_header(r, &headers[i]) == NULL) {
                return NGX_HTTP_INTERNAL_SERVER_ERROR;
            }

            ctx->challenged = 1;
        }
    }

    return ctx->status;
}


/* A defect: of memory, of the module, of the library. It denies. */

ngx_int_t
ngx_http_tokenward_fail(ngx_http_tokenward_ctx_t *ctx, const char *what)
{
    ngx_http_request_t  *r;

    r = ctx->request;

    ngx_log_error(NGX_LOG_ALERT, ngx_cycle->log, 0,
                  "tokenward: a request %s and is refused", what);

    /* one that was allowed was not edited to the end */

    if (ngx_http_tokenward_retire(ctx) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (tokenward_internal(ctx->source->introspector,
                           r->method == NGX_HTTP_HEAD, &ctx->step)
        != TOKENWARD_OK)
    {
        ctx->step = NULL;
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx->decision = tokenward_step_decision(ctx->step);

    return ngx_http_tokenward_refuse(ctx);
}


static ngx_table_elt_t *
ngx_http_tokenward_add_header(ngx_http_request_t *r,
    const tokenward_header *header)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NULL;
    }

    h->hash = 1;
    h->key.data = (u_char *) header->name.data;
    h->key.len = header->name.len;
    h->value.data = (u_char *) header->value.data;
    h->value.len = header->value.len;
    h->lowcase_key = NULL;

#if (nginx_version >= 1023000)
    h->next = NULL;
#endif

    return h;
}


/*
 * Lets go of what is under way: when the client goes away, before anything
 * else of the request is freed. Who waits for the same answer asks instead.
 */

void
ngx_http_tokenward_drop(void *data)
{
    ngx_http_tokenward_ctx_t  *ctx = data;

    tokenward_step  *step;

    if (ctx->timer && ctx->timer->timer_set) {
        ngx_del_timer(ctx->timer);
    }

    ctx->waiting = 0;
    ctx->woken = 0;

    if (ctx->call) {
        ctx->call->ctx = NULL;
        ctx->call = NULL;
    }

    step = ctx->step;

    if (step && tokenward_step_decision(step) == NULL) {
        ctx->step = NULL;
        tokenward_step_free(step);
    }
}


/*
 * The request begins anew. A step that has its decision lives on with what
 * was made of it: edits are views.
 */

ngx_int_t
ngx_http_tokenward_retire(ngx_http_tokenward_ctx_t *ctx)
{
    ngx_pool_cleanup_t         *cln;
    ngx_http_tokenward_call_t  *call;

    call = ctx->call;

    ngx_http_tokenward_drop(ctx);

    if (call) {
        ngx_http_tokenward_call_abort(call);
    }

    ctx->decision = NULL;
    ctx->allowed = 0;
    ctx->refused = 0;
    ctx->wanted = 0;

    if (ctx->step) {
        cln = ngx_pool_cleanup_add(ctx->request->pool, 0);
        if (cln == NULL) {
            return NGX_ERROR;
        }

        cln->handler = ngx_http_tokenward_cleanup_step;
        cln->data = ctx->step;

        ctx->step = NULL;
    }

    return NGX_OK;
}


static void
ngx_http_tokenward_cleanup_ctx(void *data)
{
    ngx_http_tokenward_ctx_t  *ctx = data;

    if (ctx->decision == NULL || ctx->timer || ctx->call) {
        ngx_http_tokenward_drop(ctx);
    }

    tokenward_step_free(ctx->step);
    ngx_http_tokenward_release(ctx->lines);

    if (ngx_http_tokenward_nfree == NGX_HTTP_TOKENWARD_MAX_FREE) {
        ngx_free(ctx);
        return;
    }

    ctx->next = ngx_http_tokenward_free_ctx;
    ngx_http_tokenward_free_ctx = ctx;
    ngx_http_tokenward_nfree++;
}


static void
ngx_http_tokenward_cleanup_step(void *data)
{
    tokenward_step_free(data);
}
