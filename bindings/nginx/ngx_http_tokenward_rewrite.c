
/*
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Targets and bodies without the credential, and variables that have to be asked
 * again.
 */

#include "ngx_http_tokenward.h"


typedef struct {
    ngx_uint_t                    index;
    ngx_uint_t                    what;
} ngx_http_tokenward_stale_t;


static ngx_str_t ngx_http_tokenward_query(ngx_str_t *target);
static ngx_int_t ngx_http_tokenward_new_args(ngx_http_tokenward_ctx_t *ctx,
    ngx_str_t *args);


/*
 * Without the credential: what is passed on, what variables show, and the
 * request line that goes to logs.
 */

ngx_int_t
ngx_http_tokenward_new_target(ngx_http_tokenward_ctx_t *ctx,
    tokenward_str *target)
{
    u_char              *p;
    ngx_str_t            args, line;
    ngx_http_request_t  *r;

    r = ctx->request;

    r->unparsed_uri.data = (u_char *) target->data;
    r->unparsed_uri.len = target->len;

    args = ngx_http_tokenward_query(&r->unparsed_uri);

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


/* What nginx takes for the query of a target: it ends where a fragment begins. */

static ngx_str_t
ngx_http_tokenward_query(ngx_str_t *target)
{
    u_char     *p, *last;
    ngx_str_t   query;

    ngx_str_null(&query);

    last = target->data + target->len;
    p = ngx_strlchr(target->data, last, '?');

    if (p) {
        query.data = p + 1;
        p = ngx_strlchr(query.data, last, '#');
        query.len = (p ? p : last) - query.data;
    }

    return query;
}


/*
 * A rewrite may have put the client's query behind one of its own, or more
 * than once: it is replaced wherever it stands.
 */

static ngx_int_t
ngx_http_tokenward_new_args(ngx_http_tokenward_ctx_t *ctx, ngx_str_t *args)
{
    u_char              *p, *last;
    ngx_str_t            query, made;
    ngx_http_request_t  *r;

    r = ctx->request;
    query = ngx_http_tokenward_query(&ctx->target);

    if (query.len == 0 || r->args.len < query.len) {
        return NGX_OK;
    }

    p = r->args.data;
    last = r->args.data + r->args.len;

    if (r->args.len == query.len && ngx_memcmp(p, query.data, query.len) == 0) {
        r->args = *args;
        return NGX_OK;
    }

    /* each is replaced by what is shorter */

    made.len = 0;
    made.data = ngx_pnalloc(r->pool, r->args.len);
    if (made.data == NULL) {
        return NGX_ERROR;
    }

    while (p < last) {

        if ((size_t) (last - p) < query.len
            || ngx_memcmp(p, query.data, query.len) != 0)
        {
            made.data[made.len++] = *p++;
            continue;
        }

        if (args->len) {
            ngx_memcpy(made.data + made.len, args->data, args->len);
            made.len += args->len;

        } else if (made.len && made.data[made.len - 1] == '&') {
            made.len--;
        }

        p += query.len;
    }

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


ngx_int_t
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

void
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
