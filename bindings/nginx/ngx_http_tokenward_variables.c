
/*
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * $tokenward_*: what was decided. Nothing is computed that nobody asks for.
 * Before the decision they are empty. Every value is safe in a header.
 */

#include "ngx_http_tokenward.h"


#define NGX_HTTP_TOKENWARD_ID         0
#define NGX_HTTP_TOKENWARD_CUSTOM_ID  1
#define NGX_HTTP_TOKENWARD_USERNAME   2


static ngx_int_t ngx_http_tokenward_consumer_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_tokenward_credential_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_tokenward_claim_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_tokenward_source_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_tokenward_reason_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_tokenward_anonymous_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_tokenward_hash_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_tokenward_set_header(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, const char *prefix, ngx_str_t *name);


static ngx_http_variable_t  ngx_http_tokenward_vars[] = {

    { ngx_string("tokenward_consumer_id"), NULL,
      ngx_http_tokenward_consumer_variable, NGX_HTTP_TOKENWARD_ID,
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("tokenward_consumer_custom_id"), NULL,
      ngx_http_tokenward_consumer_variable, NGX_HTTP_TOKENWARD_CUSTOM_ID,
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("tokenward_consumer_username"), NULL,
      ngx_http_tokenward_consumer_variable, NGX_HTTP_TOKENWARD_USERNAME,
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("tokenward_credential_hash"), NULL,
      ngx_http_tokenward_hash_variable, 0,
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("tokenward_credential_"), NULL,
      ngx_http_tokenward_credential_variable, 0,
      NGX_HTTP_VAR_NOCACHEABLE|NGX_HTTP_VAR_PREFIX, 0 },

    { ngx_string("tokenward_claim_"), NULL,
      ngx_http_tokenward_claim_variable, 0,
      NGX_HTTP_VAR_NOCACHEABLE|NGX_HTTP_VAR_PREFIX, 0 },

    { ngx_string("tokenward_source"), NULL,
      ngx_http_tokenward_source_variable, 0,
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("tokenward_reason"), NULL,
      ngx_http_tokenward_reason_variable, 0,
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("tokenward_anonymous"), NULL,
      ngx_http_tokenward_anonymous_variable, 0,
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


ngx_int_t
ngx_http_tokenward_add_variables(ngx_conf_t *cf)
{
    ngx_http_variable_t  *var, *v;

    for (v = ngx_http_tokenward_vars; v->name.len; v++) {
        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


/* The decision of the main request, and NULL before there is one. */

static const tokenward_decision *
ngx_http_tokenward_decision(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, ngx_http_tokenward_ctx_t **pctx)
{
    ngx_http_tokenward_ctx_t  *ctx;

    v->not_found = 1;

    /* nothing of the client's is told to the authorization server */

    if (ngx_http_tokenward_call_of(r)) {
        return NULL;
    }

    ctx = ngx_http_tokenward_ctx(r->main);

    if (ctx == NULL) {
        return NULL;
    }

    *pctx = ctx;

    return ctx->decision;
}


static ngx_int_t
ngx_http_tokenward_value(ngx_http_variable_value_t *v, tokenward_str *s)
{
    v->data = (u_char *) s->data;
    v->len = s->len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}


/* As the header would have it: a name may need encoding. */

static ngx_int_t
ngx_http_tokenward_consumer_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t  *name;

    static ngx_str_t  names[] = {
        ngx_string("id"), ngx_string("custom_id"), ngx_string("username")
    };

    name = &names[data];

    return ngx_http_tokenward_set_header(r, v, "X-Consumer-", name);
}


static ngx_int_t
ngx_http_tokenward_credential_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t  *full = (ngx_str_t *) data;

    ngx_str_t   name;

    name.data = full->data + sizeof("tokenward_credential_") - 1;
    name.len = full->len - (sizeof("tokenward_credential_") - 1);

    return ngx_http_tokenward_set_header(r, v, "X-Credential-", &name);
}


/* The value of a header that was set; lines of one name are joined. */

static ngx_int_t
ngx_http_tokenward_set_header(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, const char *prefix, ngx_str_t *name)
{
    size_t                      i, j, n, count, len;
    u_char                      c, *p;
    tokenward_str               value;
    const tokenward_header     *set;
    const tokenward_decision   *decision;
    ngx_http_tokenward_ctx_t   *ctx;

    decision = ngx_http_tokenward_decision(r, v, &ctx);

    if (decision == NULL
        || tokenward_decision_set(decision, &set, &count) != TOKENWARD_OK)
    {
        return NGX_OK;
    }

    n = ngx_strlen(prefix);
    value.data = NULL;
    value.len = 0;

    for (i = 0; i < count; i++) {

        if (set[i].name.len != n + name->len
            || ngx_strncasecmp((u_char *) set[i].name.data, (u_char *) prefix,
                               n)
               != 0)
        {
            continue;
        }

        for (j = 0; j < name->len; j++) {
            c = ngx_tolower((u_char) set[i].name.data[n + j]);

            if (c != name->data[j]
                && !((c < 'a' || c > 'z') && (c < '0' || c > '9')
                     && name->data[j] == '_'))
            {
                break;
            }
        }

        if (j < name->len) {
            continue;
        }

        if (value.data == NULL) {
            value = set[i].value;
            continue;
        }

        len = value.len + 2 + set[i].value.len;

        p = ngx_pnalloc(r->pool, len);
        if (p == NULL) {
            return NGX_ERROR;
        }

        ngx_memcpy(p, value.data, value.len);
        p[value.len] = ',';
        p[value.len + 1] = ' ';
        ngx_memcpy(p + value.len + 2, set[i].value.data, set[i].value.len);

        value.data = (char *) p;
        value.len = len;
    }

    return value.data ? ngx_http_tokenward_value(v, &value) : NGX_OK;
}


static ngx_int_t
ngx_http_tokenward_claim_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t  *full = (ngx_str_t *) data;

    tokenward_str              value;
    const tokenward_decision  *decision;
    ngx_http_tokenward_ctx_t  *ctx;

    decision = ngx_http_tokenward_decision(r, v, &ctx);

    if (decision
        && tokenward_decision_claim_value(decision, ctx->source->introspector,
                        ctx->policy ? ctx->policy->policy : NULL,
                        (const char *) full->data
                        + sizeof("tokenward_claim_") - 1,
                        full->len - (sizeof("tokenward_claim_") - 1), &value)
           == TOKENWARD_OK)
    {
        return ngx_http_tokenward_value(v, &value);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_tokenward_source_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    tokenward_str              value;
    const tokenward_decision  *decision;
    ngx_http_tokenward_ctx_t  *ctx;

    decision = ngx_http_tokenward_decision(r, v, &ctx);

    if (decision == NULL) {
        return NGX_OK;
    }

    switch (tokenward_decision_source(decision)) {

    case TOKENWARD_SOURCE_ENDPOINT:
        value.data = "endpoint";
        break;

    case TOKENWARD_SOURCE_CACHE:
        value.data = "cache";
        break;

    case TOKENWARD_SOURCE_WAITING:
        value.data = "waiting";
        break;

    default:
        value.data = "none";
        break;
    }

    value.len = ngx_strlen(value.data);

    return ngx_http_tokenward_value(v, &value);
}


static ngx_int_t
ngx_http_tokenward_reason_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    tokenward_str              value;
    const tokenward_decision  *decision;
    ngx_http_tokenward_ctx_t  *ctx;

    decision = ngx_http_tokenward_decision(r, v, &ctx);

    if (decision
        && tokenward_reason_name(tokenward_decision_reason(decision), &value)
           == TOKENWARD_OK)
    {
        return ngx_http_tokenward_value(v, &value);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_tokenward_anonymous_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    tokenward_str              value;
    const tokenward_decision  *decision;
    ngx_http_tokenward_ctx_t  *ctx;

    decision = ngx_http_tokenward_decision(r, v, &ctx);

    if (decision
        && tokenward_decision_identity(decision)
           == TOKENWARD_IDENTITY_ANONYMOUS)
    {
        value.data = "true";
        value.len = 4;

        return ngx_http_tokenward_value(v, &value);
    }

    return NGX_OK;
}


/* Of what the client presented, whether it was good or not. */

static ngx_int_t
ngx_http_tokenward_hash_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    char                      *digits;
    tokenward_str              value;
    tokenward_header           few[16];
    tokenward_request          request;
    ngx_http_tokenward_ctx_t  *ctx;

    if (ngx_http_tokenward_decision(r, v, &ctx) == NULL) {
        return NGX_OK;
    }

    digits = ngx_pnalloc(r->pool, 8);

    if (digits == NULL
        || ngx_http_tokenward_view(ctx, &request, few, 16) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (tokenward_fingerprint(ctx->source->introspector,
                              ctx->policy ? ctx->policy->policy : NULL,
                              &request, digits)
        == TOKENWARD_OK)
    {
        value.data = digits;
        value.len = 8;

        return ngx_http_tokenward_value(v, &value);
    }

    return NGX_OK;
}
