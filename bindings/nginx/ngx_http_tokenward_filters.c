
/*
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Answers on their way: those to our calls end here, and refusals that nginx
 * answers itself get our body.
 */

#include "ngx_http_tokenward.h"


static ngx_int_t ngx_http_tokenward_header_filter(ngx_http_request_t *r);
static ngx_int_t ngx_http_tokenward_body_filter(ngx_http_request_t *r,
    ngx_chain_t *in);
static ngx_int_t ngx_http_tokenward_refusal(ngx_http_tokenward_ctx_t *ctx);
static ngx_int_t ngx_http_tokenward_response(ngx_http_tokenward_ctx_t *ctx);
static ngx_int_t ngx_http_tokenward_make_private(ngx_http_request_t *r);
static u_char *ngx_http_tokenward_directives(u_char *p, ngx_str_t *value);


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;
static ngx_http_output_body_filter_pt    ngx_http_next_body_filter;


ngx_int_t
ngx_http_tokenward_filter_init(ngx_conf_t *cf)
{
    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_tokenward_header_filter;

    ngx_http_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_tokenward_body_filter;

    return NGX_OK;
}


static ngx_int_t
ngx_http_tokenward_header_filter(ngx_http_request_t *r)
{
    ngx_http_tokenward_ctx_t   *ctx;
    ngx_http_tokenward_call_t  *call;

    if (r != r->main) {
        call = ngx_http_tokenward_call_of(r);

        if (call) {
            ngx_http_tokenward_call_header(call);
            r->header_sent = 1;
            return NGX_OK;
        }

        return ngx_http_next_header_filter(r);
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_tokenward_module);

    /*
     * An error_page has no context, unless it is refused itself; what another
     * module has allowed instead has no error.
     */

    if (ctx && ctx->refused && ctx->decision
        && r->err_status == ctx->status
        && r->headers_out.status == ctx->status)
    {
        if (ngx_http_tokenward_refusal(ctx) != NGX_OK) {
            return NGX_ERROR;
        }

        return ngx_http_next_header_filter(r);
    }

    if (ctx == NULL) {
        ctx = ngx_http_tokenward_ctx(r);
    }

    if (ctx && ctx->allowed && ctx->wanted
        && r->headers_out.status >= NGX_HTTP_OK
        && r->headers_out.status < NGX_HTTP_SPECIAL_RESPONSE
        && ngx_http_tokenward_response(ctx) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_next_header_filter(r);
}


static ngx_int_t
ngx_http_tokenward_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_buf_t                  *b;
    ngx_chain_t                 out, *cl;
    tokenward_str               body;
    ngx_http_tokenward_ctx_t   *ctx;
    ngx_http_tokenward_call_t  *call;

    if (r != r->main) {
        call = ngx_http_tokenward_call_of(r);

        if (call) {
            ngx_http_tokenward_call_body(call, in);
            return NGX_OK;
        }

        return ngx_http_next_body_filter(r, in);
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_tokenward_module);

    if (ctx == NULL || !ctx->replacing || in == NULL) {
        return ngx_http_next_body_filter(r, in);
    }

    /* nginx's own page goes unsent */

    for (cl = in; cl; cl = cl->next) {
        cl->buf->pos = cl->buf->last;
    }

    if (ctx->replaced) {
        return ngx_http_next_body_filter(r, NULL);
    }

    ctx->replaced = 1;

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_ERROR;
    }

    if (tokenward_decision_refusal_body(ctx->decision, &body) == TOKENWARD_OK
        && body.len)
    {
        b->pos = (u_char *) body.data;
        b->last = b->pos + body.len;
        b->memory = 1;
    }

    b->last_buf = 1;
    b->last_in_chain = 1;

    out.buf = b;
    out.next = NULL;

    return ngx_http_next_body_filter(r, &out);
}


static ngx_int_t
ngx_http_tokenward_refusal(ngx_http_tokenward_ctx_t *ctx)
{
    size_t                   i, count;
    u_char                  *p;
    ngx_str_t                name;
    ngx_table_elt_t         *h;
    tokenward_str            body;
    ngx_http_request_t      *r;
    const tokenward_header  *headers;

    r = ctx->request;

    if (tokenward_decision_refusal_headers(ctx->decision, &headers, &count)
        != TOKENWARD_OK)
    {
        return NGX_ERROR;
    }

    for (i = 0; i < count; i++) {
        name.data = (u_char *) headers[i].name.data;
        name.len = headers[i].name.len;

        if (name.len == sizeof("Content-Type") - 1
            && ngx_strncasecmp(name.data, (u_char *) "Content-Type", name.len)
               == 0)
        {
            r->headers_out.content_type.data = (u_char *) headers[i].value.data;
            r->headers_out.content_type.len = headers[i].value.len;
            r->headers_out.content_type_lowcase = NULL;

            p = ngx_strlchr(r->headers_out.content_type.data,
                            r->headers_out.content_type.data
                            + r->headers_out.content_type.len, ';');

            r->headers_out.content_type_len =
                             p ? (size_t) (p - r->headers_out.content_type.data)
                               : r->headers_out.content_type.len;

        } else if (name.len == sizeof("Cache-Control") - 1
                   && ngx_strncasecmp(name.data, (u_char *) "Cache-Control",
                                      name.len)
                      == 0)
        {
            h = ngx_list_push(&r->headers_out.headers);
            if (h == NULL) {
                return NGX_ERROR;
            }

            h->hash = 1;
            h->key = name;
            h->value.data = (u_char *) headers[i].value.data;
            h->value.len = headers[i].value.len;
            h->lowcase_key = NULL;
#if (nginx_version >= 1023000)
            h->next = NULL;
#endif
        }

        /* the challenge and Retry-After are there already */
    }

    if (r->headers_out.content_length) {
        r->headers_out.content_length->hash = 0;
        r->headers_out.content_length = NULL;
    }

    if (tokenward_decision_refusal_body(ctx->decision, &body) == TOKENWARD_OK) {
        r->headers_out.content_length_n = body.len;

    } else {
        r->headers_out.content_length_n = -1;
    }

    ctx->replacing = 1;

    return NGX_OK;
}


/* Lines that every 2xx answer gets: Cache-Control takes the place of others. */

static ngx_int_t
ngx_http_tokenward_response(ngx_http_tokenward_ctx_t *ctx)
{
    size_t                   i, count;
    ngx_table_elt_t         *h;
    ngx_http_request_t      *r;
    const tokenward_header  *headers;

    r = ctx->request;

    if (tokenward_decision_response_headers(ctx->decision, &headers, &count)
        != TOKENWARD_OK)
    {
        return NGX_ERROR;
    }

    for (i = 0; i < count; i++) {

        if (headers[i].name.len == sizeof("Cache-Control") - 1
            && headers[i].value.len == sizeof("private") - 1
            && ngx_strncasecmp((u_char *) headers[i].name.data,
                               (u_char *) "Cache-Control", headers[i].name.len)
               == 0
            && ngx_strncmp(headers[i].value.data, "private",
                           headers[i].value.len)
               == 0)
        {
            if (ngx_http_tokenward_make_private(r) != NGX_OK) {
                return NGX_ERROR;
            }

            continue;
        }

        h = ngx_list_push(&r->headers_out.headers);
        if (h == NULL) {
            return NGX_ERROR;
        }

        h->hash = 1;
        h->key.data = (u_char *) headers[i].name.data;
        h->key.len = headers[i].name.len;
        h->value.data = (u_char *) headers[i].value.data;
        h->value.len = headers[i].value.len;
        h->lowcase_key = NULL;
#if (nginx_version >= 1023000)
        h->next = NULL;
#endif
    }

    return NGX_OK;
}


/* What the upstream says of caching, but for what is about shared caches. */

static ngx_int_t
ngx_http_tokenward_make_private(ngx_http_request_t *r)
{
    u_char           *p, *start;
    size_t            len;
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h, *first;

    first = NULL;
    len = sizeof("private") - 1;
    part = &r->headers_out.headers.part;

    for (/* void */ ; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (h[i].hash
                && h[i].key.len == sizeof("Cache-Control") - 1
                && ngx_strncasecmp(h[i].key.data, (u_char *) "Cache-Control",
                                   sizeof("Cache-Control") - 1)
                   == 0)
            {
                len += 2 * h[i].value.len + 2;

                if (first == NULL) {
                    first = &h[i];
                }
            }
        }
    }

    start = ngx_pnalloc(r->pool, len);
    if (start == NULL) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(start, "private", sizeof("private") - 1);

    for (part = &r->headers_out.headers.part; first && part; part = part->next)
    {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (h[i].hash
                && h[i].key.len == sizeof("Cache-Control") - 1
                && ngx_strncasecmp(h[i].key.data, (u_char *) "Cache-Control",
                                   sizeof("Cache-Control") - 1)
                   == 0)
            {
                p = ngx_http_tokenward_directives(p, &h[i].value);

                if (&h[i] != first) {
                    h[i].hash = 0;
                }
            }
        }
    }

    if (first == NULL) {
        first = ngx_list_push(&r->headers_out.headers);
        if (first == NULL) {
            return NGX_ERROR;
        }

        first->hash = 1;
        first->lowcase_key = NULL;
        ngx_str_set(&first->key, "Cache-Control");
#if (nginx_version >= 1023000)
        first->next = NULL;
#endif
    }

    first->value.data = start;
    first->value.len = p - start;

    return NGX_OK;
}


/* Each directive, quoted commas heeded, with ", " in front. */

static u_char *
ngx_http_tokenward_directives(u_char *p, ngx_str_t *value)
{
    size_t       n, i;
    u_char      *begin, *end, *last;
    ngx_uint_t   quoted, shared;

    static ngx_str_t  about[] = {
        ngx_string("public"), ngx_string("private"), ngx_string("s-maxage")
    };

    last = value->data + value->len;

    for (begin = value->data; begin < last; begin = end + 1) {
        quoted = 0;

        for (end = begin; end < last && (quoted || *end != ','); end++) {
            if (*end == '"') {
                quoted = !quoted;

            } else if (*end == '\\' && quoted && end + 1 < last) {
                end++;
            }
        }

        while (begin < end && (*begin == ' ' || *begin == '\t')) {
            begin++;
        }

        for (n = end - begin; n && (begin[n - 1] == ' ' || begin[n - 1] == '\t');
             n--)
        {
            /* void */
        }

        shared = (n == 0);

        for (i = 0; i < 3; i++) {
            if (n >= about[i].len
                && ngx_strncasecmp(begin, about[i].data, about[i].len) == 0
                && (n == about[i].len || begin[about[i].len] == '='
                    || begin[about[i].len] == ' '))
            {
                shared = 1;
            }
        }

        if (!shared) {
            *p++ = ',';
            *p++ = ' ';
            p = ngx_cpymem(p, begin, n);
        }
    }

    return p;
}
