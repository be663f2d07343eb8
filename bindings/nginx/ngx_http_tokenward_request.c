
/*
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The phases. A request begins, waits where it has to, and goes on or is
 * refused; whatever goes wrong on the way refuses it.
 */

#include "ngx_http_tokenward.h"


/* Header lines of nearly every request; others are on the request's pool. */
#define NGX_HTTP_TOKENWARD_FEW       32

/* About 300 kB. */
#define NGX_HTTP_TOKENWARD_MAX_FREE  256


static ngx_int_t ngx_http_tokenward_access(ngx_http_request_t *r,
    ngx_uint_t satisfy);
static ngx_int_t ngx_http_tokenward_handle(ngx_http_request_t *r,
    ngx_http_tokenward_loc_conf_t *conf);
static ngx_http_tokenward_ctx_t *ngx_http_tokenward_create_ctx(
    ngx_http_request_t *r);
static ngx_uint_t ngx_http_tokenward_names_token(u_char *p, u_char *end);
static void ngx_http_tokenward_mask(ngx_http_request_t *r);
static ngx_int_t ngx_http_tokenward_read_body(ngx_http_tokenward_ctx_t *ctx);
static void ngx_http_tokenward_body_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_tokenward_begin(ngx_http_tokenward_ctx_t *ctx,
    ngx_http_tokenward_loc_conf_t *conf);
static ngx_int_t ngx_http_tokenward_advance(ngx_http_tokenward_ctx_t *ctx,
    ngx_http_tokenward_loc_conf_t *conf);
static ngx_int_t ngx_http_tokenward_resume(ngx_http_tokenward_ctx_t *ctx);
static ngx_int_t ngx_http_tokenward_wait(ngx_http_tokenward_ctx_t *ctx,
    const tokenward_wait *wait);
static void ngx_http_tokenward_ready(void *userdata, bool ready);
static void ngx_http_tokenward_wait_timeout(ngx_event_t *ev);
static ngx_int_t ngx_http_tokenward_park(ngx_http_tokenward_ctx_t *ctx);
static ngx_int_t ngx_http_tokenward_conclude(ngx_http_tokenward_ctx_t *ctx,
    ngx_http_tokenward_loc_conf_t *conf);
static ngx_int_t ngx_http_tokenward_refuse(ngx_http_tokenward_ctx_t *ctx);
static ngx_int_t ngx_http_tokenward_fail(ngx_http_tokenward_ctx_t *ctx,
    const char *what);
static ngx_table_elt_t *ngx_http_tokenward_add_header(ngx_http_request_t *r,
    const tokenward_header *header);
static void ngx_http_tokenward_cleanup_ctx(void *data);
static void ngx_http_tokenward_cleanup_step(void *data);
static void ngx_http_tokenward_drop(void *data);
static ngx_int_t ngx_http_tokenward_retire(ngx_http_tokenward_ctx_t *ctx);


/* Contexts for requests to come. */

static ngx_http_tokenward_ctx_t  *ngx_http_tokenward_free_ctx;
static ngx_uint_t                 ngx_http_tokenward_nfree;


/* In a server with a protected location nobody else sets what we set. */

ngx_int_t
ngx_http_tokenward_post_read_handler(ngx_http_request_t *r)
{
    ngx_http_tokenward_srv_conf_t  *tscf;

    tscf = ngx_http_get_module_srv_conf(r, ngx_http_tokenward_module);

    if (tscf->guarded && ngx_http_tokenward_strip(r) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return NGX_DECLINED;
}


/*
 * A request that nginx finds bad itself goes from its header to an error_page,
 * past POST_READ. What is sent to a page after a decision is ours.
 */

ngx_int_t
ngx_http_tokenward_rewrite_handler(ngx_http_request_t *r)
{
    if (!r->internal || r != r->main || ngx_http_tokenward_ctx(r)) {
        return NGX_DECLINED;
    }

    return ngx_http_tokenward_post_read_handler(r);
}


ngx_int_t
ngx_http_tokenward_preaccess_handler(ngx_http_request_t *r)
{
    ngx_http_tokenward_ctx_t       *ctx;
    ngx_http_tokenward_loc_conf_t  *conf;

    if (r != r->main) {

        if (ngx_http_tokenward_call_of(r)) {
            return ngx_http_tokenward_call_preaccess(r);
        }

        conf = ngx_http_get_module_loc_conf(r, ngx_http_tokenward_module);

        if (!conf->enable) {
            return NGX_DECLINED;
        }

        /* a subrequest skips the access phase: it must have been passed */

        ctx = ngx_http_tokenward_ctx(r->main);

        if (ctx && ctx->allowed
            && ctx->source == conf->source && ctx->policy == conf->policy)
        {
            return NGX_DECLINED;
        }

        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "tokenward: subrequest \"%V\" to a protected location, "
                      "whose main request was not allowed there", &r->uri);

        return NGX_HTTP_FORBIDDEN;
    }

    conf = ngx_http_get_module_loc_conf(r, ngx_http_tokenward_module);

    if (!conf->enable || conf->phase != NGX_HTTP_TOKENWARD_PREACCESS) {
        return NGX_DECLINED;
    }

    return ngx_http_tokenward_handle(r, conf);
}


ngx_int_t
ngx_http_tokenward_access_any_handler(ngx_http_request_t *r)
{
    return ngx_http_tokenward_access(r, NGX_HTTP_SATISFY_ANY);
}


ngx_int_t
ngx_http_tokenward_access_all_handler(ngx_http_request_t *r)
{
    return ngx_http_tokenward_access(r, NGX_HTTP_SATISFY_ALL);
}


static ngx_int_t
ngx_http_tokenward_access(ngx_http_request_t *r, ngx_uint_t satisfy)
{
    ngx_int_t                       rc;
    ngx_http_core_loc_conf_t       *clcf;
    ngx_http_tokenward_loc_conf_t  *conf;

    conf = ngx_http_get_module_loc_conf(r, ngx_http_tokenward_module);

    if (!conf->enable || conf->phase != NGX_HTTP_TOKENWARD_ACCESS) {
        return NGX_DECLINED;
    }

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (clcf->satisfy != satisfy) {
        return NGX_DECLINED;
    }

    rc = ngx_http_tokenward_handle(r, conf);

    return rc == NGX_DECLINED ? NGX_OK : rc;
}


/*
 * NGX_DECLINED: the request goes on. It is entered again after the body was
 * read, a call was answered or a wait ended, and after internal redirects.
 */

static ngx_int_t
ngx_http_tokenward_handle(ngx_http_request_t *r,
    ngx_http_tokenward_loc_conf_t *conf)
{
    ngx_int_t                  rc;
    tokenward_str              none;
    ngx_http_tokenward_ctx_t  *ctx;

    ctx = ngx_http_tokenward_ctx(r);

    if (ctx == NULL) {
        ctx = ngx_http_tokenward_create_ctx(r);
        if (ctx == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

    } else {
        ngx_http_set_ctx(r, ctx, ngx_http_tokenward_module);
    }

    if (ctx->source != conf->source || ctx->policy != conf->policy) {

        /* another configuration: what the client sent is looked at anew */

        if (ngx_http_tokenward_retire(ctx) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        ngx_http_tokenward_restore(ctx);

        ctx->source = conf->source;
        ctx->policy = conf->policy;
        ctx->body_asked = ctx->body_read;
    }

    if (ctx->decision) {
        return ctx->allowed ? NGX_DECLINED : ngx_http_tokenward_refuse(ctx);
    }

    if ((ctx->call || ctx->waiting) && !ctx->woken) {

        /* a post_action of a client that is gone, or nobody's turn */

        return r->connection->error ? NGX_HTTP_CLIENT_CLOSED_REQUEST
                                    : ngx_http_tokenward_park(ctx);
    }

    if (ctx->call || ctx->waiting) {
        return ngx_http_tokenward_resume(ctx) == NGX_OK
               ? ngx_http_tokenward_advance(ctx, conf)
               : ngx_http_tokenward_fail(ctx, "cannot go on");
    }

    if (ctx->body_asked && !ctx->body_read && r->internal && r->err_status) {

        /* the page of an error in reading it: there is no body to look into */

        none.data = NULL;
        none.len = 0;

        if (ngx_http_tokenward_new_body(ctx, &none) != NGX_OK) {
            return ngx_http_tokenward_fail(ctx, "has no memory");
        }

        ctx->body_read = 1;
    }

    if (ctx->step || (ctx->body_asked && !ctx->body_read)) {
        return ngx_http_tokenward_fail(ctx, "was entered out of turn");
    }

    if (!ctx->body_read
        && (r->headers_in.content_length_n > 0 || r->headers_in.chunked))
    {
        rc = ngx_http_tokenward_read_body(ctx);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    return ngx_http_tokenward_begin(ctx, conf);
}


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


static ngx_http_tokenward_ctx_t *
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

    query = ngx_strlchr(line.data, line.data + line.len, '?');
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


/* NGX_OK: it is not needed, or it was read before. */

static ngx_int_t
ngx_http_tokenward_read_body(ngx_http_tokenward_ctx_t *ctx)
{
    bool                 needed;
    ngx_int_t            rc;
    tokenward_header     few[NGX_HTTP_TOKENWARD_FEW];
    tokenward_request    request;
    ngx_http_request_t  *r;

    r = ctx->request;

    if (ngx_http_tokenward_view(ctx, &request, few, NGX_HTTP_TOKENWARD_FEW)
        != NGX_OK)
    {
        return ngx_http_tokenward_fail(ctx, "has no memory");
    }

    needed = false;

    if (tokenward_needs_body(ctx->source->introspector,
                             ctx->policy ? ctx->policy->policy : NULL,
                             &request, &needed)
        != TOKENWARD_OK)
    {
        return ngx_http_tokenward_fail(ctx, "cannot tell about the body");
    }

    if (!needed) {
        return NGX_OK;
    }

    ctx->body_asked = 1;

    rc = ngx_http_read_client_request_body(r, ngx_http_tokenward_body_handler);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        return rc;
    }

    ngx_http_finalize_request(r, NGX_DONE);

    return NGX_DONE;
}


static void
ngx_http_tokenward_body_handler(ngx_http_request_t *r)
{
    ngx_http_tokenward_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_tokenward_module);

    if (ctx == NULL
        || ngx_http_tokenward_view_body(ctx,
                             tokenward_body_bytes(ctx->source->introspector))
           != NGX_OK)
    {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }

    ctx->body_read = 1;

    r->preserve_body = 1;
    r->write_event_handler = ngx_http_core_run_phases;

    ngx_http_core_run_phases(r);
}


/* A view of what the client sent, over nginx's own memory. */

ngx_int_t
ngx_http_tokenward_view(ngx_http_tokenward_ctx_t *ctx,
    tokenward_request *request, tokenward_header *few, ngx_uint_t nfew)
{
    u_char                 *p;
    ngx_uint_t              i, n;
    ngx_table_elt_t        *h;
    tokenward_header       *header;
    ngx_http_request_t     *r;
    const ngx_list_part_t  *part;

    r = ctx->request;
    n = 0;

    for (part = &ctx->headers.part; part; part = part->next) {
        n += part->nelts;
    }

    header = few;

    if (n > nfew) {
        header = ngx_palloc(r->pool, n * sizeof(tokenward_header));
        if (header == NULL) {
            return NGX_ERROR;
        }
    }

    ngx_memzero(request, sizeof(tokenward_request));

    request->struct_size = sizeof(tokenward_request);
    request->method = ngx_http_tokenward_str(&ctx->method);
    request->target = ngx_http_tokenward_str(&ctx->target);
    request->headers = header;
    request->headers_len = n;

    for (part = &ctx->headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++, header++) {
            header->name = ngx_http_tokenward_str(&h[i].key);
            header->value = ngx_http_tokenward_str(&h[i].value);
        }
    }

    /* the absolute form may have a query and no path: http://host?a */

    if (ctx->target.len && ctx->target.data[0] == '?') {
        p = ngx_pnalloc(r->pool, ctx->target.len + 1);
        if (p == NULL) {
            return NGX_ERROR;
        }

        *p = '/';
        ngx_memcpy(p + 1, ctx->target.data, ctx->target.len);

        ctx->target.data = p;
        ctx->target.len++;

        request->target = ngx_http_tokenward_str(&ctx->target);
    }

    if (ctx->body_read) {
        request->body = ngx_http_tokenward_str(&ctx->body);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_tokenward_begin(ngx_http_tokenward_ctx_t *ctx,
    ngx_http_tokenward_loc_conf_t *conf)
{
    tokenward_time      now;
    tokenward_header    few[NGX_HTTP_TOKENWARD_FEW];
    tokenward_request   request;

    if (ngx_http_tokenward_view(ctx, &request, few, NGX_HTTP_TOKENWARD_FEW)
        != NGX_OK)
    {
        return ngx_http_tokenward_fail(ctx, "has no memory");
    }

    now = ngx_http_tokenward_now();

    if (tokenward_begin(ctx->source->introspector,
                        ctx->policy ? ctx->policy->policy : NULL,
                        &request, &now, &ctx->step)
        != TOKENWARD_OK)
    {
        ctx->step = NULL;
        return ngx_http_tokenward_fail(ctx, "cannot begin");
    }

    return ngx_http_tokenward_advance(ctx, conf);
}


/* Goes on with a step until it has its decision, or something is awaited. */

static ngx_int_t
ngx_http_tokenward_advance(ngx_http_tokenward_ctx_t *ctx,
    ngx_http_tokenward_loc_conf_t *conf)
{
    ngx_int_t                  rc;
    const tokenward_wait      *wait;
    const tokenward_outbound  *outbound;

    for ( ;; ) {

        if (ctx->step == NULL) {
            return ngx_http_tokenward_fail(ctx, "has no step");
        }

        ctx->decision = tokenward_step_decision(ctx->step);

        if (ctx->decision) {
            return ngx_http_tokenward_conclude(ctx, conf);
        }

        outbound = tokenward_step_outbound(ctx->step);
        wait = outbound ? NULL : tokenward_step_wait(ctx->step);

        if (outbound) {
            rc = ngx_http_tokenward_call(ctx, conf, outbound);

        } else if (wait) {
            rc = ngx_http_tokenward_wait(ctx, wait);

        } else {
            rc = NGX_ERROR;
        }

        if (rc == NGX_AGAIN) {
            return ngx_http_tokenward_park(ctx);
        }

        if (rc != NGX_OK || ngx_http_tokenward_resume(ctx) != NGX_OK) {
            return ngx_http_tokenward_fail(ctx, "cannot wait");
        }
    }
}


/* What was awaited is there. */

static ngx_int_t
ngx_http_tokenward_resume(ngx_http_tokenward_ctx_t *ctx)
{
    tokenward_time       now;
    ngx_http_request_t  *r;

    r = ctx->request;

    if (ctx->timer && ctx->timer->timer_set) {
        ngx_del_timer(ctx->timer);
    }

    r->read_event_handler = ngx_http_block_reading;

    if (ctx->step == NULL) {
        return NGX_ERROR;
    }

    ctx->woken = 0;

    if (ctx->call) {
        return ngx_http_tokenward_call_reply(ctx);
    }

    ctx->waiting = 0;

    now = ngx_http_tokenward_now();

    switch (tokenward_step_resume(ctx->step, &now)) {

    case TOKENWARD_OK:
    case TOKENWARD_PANIC:      /* the step holds a refusal */
        return NGX_OK;

    case TOKENWARD_FREED:
        ctx->step = NULL;
        /* fall through */

    default:
        return NGX_ERROR;
    }
}


static ngx_int_t
ngx_http_tokenward_wait(ngx_http_tokenward_ctx_t *ctx,
    const tokenward_wait *wait)
{
    uint64_t  deadline;

    deadline = tokenward_wait_deadline_us(wait);

    ctx->waiting = 1;
    ctx->woken = 0;

    switch (tokenward_step_on_ready(ctx->step, ngx_http_tokenward_ready, ctx)) {

    case TOKENWARD_OK:
        break;

    case TOKENWARD_FREED:
        ctx->step = NULL;
        /* fall through */

    default:
        ctx->waiting = 0;
        return NGX_ERROR;
    }

    if (ctx->woken) {
        return NGX_OK;
    }

    return ngx_http_tokenward_set_timer(ctx, ngx_http_tokenward_wait_timeout,
                                        deadline);
}


/* In the midst of another request's work: only a note is taken. */

static void
ngx_http_tokenward_ready(void *userdata, bool ready)
{
    ngx_http_tokenward_ctx_t  *ctx = userdata;

    if (ready && ctx->waiting) {
        ngx_http_tokenward_wake(ctx);
    }
}


static void
ngx_http_tokenward_wait_timeout(ngx_event_t *ev)
{
    ngx_http_tokenward_wake(ev->data);
}


/* NGX_AGAIN: the timer runs. */

ngx_int_t
ngx_http_tokenward_set_timer(ngx_http_tokenward_ctx_t *ctx,
    ngx_event_handler_pt handler, uint64_t deadline_us)
{
    uint64_t             now;
    ngx_msec_t           timeout;
    ngx_http_cleanup_t  *cln;
    ngx_http_request_t  *r;

    r = ctx->request;

    if (ctx->timer == NULL) {
        ctx->timer = ngx_pcalloc(r->pool, sizeof(ngx_event_t));
        if (ctx->timer == NULL) {
            return NGX_ERROR;
        }

        /* a client that goes away leaves its place to others at once */

        cln = ngx_http_cleanup_add(r, 0);
        if (cln == NULL) {
            ctx->timer = NULL;
            return NGX_ERROR;
        }

        cln->handler = ngx_http_tokenward_drop;
        cln->data = ctx;
    }

    ctx->timer->handler = handler;
    ctx->timer->data = ctx;
    ctx->timer->log = r->connection->log;

    now = (uint64_t) ngx_current_msec * 1000;
    timeout = 0;

    if (deadline_us > now) {
        timeout = (ngx_msec_t) ngx_min((deadline_us - now + 999) / 1000,
                                       (uint64_t) NGX_MAX_INT32_VALUE);
    }

    ngx_add_timer(ctx->timer, timeout);

    return NGX_AGAIN;
}


/* The request sleeps; only its client's going away is heeded. */

static ngx_int_t
ngx_http_tokenward_park(ngx_http_tokenward_ctx_t *ctx)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = ctx->request;
    c = r->connection;

    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_request_empty_handler;

    if (c->read->ready) {
        ngx_post_event(c->read, &ngx_posted_events);

    } else if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
        return ngx_http_tokenward_fail(ctx, "cannot read");
    }

    return NGX_AGAIN;
}


/*
 * The phases are entered again by the connection's own event, which goes with
 * the connection: a request that is no more cannot be woken.
 */

void
ngx_http_tokenward_wake(ngx_http_tokenward_ctx_t *ctx)
{
    ngx_http_request_t  *r;

    r = ctx->request;

    if (ctx->woken) {
        return;
    }

    ctx->woken = 1;

    r->write_event_handler = ngx_http_core_run_phases;

    ngx_post_event(r->connection->write, &ngx_posted_events);
}


static ngx_int_t
ngx_http_tokenward_conclude(ngx_http_tokenward_ctx_t *ctx,
    ngx_http_tokenward_loc_conf_t *conf)
{
    if (!tokenward_decision_is_allow(ctx->decision)) {
        return ngx_http_tokenward_refuse(ctx);
    }

    if (ngx_http_tokenward_apply(ctx) != NGX_OK) {
        return ngx_http_tokenward_fail(ctx, "cannot apply the edits");
    }

    ctx->allowed = 1;

    return NGX_DECLINED;
}


/*
 * nginx's own status: satisfy and error_page do what they always do. The body
 * comes from the filters, if nginx makes the answer itself.
 */

static ngx_int_t
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

static ngx_int_t
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

static void
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

static ngx_int_t
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

    ngx_http_tokenward_drop(ctx);

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
