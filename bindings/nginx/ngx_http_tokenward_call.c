
/*
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * One introspection request: a background subrequest to the internal location
 * that proxies to the authorization server. It shares nothing with the request
 * that asks but the connection's log and the memory pool: not its headers, not
 * its body, not its variables.
 *
 * The upstream is reached between the making of it, by the location's handler,
 * and its start: r->aio holds ngx_http_upstream_init_request() back. There is
 * seen whether it would use TLS, and from there on is seen how it ends.
 */

#include "ngx_http_tokenward.h"


static ngx_int_t ngx_http_tokenward_call_shape(ngx_http_tokenward_call_t *call,
    const tokenward_outbound *outbound);
static void ngx_http_tokenward_call_broken(ngx_http_request_t *r);
static void ngx_http_tokenward_call_timeout(ngx_event_t *ev);
static ngx_int_t ngx_http_tokenward_call_content(ngx_http_request_t *r);
static ngx_int_t ngx_http_tokenward_call_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t ngx_http_tokenward_call_get_peer(ngx_peer_connection_t *pc,
    void *data);
static ngx_int_t ngx_http_tokenward_call_create_request(ngx_http_request_t *r);
static ngx_int_t ngx_http_tokenward_call_process_header(ngx_http_request_t *r);
static void ngx_http_tokenward_call_finalize(ngx_http_request_t *r,
    ngx_int_t rc);
static ngx_int_t ngx_http_tokenward_call_done(ngx_http_request_t *r, void *data,
    ngx_int_t rc);
static void ngx_http_tokenward_call_over(ngx_http_tokenward_call_t *call);
static void ngx_http_tokenward_call_stop(ngx_http_tokenward_call_t *call,
    ngx_uint_t failure);
static void ngx_http_tokenward_call_refuse(ngx_http_tokenward_call_t *call,
    const char *why);


typedef struct {
    ngx_http_upstream_conf_t       conf;    /* first: this is u->conf */
    ngx_http_tokenward_call_t     *call;
} ngx_http_tokenward_call_conf_t;


static ngx_str_t  ngx_http_tokenward_post = ngx_string("POST");


/* NGX_AGAIN: it is under way. */

ngx_int_t
ngx_http_tokenward_call(ngx_http_tokenward_ctx_t *ctx,
    ngx_http_tokenward_loc_conf_t *conf, const tokenward_outbound *outbound)
{
    ngx_int_t                    rc;
    ngx_str_t                    uri;
    ngx_http_request_t          *r;
    ngx_http_post_subrequest_t  *ps;
    ngx_http_tokenward_call_t   *call;

    r = ctx->request;

    call = ngx_pcalloc(r->pool, sizeof(ngx_http_tokenward_call_t));
    ps = ngx_palloc(r->pool, sizeof(ngx_http_post_subrequest_t));

    if (call == NULL || ps == NULL) {
        return NGX_ERROR;
    }

    call->ctx = ctx;
    call->conf = conf;
    call->fresh = ctx->failed;
    call->limit = ngx_max(ctx->source->reply_bytes,
                          ctx->source->reply_bytes + 1);

    ps->handler = ngx_http_tokenward_call_done;
    ps->data = call;

    rc = ngx_http_tokenward_set_timer(ctx, ngx_http_tokenward_call_timeout,
                                     tokenward_outbound_deadline_us(outbound));
    if (rc != NGX_AGAIN) {
        return NGX_ERROR;
    }

    uri = conf->endpoint;

    if (ngx_http_subrequest(r, &uri, NULL, &call->request, ps,
                            NGX_HTTP_SUBREQUEST_BACKGROUND)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    ctx->call = call;
    ctx->woken = 0;
    ctx->failed = 0;

    /* it is queued only: nothing has looked at it yet */

    if (ngx_http_tokenward_call_shape(call, outbound) != NGX_OK) {
        call->failure = TOKENWARD_FAILURE_PROTOCOL;
        ngx_http_tokenward_call_over(call);
    }

    return NGX_AGAIN;
}


static ngx_int_t
ngx_http_tokenward_call_shape(ngx_http_tokenward_call_t *call,
    const tokenward_outbound *outbound)
{
    u_char                     *p;
    size_t                      i, count;
    ngx_buf_t                  *b;
    ngx_table_elt_t            *h;
    tokenward_str               body;
    ngx_http_request_t         *r, *sr;
    const tokenward_header     *headers;
    ngx_http_core_main_conf_t  *cmcf;

    sr = call->request;
    r = sr->main;

    /* until it is complete it goes nowhere */

    sr->write_event_handler = ngx_http_tokenward_call_broken;

    if (tokenward_outbound_body(outbound, &body) != TOKENWARD_OK
        || tokenward_outbound_headers(outbound, &headers, &count)
           != TOKENWARD_OK)
    {
        return NGX_ERROR;
    }

    cmcf = ngx_http_get_module_main_conf(r, ngx_http_core_module);

    sr->variables = ngx_pcalloc(r->pool, cmcf->variables.nelts
                                         * sizeof(ngx_http_variable_value_t));
    sr->request_body = ngx_pcalloc(r->pool, sizeof(ngx_http_request_body_t));
    b = ngx_calloc_buf(r->pool);
    p = ngx_pnalloc(r->pool, NGX_SIZE_T_LEN);

    if (sr->variables == NULL || sr->request_body == NULL || b == NULL
        || p == NULL)
    {
        return NGX_ERROR;
    }

    sr->method = NGX_HTTP_POST;
    sr->method_name = ngx_http_tokenward_post;
    sr->header_only = 0;

    /* neither the client's host nor its addresses, user or cookies */

    ngx_memzero(&sr->headers_in, sizeof(ngx_http_headers_in_t));

    sr->headers_in.server = r->headers_in.server;
    sr->headers_in.content_length_n = body.len;
    sr->headers_in.keep_alive_n = -1;

    if (ngx_list_init(&sr->headers_in.headers, r->pool, count + 2,
                      sizeof(ngx_table_elt_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (i = 0; i <= count; i++) {
        h = ngx_list_push(&sr->headers_in.headers);
        if (h == NULL) {
            return NGX_ERROR;
        }

        if (i < count) {
            h->key.data = (u_char *) headers[i].name.data;
            h->key.len = headers[i].name.len;
            h->value.data = (u_char *) headers[i].value.data;
            h->value.len = headers[i].value.len;

        } else {
            ngx_str_set(&h->key, "Content-Length");
            h->value.data = p;
            h->value.len = ngx_sprintf(p, "%uz", body.len) - p;

            sr->headers_in.content_length = h;
        }

        h->lowcase_key = ngx_pnalloc(r->pool, h->key.len);
        if (h->lowcase_key == NULL) {
            return NGX_ERROR;
        }

        h->hash = ngx_hash_strlow(h->lowcase_key, h->key.data, h->key.len);

#if (nginx_version >= 1023000)
        h->next = NULL;
#endif

        if (h->key.len == sizeof("content-type") - 1
            && ngx_strncmp(h->lowcase_key, "content-type", h->key.len) == 0)
        {
            sr->headers_in.content_type = h;

        } else if (h->key.len == sizeof("authorization") - 1
                   && ngx_strncmp(h->lowcase_key, "authorization", h->key.len)
                      == 0)
        {
            sr->headers_in.authorization = h;
        }
    }

    b->start = (u_char *) body.data;
    b->pos = b->start;
    b->last = b->start + body.len;
    b->end = b->last;
    b->memory = 1;
    b->last_buf = 1;
    b->last_in_chain = 1;

    sr->request_body->bufs = ngx_alloc_chain_link(r->pool);
    if (sr->request_body->bufs == NULL) {
        return NGX_ERROR;
    }

    sr->request_body->bufs->buf = b;
    sr->request_body->bufs->next = NULL;
    sr->request_body->buf = b;

    /* what $request_uri and logs would show is the location, not the client's */

    sr->unparsed_uri = sr->uri;
    ngx_str_null(&sr->request_line);
    sr->discard_body = 0;

    sr->write_event_handler = ngx_http_handler;

    return NGX_OK;
}


static void
ngx_http_tokenward_call_broken(ngx_http_request_t *r)
{
    ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
}


/* Whether a request is a call of ours: whatever cleared its contexts. */

ngx_http_tokenward_call_t *
ngx_http_tokenward_call_of(ngx_http_request_t *r)
{
    if (r->post_subrequest
        && r->post_subrequest->handler == ngx_http_tokenward_call_done)
    {
        return r->post_subrequest->data;
    }

    return NULL;
}


/* The location is settled now: it is looked at before its handler runs. */

ngx_int_t
ngx_http_tokenward_call_preaccess(ngx_http_request_t *r)
{
    ngx_http_core_loc_conf_t   *clcf;
    ngx_http_tokenward_call_t  *call;

    call = ngx_http_tokenward_call_of(r);
    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (call->ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (!clcf->internal) {
        ngx_http_tokenward_call_refuse(call, "is not \"internal\"");
        return NGX_HTTP_BAD_GATEWAY;
    }

    if (r->content_handler == NULL
        || r->content_handler == ngx_http_tokenward_metrics_handler)
    {
        ngx_http_tokenward_call_refuse(call, "does not proxy");
        return NGX_HTTP_BAD_GATEWAY;
    }

    r->content_handler = ngx_http_tokenward_call_content;

    /*
     * The rest of the phase is passed over: limit_req and limit_conn count a
     * main request once, and would take this for the client's.
     */

    return NGX_OK;
}


static ngx_int_t
ngx_http_tokenward_call_content(ngx_http_request_t *r)
{
    ngx_int_t                        rc;
    ngx_http_upstream_t             *u;
    ngx_http_upstream_conf_t        *ucf;
    ngx_http_core_loc_conf_t        *clcf;
    ngx_http_tokenward_call_t       *call;
    ngx_http_upstream_srv_conf_t    *uscf;
    ngx_http_tokenward_call_conf_t  *conf;

    call = ngx_http_tokenward_call_of(r);
    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (call == NULL || call->ctx == NULL || clcf->handler == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    /* made, and not started */

    r->aio = 1;
    rc = clcf->handler(r);
    r->aio = 0;

    u = r->upstream;

    if (rc != NGX_DONE) {
        ngx_http_tokenward_call_refuse(call, "does not proxy");
        return rc;
    }

    if (u == NULL || u->conf == NULL) {
        ngx_http_tokenward_call_refuse(call, "does not proxy");
        return NGX_DONE;
    }

    if (u->cleanup) {
        ngx_http_tokenward_call_refuse(call, "is proxied too soon");
        (*u->cleanup)(r);
        return NGX_HTTP_BAD_GATEWAY;
    }

#if (NGX_HTTP_SSL)

    if (call->ctx->source->https && !call->conf->insecure
        && !(u->ssl && u->conf->ssl_verify == 1
             && u->conf->ssl_server_name == 1))
    {
        ngx_http_tokenward_call_refuse(call, "does not verify the server: it "
                       "needs \"proxy_pass https://...\", \"proxy_ssl_verify "
                       "on\" and \"proxy_ssl_server_name on\"");
        goto refused;
    }

#else

    if (call->ctx->source->https && !call->conf->insecure) {
        ngx_http_tokenward_call_refuse(call, "has no TLS in this nginx");
        goto refused;
    }

#endif

    conf = ngx_palloc(r->pool, sizeof(ngx_http_tokenward_call_conf_t));
    if (conf == NULL) {
        goto refused;
    }

    ucf = &conf->conf;
    conf->call = call;

    /*
     * Answers about tokens are cached by nobody else, reach no disk, and do
     * not redirect; the timer and the client are looked after by the request
     * that asks.
     */

    *ucf = *u->conf;

#if (NGX_HTTP_CACHE)
    ucf->cache = 0;
#endif
    ucf->store = 0;
    ucf->buffering = 0;
    ucf->intercept_errors = 0;
    ucf->intercept_404 = 0;
    ucf->ignore_client_abort = 1;
    ucf->ignore_headers = ~(ngx_uint_t) 0;
    ucf->limit_rate = 0;

    if (call->fresh && ucf->upstream) {
        uscf = ngx_palloc(r->pool, sizeof(ngx_http_upstream_srv_conf_t));
        if (uscf == NULL) {
            goto refused;
        }

        call->upstream = ucf->upstream;

        *uscf = *ucf->upstream;
        uscf->peer.init = ngx_http_tokenward_call_init_peer;
        ucf->upstream = uscf;
    }

    u->conf = ucf;
    u->buffering = 0;
    u->rewrite_redirect = NULL;
    u->rewrite_cookie = NULL;

    call->create_request = u->create_request;
    call->process_header = u->process_header;
    call->finalize_request = u->finalize_request;

    u->create_request = ngx_http_tokenward_call_create_request;
    u->process_header = ngx_http_tokenward_call_process_header;
    u->finalize_request = ngx_http_tokenward_call_finalize;

    ngx_http_upstream_init(r);

    return NGX_DONE;

refused:

    /* the handler has counted on being called back */

    ngx_http_finalize_request(r, NGX_DONE);

    return NGX_HTTP_BAD_GATEWAY;
}


/*
 * What is tried again goes over a new connection: those that are kept may all
 * be as dead as the one that failed.
 */

static ngx_int_t
ngx_http_tokenward_call_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us)
{
    ngx_int_t                   rc;
    ngx_http_tokenward_call_t  *call;

    call = ngx_http_tokenward_call_of(r);

    if (call == NULL) {
        return NGX_ERROR;
    }

    rc = call->upstream->peer.init(r, call->upstream);

    if (rc == NGX_OK) {
        call->get_peer = r->upstream->peer.get;
        r->upstream->peer.get = ngx_http_tokenward_call_get_peer;
    }

    return rc;
}


static ngx_int_t
ngx_http_tokenward_call_get_peer(ngx_peer_connection_t *pc, void *data)
{
    ngx_int_t                        rc;
    ngx_pool_t                      *pool;
    ngx_connection_t                *c;
    ngx_http_upstream_t             *u;
    ngx_http_tokenward_call_conf_t  *conf;

    u = (ngx_http_upstream_t *)
            ((u_char *) pc - offsetof(ngx_http_upstream_t, peer));
    conf = (ngx_http_tokenward_call_conf_t *) u->conf;

    rc = conf->call->get_peer(pc, data);

    if (rc != NGX_DONE || pc->connection == NULL) {
        return rc;
    }

    /* a kept one: closed as nginx does, and the same address connected to */

    c = pc->connection;
    pc->connection = NULL;
    pc->cached = 0;

#if (NGX_HTTP_SSL)

    if (c->ssl) {
        c->ssl->no_wait_shutdown = 1;
        c->ssl->no_send_shutdown = 1;

        (void) ngx_ssl_shutdown(c);
    }

#endif

    pool = c->pool;
    ngx_close_connection(c);

    if (pool) {
        ngx_destroy_pool(pool);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_tokenward_call_create_request(ngx_http_request_t *r)
{
    ngx_int_t                   rc;
    ngx_http_tokenward_call_t  *call;

    call = ngx_http_tokenward_call_of(r);

    if (call == NULL || call->ctx == NULL) {
        return NGX_ERROR;
    }

    rc = call->create_request(r);

    /* the query of introspection_url is a secret, and this goes to logs alone */

    r->upstream->uri.len = 0;

    return rc;
}


/* A parser that changes hands on the way is followed. */

static ngx_int_t
ngx_http_tokenward_call_process_header(ngx_http_request_t *r)
{
    ngx_int_t                   rc;
    ngx_http_upstream_t        *u;
    ngx_http_tokenward_call_t  *call;

    u = r->upstream;
    call = ngx_http_tokenward_call_of(r);

    if (call == NULL) {
        return NGX_ERROR;
    }

    u->process_header = call->process_header;

    rc = call->process_header(r);

    call->process_header = u->process_header;
    u->process_header = ngx_http_tokenward_call_process_header;

    if (rc == NGX_HTTP_UPSTREAM_INVALID_HEADER || rc == NGX_ERROR
        || (rc == NGX_AGAIN && u->buffer.last == u->buffer.end))
    {
        call->failure = TOKENWARD_FAILURE_PROTOCOL;
    }

    return rc;
}


/* How it ended: the connection is still there to be looked at. */

static void
ngx_http_tokenward_call_finalize(ngx_http_request_t *r, ngx_int_t rc)
{
    ngx_connection_t           *c;
    ngx_http_upstream_t        *u;
    ngx_http_tokenward_call_t  *call;

    u = r->upstream;
    c = u->peer.connection;
    call = ngx_http_tokenward_call_of(r);

    if (call == NULL) {
        return;
    }

    call->finalize_request(r, rc);

    if (call->failure) {
        return;
    }

    if (call->answered) {

        /* complete: by its length, by its last chunk, or by the end */

        if (rc != NGX_OK || (u->length != 0 && u->length != -1)) {
            call->failure = (rc == NGX_HTTP_GATEWAY_TIME_OUT)
                            ? TOKENWARD_FAILURE_TIMED_OUT
                            : TOKENWARD_FAILURE_CUT_OFF;
        }

        return;
    }

    if (rc == NGX_HTTP_GATEWAY_TIME_OUT) {
        call->failure = TOKENWARD_FAILURE_TIMED_OUT;

    } else if (u->request_sent) {
        call->failure = TOKENWARD_FAILURE_CLOSED;

    } else if (c == NULL && u->resolved && u->resolved->sockaddr == NULL
               && u->resolved->naddrs == 0)
    {
        call->failure = TOKENWARD_FAILURE_DNS;

#if (NGX_HTTP_SSL)

    } else if (c && c->ssl) {
        call->failure = TOKENWARD_FAILURE_TLS;

#endif

    } else {
        call->failure = TOKENWARD_FAILURE_CONNECT;
    }
}


/* nginx may call it more than once. It never brings the client's request down. */

static ngx_int_t
ngx_http_tokenward_call_done(ngx_http_request_t *r, void *data, ngx_int_t rc)
{
    ngx_http_tokenward_call_t  *call = data;

    if (!call->over && !call->answered
        && call->failure == TOKENWARD_FAILURE_NONE)
    {
        call->failure = TOKENWARD_FAILURE_PROTOCOL;
    }

    ngx_http_tokenward_call_over(call);

    return NGX_OK;
}


static void
ngx_http_tokenward_call_over(ngx_http_tokenward_call_t *call)
{
    if (call->over) {
        return;
    }

    call->over = 1;

    if (call->ctx) {
        ngx_http_tokenward_wake(call->ctx);
    }
}


static void
ngx_http_tokenward_call_timeout(ngx_event_t *ev)
{
    ngx_http_tokenward_ctx_t  *ctx = ev->data;

    if (ctx->call && !ctx->call->over) {
        ngx_http_tokenward_call_stop(ctx->call, TOKENWARD_FAILURE_TIMED_OUT);
    }
}


static void
ngx_http_tokenward_call_stop(ngx_http_tokenward_call_t *call,
    ngx_uint_t failure)
{
    call->failure = failure;
    ngx_http_tokenward_call_over(call);
    ngx_http_tokenward_call_abort(call);
}


/*
 * Nobody waits for it any more: the connection is closed. A subrequest that
 * has not come to its upstream goes its way, and is refused there.
 */

void
ngx_http_tokenward_call_abort(ngx_http_tokenward_call_t *call)
{
    ngx_http_request_t   *sr;
    ngx_http_upstream_t  *u;

    call->over = 1;

    sr = call->request;
    u = sr->upstream;

    if (u && u->cleanup) {
        sr->write_event_handler = ngx_http_request_empty_handler;
        (*u->cleanup)(sr);
    }
}


static void
ngx_http_tokenward_call_refuse(ngx_http_tokenward_call_t *call, const char *why)
{
    if (call->failure == TOKENWARD_FAILURE_NONE) {
        ngx_log_error(NGX_LOG_ALERT, ngx_cycle->log, 0,
                      "tokenward: the location of \"tokenward_endpoint %V\" "
                      "%s; nobody is asked", &call->conf->endpoint, why);
    }

    call->failure = TOKENWARD_FAILURE_PROTOCOL;
}
