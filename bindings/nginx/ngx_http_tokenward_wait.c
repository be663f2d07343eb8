
/*
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A request sleeps until an answer, another request or a timer wakes it.
 */

#include "ngx_http_tokenward.h"


static void ngx_http_tokenward_ready(void *userdata, bool ready);
static void ngx_http_tokenward_wait_timeout(ngx_event_t *ev);


/* What was awaited is there. */

ngx_int_t
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


ngx_int_t
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

ngx_int_t
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
