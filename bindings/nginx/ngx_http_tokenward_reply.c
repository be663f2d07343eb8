
/*
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The answer to a call: taken as it comes, and told to the step that waits.
 */

#include "ngx_http_tokenward.h"


/* The answer's header section, from the filter. */

void
ngx_http_tokenward_call_header(ngx_http_tokenward_call_t *call)
{
    ngx_http_request_t  *sr;

    sr = call->request;

    if (sr->upstream == NULL || call->over) {
        return;
    }

    call->answered = 1;
    call->status = sr->upstream->headers_in.status_n;
}


/*
 * A piece of the answer's body. It is taken here, so that no buffer of nginx's
 * configuration bounds it. An error must not be returned, it would close the
 * client's connection: the upstream is told that this was all.
 */

void
ngx_http_tokenward_call_body(ngx_http_tokenward_call_t *call, ngx_chain_t *in)
{
    size_t                n, size;
    off_t                 known;
    u_char               *body, *grown;
    ngx_buf_t            *b;
    ngx_http_upstream_t  *u;

    u = call->request->upstream;

    for (/* void */ ; in; in = in->next) {
        b = in->buf;

        if (!ngx_buf_in_memory(b)) {
            if (b->in_file && call->failure == TOKENWARD_FAILURE_NONE) {
                call->failure = TOKENWARD_FAILURE_PROTOCOL;
            }

            continue;
        }

        n = b->last - b->pos;
        body = b->pos;
        b->pos = b->last;

        if (n == 0 || call->failure || call->over || u == NULL) {
            continue;
        }

        /* a byte over the limit is enough to tell, whatever the status */

        if (n > call->limit - call->length) {
            n = call->limit - call->length;
            u->length = 0;
            u->keepalive = 0;

            if (n == 0) {
                continue;
            }
        }

        if (call->length + n > call->size) {
            known = u->headers_in.content_length_n;

            size = ngx_max(call->size * 2, call->length + n);

            if (known > (off_t) size && known <= (off_t) call->limit) {
                size = known;
            }

            size = ngx_min(size, call->limit);

            grown = ngx_palloc(call->request->pool, size);
            if (grown == NULL) {
                call->failure = TOKENWARD_FAILURE_PROTOCOL;
                u->length = 0;
                u->keepalive = 0;
                continue;
            }

            if (call->length) {
                ngx_memcpy(grown, call->body, call->length);
                (void) ngx_pfree(call->request->pool, call->body);
            }

            call->body = grown;
            call->size = size;
        }

        ngx_memcpy(call->body + call->length, body, n);
        call->length += n;
    }
}


/* The step is told how the call went. */

ngx_int_t
ngx_http_tokenward_call_reply(ngx_http_tokenward_ctx_t *ctx)
{
    ngx_uint_t                  i, n;
    tokenward_time              now;
    tokenward_reply             reply;
    tokenward_result            rc;
    ngx_table_elt_t            *h;
    ngx_list_part_t            *part;
    tokenward_header           *header;
    ngx_connection_t           *c;
    ngx_http_tokenward_call_t  *call;

    call = ctx->call;
    ctx->call = NULL;
    call->ctx = NULL;

    if (!call->over) {
        ngx_http_tokenward_call_abort(call);
        return NGX_ERROR;
    }

    /* the upstream may have set it, and nobody writes to the client yet */

    c = ctx->request->connection;

    if (c->write->timer_set) {
        ngx_del_timer(c->write);
    }

    ngx_memzero(&reply, sizeof(tokenward_reply));

    reply.struct_size = sizeof(tokenward_reply);
    reply.failure = call->failure;

    ctx->failed = (call->failure == TOKENWARD_FAILURE_CONNECT
                   || call->failure == TOKENWARD_FAILURE_CLOSED);

    if (call->failure == TOKENWARD_FAILURE_NONE) {
        n = 0;

        for (part = &call->request->upstream->headers_in.headers.part;
             part;
             part = part->next)
        {
            n += part->nelts;
        }

        header = ngx_palloc(ctx->request->pool,
                            (n ? n : 1) * sizeof(tokenward_header));
        if (header == NULL) {
            return NGX_ERROR;
        }

        reply.status = call->status;
        reply.headers = header;
        reply.headers_len = n;
        reply.body.data = (const char *) call->body;
        reply.body.len = call->length;

        for (part = &call->request->upstream->headers_in.headers.part;
             part;
             part = part->next)
        {
            h = part->elts;

            for (i = 0; i < part->nelts; i++, header++) {
                header->name = ngx_http_tokenward_str(&h[i].key);
                header->value = ngx_http_tokenward_str(&h[i].value);
            }
        }
    }

    now = ngx_http_tokenward_now();

    rc = tokenward_step_reply(ctx->step, &reply, &now);

    if (rc == TOKENWARD_INVALID_ARGUMENT && reply.failure == 0) {

        /* a status that is none, say */

        reply.failure = TOKENWARD_FAILURE_PROTOCOL;
        rc = tokenward_step_reply(ctx->step, &reply, &now);
    }

    switch (rc) {

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
