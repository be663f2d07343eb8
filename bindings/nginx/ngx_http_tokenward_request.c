
/*
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The phases. A request begins, waits where it has to, and goes on or is
 * refused; whatever goes wrong on the way refuses it.
 */

#include "ngx_http_tokenward.h"


/* Header lines of nearly every request; others are on the request's pool. */
#define NGX_HTTP_TOKENWARD_FEW       32


static ngx_int_t ngx_http_tokenward_access(ngx_http_request_t *r,
    ngx_uint_t satisfy);
static ngx_uint_t ngx_http_tokenward_is_outgrown(ngx_http_tokenward_ctx_t *ctx,
    ngx_http_request_t *r);
static ngx_int_t ngx_http_tokenward_handle(ngx_http_request_t *r,
    ngx_http_tokenward_loc_conf_t *conf);
static ngx_int_t ngx_http_tokenward_read_body(ngx_http_tokenward_ctx_t *ctx);
static void ngx_http_tokenward_body_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_tokenward_begin(ngx_http_tokenward_ctx_t *ctx,
    ngx_http_tokenward_loc_conf_t *conf);
static ngx_int_t ngx_http_tokenward_advance(ngx_http_tokenward_ctx_t *ctx,
    ngx_http_tokenward_loc_conf_t *conf);
static ngx_int_t ngx_http_tokenward_conclude(ngx_http_tokenward_ctx_t *ctx,
    ngx_http_tokenward_loc_conf_t *conf);


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


/*
 * Entered again before the content: any module may end PREACCESS with NGX_OK
 * before it has come to this one.
 */

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
            && ctx->source == conf->source && ctx->policy == conf->policy
            && !ngx_http_tokenward_is_outgrown(ctx, r))
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
 * A preflight request is let through for what it is. nginx makes a GET of it
 * for the page of an error, and for a subrequest: nobody has allowed these.
 */

static ngx_uint_t
ngx_http_tokenward_is_outgrown(ngx_http_tokenward_ctx_t *ctx,
    ngx_http_request_t *r)
{
    return ctx->allowed
           && r->method != NGX_HTTP_OPTIONS
           && tokenward_decision_identity(ctx->decision)
              == TOKENWARD_IDENTITY_NONE;
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

        ctx->source = conf->source;
        ctx->policy = conf->policy;

        if (r->headers_in.content_length_n <= 0 && !r->headers_in.chunked
            && !r->connection->error)
        {
            return ngx_http_tokenward_begin(ctx, conf);
        }

    } else {
        ngx_http_set_ctx(r, ctx, ngx_http_tokenward_module);
    }

    if (ctx->source != conf->source || ctx->policy != conf->policy
        || ngx_http_tokenward_is_outgrown(ctx, r))
    {

        /* another configuration: what the client sent is looked at anew */

        if (r->method != NGX_HTTP_OPTIONS
            && ctx->method.len == 7
            && ngx_strncmp(ctx->method.data, "OPTIONS", 7) == 0)
        {
            /* nothing of it is a preflight any more */

            ctx->method = r->method_name;
        }

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

    if (r->connection->error) {

        /* a post_action or an error_page of a client that is gone */

        return NGX_HTTP_CLIENT_CLOSED_REQUEST;
    }

    if ((ctx->call || ctx->waiting) && !ctx->woken) {
        return ngx_http_tokenward_park(ctx);
    }

    if (ctx->call || ctx->waiting) {
        return ngx_http_tokenward_resume(ctx) == NGX_OK
               ? ngx_http_tokenward_advance(ctx, conf)
               : ngx_http_tokenward_fail(ctx, "cannot go on");
    }

    if (ctx->body_asked && !ctx->body_read
        && r->internal && (r->err_status || r->error_page))
    {

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


/*
 * Where few lines count, this is past those that do not: what counts begins
 * with au, or with x, a separator, and a or c, and is longer than ten bytes.
 */

static ngx_inline ngx_uint_t
ngx_http_tokenward_may_count(ngx_table_elt_t *h)
{
    u_char  *name;

    name = h->key.data;

    if (h->key.len <= 10) {
        return 0;
    }

    if ((name[0] | 0x20) == 'a') {
        return (name[1] | 0x20) == 'u';
    }

    return (name[0] | 0x20) == 'x'
           && ((name[2] | 0x20) == 'c' || (name[2] | 0x20) == 'a');
}


static ngx_inline ngx_uint_t
ngx_http_tokenward_may_be_lean(ngx_http_tokenward_ctx_t *ctx)
{
    if (!(ctx->policy ? ctx->policy->lean : ctx->source->lean)) {
        return 0;
    }

    return (ctx->method.len == 3
            && ngx_memcmp(ctx->method.data, "GET", 3) == 0)
           || (ctx->method.len == 4
               && ngx_memcmp(ctx->method.data, "HEAD", 4) == 0);
}


/* A view of what the client sent, over nginx's own memory. */

ngx_int_t
ngx_http_tokenward_view(ngx_http_tokenward_ctx_t *ctx,
    tokenward_request *request, tokenward_header *few, ngx_uint_t nfew)
{
    u_char                 *p;
    ngx_uint_t              n, lean;
    ngx_table_elt_t        *h, *end;
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

    lean = ngx_http_tokenward_may_be_lean(ctx);

    ctx->ncredentials = 0;

    for (part = &ctx->headers.part; part; part = part->next) {
        h = part->elts;
        end = h + part->nelts;

        for ( /* void */ ; h < end; h++) {

            if (ngx_http_tokenward_may_count(h)) {
                if (h->key.len == sizeof("Authorization") - 1
                    && (h->key.data[0] | 0x20) == 'a')
                {
                    ctx->ncredentials++;
                    ctx->credential = h;
                }

            } else if (lean) {
                continue;
            }

            header->name = ngx_http_tokenward_str(&h->key);
            header->value = ngx_http_tokenward_str(&h->value);
            header++;
        }
    }

    request->headers_len = header - request->headers;

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
    tokenward_brief     brief;
    tokenward_header    few[NGX_HTTP_TOKENWARD_FEW];
    tokenward_request   request;

    if (ngx_http_tokenward_view(ctx, &request, few, NGX_HTTP_TOKENWARD_FEW)
        != NGX_OK)
    {
        return ngx_http_tokenward_fail(ctx, "has no memory");
    }

    now = ngx_http_tokenward_now();

    if (tokenward_begin_brief(ctx->source->introspector,
                              ctx->policy ? ctx->policy->policy : NULL,
                              &request, &now, &brief, sizeof(tokenward_brief))
        != TOKENWARD_OK)
    {
        return ngx_http_tokenward_fail(ctx, "cannot begin");
    }

    ctx->step = brief.step;

    if (brief.allow) {
        ctx->decision = brief.decision;

        if (ngx_http_tokenward_apply_again(ctx, &brief) == NGX_OK) {
            ctx->allowed = 1;
            return NGX_DECLINED;
        }
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
