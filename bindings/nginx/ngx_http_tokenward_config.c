
/*
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Documents and policies. The master reads and checks them; each worker makes
 * its introspectors of what the master has read.
 */

#include "ngx_http_tokenward.h"


/* No configuration is longer. */
#define NGX_HTTP_TOKENWARD_MAX_FILE  (256 * 1024 * 1024)


static ngx_http_tokenward_source_t *ngx_http_tokenward_source(ngx_conf_t *cf,
    ngx_str_t *config, ngx_str_t *consumers);
static ngx_int_t ngx_http_tokenward_load(ngx_conf_t *cf,
    ngx_http_tokenward_source_t *source);
static ngx_int_t ngx_http_tokenward_read(ngx_conf_t *cf, ngx_str_t *name,
    ngx_str_t *text);
static void ngx_http_tokenward_complain(ngx_conf_t *cf, ngx_str_t *where,
    tokenward_result rc, tokenward_error *error);
static void ngx_http_tokenward_free_document(void *data);
static ngx_http_tokenward_policy_t *ngx_http_tokenward_policy(ngx_conf_t *cf,
    ngx_http_tokenward_source_t *source, ngx_str_t *text);
static ngx_uint_t ngx_http_tokenward_is_lean(
    ngx_http_tokenward_source_t *source, const tokenward_policy *policy);
static tokenward_result ngx_http_tokenward_make(
    ngx_http_tokenward_source_t *source, tokenward_error **error);
static void ngx_http_tokenward_log(void *userdata, const tokenward_line *line);


/* The master has logged what is probably not meant. */
static ngx_uint_t  ngx_http_tokenward_starting;


/* What a location's directives name, once they are merged. */

char *
ngx_http_tokenward_resolve(ngx_conf_t *cf, ngx_http_tokenward_loc_conf_t *conf)
{
    if (!conf->enable && !conf->metrics) {
        return NGX_CONF_OK;
    }

    if (conf->config.len == 0) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"tokenward_config\" is missing where \"%s\" is used",
                      conf->enable ? "tokenward on" : "tokenward_metrics");
        return NGX_CONF_ERROR;
    }

    if (conf->enable && conf->endpoint.len == 0) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"tokenward_endpoint\" is missing where "
                      "\"tokenward on\" is used");
        return NGX_CONF_ERROR;
    }

    conf->source = ngx_http_tokenward_source(cf, &conf->config,
                                             &conf->consumers);
    if (conf->source == NULL) {
        return NGX_CONF_ERROR;
    }

    if (conf->enable && conf->policy_text.len) {
        conf->policy = ngx_http_tokenward_policy(cf, conf->source,
                                                 &conf->policy_text);
        if (conf->policy == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


static ngx_http_tokenward_source_t *
ngx_http_tokenward_source(ngx_conf_t *cf, ngx_str_t *config,
    ngx_str_t *consumers)
{
    u_char                          *p;
    ngx_str_t                        file, select, names;
    ngx_uint_t                       i;
    ngx_http_tokenward_source_t     *source, **sources;
    ngx_http_tokenward_main_conf_t  *tmcf;

    file = *config;
    names = *consumers;
    ngx_str_null(&select);

    for (p = file.data; p < file.data + file.len; p++) {
        if (*p == '#'
            && (ngx_strncmp(p + 1, "route=", 6) == 0
                || ngx_strncmp(p + 1, "service=", 8) == 0))
        {
            select.data = p + 1;
            select.len = file.data + file.len - select.data;

            file.len = p - file.data;
            file.data = ngx_pnalloc(cf->pool, file.len + 1);
            if (file.data == NULL) {
                return NULL;
            }

            *ngx_cpymem(file.data, config->data, file.len) = '\0';
            break;
        }
    }

    if (ngx_conf_full_name(cf->cycle, &file, 1) != NGX_OK
        || (names.len && ngx_conf_full_name(cf->cycle, &names, 1) != NGX_OK))
    {
        return NULL;
    }

    tmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_tokenward_module);
    sources = tmcf->sources.elts;

    for (i = 0; i < tmcf->sources.nelts; i++) {
        source = sources[i];

        if (source->file.len == file.len
            && source->select.len == select.len
            && source->consumers.len == names.len
            && ngx_memcmp(source->file.data, file.data, file.len) == 0
            && ngx_strncmp(source->select.data, select.data, select.len) == 0
            && ngx_strncmp(source->consumers.data, names.data, names.len) == 0)
        {
            return source;
        }
    }

    source = ngx_pcalloc(cf->pool, sizeof(ngx_http_tokenward_source_t));
    if (source == NULL) {
        return NULL;
    }

    source->file = file;
    source->select = select;
    source->consumers = names;

    ngx_crc32_init(source->key);
    ngx_crc32_update(&source->key, file.data, file.len);
    ngx_crc32_update(&source->key, (u_char *) "#", 1);
    ngx_crc32_update(&source->key, select.data, select.len);
    ngx_crc32_update(&source->key, (u_char *) "#", 1);
    ngx_crc32_update(&source->key, names.data, names.len);
    ngx_crc32_final(source->key);

    if (ngx_http_tokenward_load(cf, source) != NGX_OK) {
        return NULL;
    }

    sources = ngx_array_push(&tmcf->sources);
    if (sources == NULL) {
        return NULL;
    }

    *sources = source;

    return source;
}


static ngx_int_t
ngx_http_tokenward_load(ngx_conf_t *cf, ngx_http_tokenward_source_t *source)
{
    size_t               i;
    ngx_str_t            text, names, folder, message, *where;
    tokenward_str        url;
    tokenward_error     *error;
    tokenward_source     what;
    tokenward_result     rc;
    tokenward_problem    problem;
    ngx_pool_cleanup_t  *cln;

    if (ngx_http_tokenward_read(cf, &source->file, &text) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_memzero(&what, sizeof(tokenward_source));
    what.struct_size = sizeof(tokenward_source);
    what.text = ngx_http_tokenward_str(&text);
    what.select = ngx_http_tokenward_str(&source->select);

    folder.data = source->file.data;

    for (folder.len = source->file.len; folder.len; folder.len--) {
        if (folder.data[folder.len - 1] == '/') {
            break;
        }
    }

    if (folder.len) {
        what.folder = ngx_http_tokenward_str(&folder);
    }

    ngx_str_null(&names);

    if (source->consumers.len) {
        if (ngx_http_tokenward_read(cf, &source->consumers, &names) != NGX_OK) {
            ngx_explicit_memzero(text.data, text.len);
            ngx_free(text.data);
            return NGX_ERROR;
        }

        what.consumers = ngx_http_tokenward_str(&names);
    }

    error = NULL;
    rc = tokenward_document_new(&what, &source->document, &error);

    /* the text may hold secrets */
    ngx_explicit_memzero(text.data, text.len);
    ngx_free(text.data);

    if (names.data) {
        ngx_free(names.data);
    }

    if (rc != TOKENWARD_OK) {
        where = &source->file;

        if (source->consumers.len && tokenward_error_count(error)
            && tokenward_error_at(error, 0, &problem) == TOKENWARD_OK
            && problem.path.len >= sizeof("consumers") - 1
            && ngx_strncmp(problem.path.data, "consumers", 9) == 0)
        {
            where = &source->consumers;
        }

        ngx_http_tokenward_complain(cf, where, rc, error);
        return NGX_ERROR;
    }

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        tokenward_document_free(source->document);
        return NGX_ERROR;
    }

    cln->handler = ngx_http_tokenward_free_document;
    cln->data = source->document;

    for (i = 0; i < tokenward_document_warning_count(source->document); i++) {
        if (tokenward_document_warning_at(source->document, i, &problem)
            == TOKENWARD_OK)
        {
            message.data = (u_char *) problem.message.data;
            message.len = problem.message.len;
            ngx_log_error(NGX_LOG_WARN, cf->log, 0, "tokenward: %V: %V",
                          &source->file, &message);
        }
    }

    source->reply_bytes = tokenward_document_reply_bytes(source->document);

    if (tokenward_document_introspection_url(source->document, &url)
        != TOKENWARD_OK)
    {
        return NGX_ERROR;
    }

    source->https = !(url.len >= 5
                      && ngx_strncmp(url.data, "http:", 5) == 0);

    return NGX_OK;
}


/* On the heap: the caller frees it. */

static ngx_int_t
ngx_http_tokenward_read(ngx_conf_t *cf, ngx_str_t *name, ngx_str_t *text)
{
    off_t       size;
    ssize_t     n;
    ngx_fd_t    fd;
    ngx_int_t   rc;

    ngx_file_info_t  fi;

    fd = ngx_open_file(name->data, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);

    if (fd == NGX_INVALID_FILE) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, ngx_errno,
                      "tokenward: " ngx_open_file_n " \"%V\" failed", name);
        return NGX_ERROR;
    }

    rc = NGX_ERROR;
    text->data = NULL;

    if (ngx_fd_info(fd, &fi) == NGX_FILE_ERROR) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, ngx_errno,
                      "tokenward: " ngx_fd_info_n " \"%V\" failed", name);
        goto done;
    }

    size = ngx_file_size(&fi);

    if (!ngx_is_file(&fi) || size > NGX_HTTP_TOKENWARD_MAX_FILE) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "tokenward: \"%V\" is no file, or too long", name);
        goto done;
    }

    text->data = ngx_alloc(size ? size : 1, cf->log);
    if (text->data == NULL) {
        goto done;
    }

    for (text->len = 0; text->len < (size_t) size; text->len += n) {
        n = ngx_read_fd(fd, text->data + text->len, size - text->len);

        if (n <= 0) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, ngx_errno,
                          "tokenward: " ngx_read_fd_n " \"%V\" failed", name);
            ngx_explicit_memzero(text->data, text->len);
            ngx_free(text->data);
            goto done;
        }
    }

    rc = NGX_OK;

done:

    if (ngx_close_file(fd) == NGX_FILE_ERROR) {
        ngx_log_error(NGX_LOG_ALERT, cf->log, ngx_errno,
                      ngx_close_file_n " \"%V\" failed", name);
    }

    return rc;
}


/* Everything that is wrong, a line each; nothing secret is in it. */

static void
ngx_http_tokenward_complain(ngx_conf_t *cf, ngx_str_t *where,
    tokenward_result rc, tokenward_error *error)
{
    size_t             i;
    ngx_str_t          message;
    tokenward_str      text;
    tokenward_problem  problem;

    if (tokenward_error_count(error) == 0) {
        if (tokenward_error_message(error, &text) == TOKENWARD_OK) {
            message.data = (u_char *) text.data;
            message.len = text.len;
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "tokenward: %V: %V",
                          where, &message);
        } else {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "tokenward: %V: %s",
                          where, tokenward_result_name(rc));
        }
    }

    for (i = 0; i < tokenward_error_count(error); i++) {
        if (tokenward_error_at(error, i, &problem) != TOKENWARD_OK) {
            continue;
        }

        message.data = (u_char *) problem.message.data;
        message.len = problem.message.len;

        if (problem.path.len) {
            text = problem.path;
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "tokenward: %V: `%*s`: %V",
                          where, text.len, text.data, &message);
        } else {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "tokenward: %V: %V",
                          where, &message);
        }
    }

    tokenward_error_free(error);
}


static void
ngx_http_tokenward_free_document(void *data)
{
    tokenward_document_free(data);
}


/*
 * A policy is checked over an introspector of the master's, which is freed at
 * once: workers make their own after the fork.
 */

static ngx_http_tokenward_policy_t *
ngx_http_tokenward_policy(ngx_conf_t *cf, ngx_http_tokenward_source_t *source,
    ngx_str_t *text)
{
    ngx_str_t                        name, json, inline_name;
    ngx_uint_t                       i;
    tokenward_error                 *error;
    tokenward_policy                *made;
    tokenward_result                 rc;
    tokenward_introspector          *introspector;
    ngx_http_tokenward_policy_t     *policy, **policies;
    ngx_http_tokenward_main_conf_t  *tmcf;

    ngx_str_set(&inline_name, "tokenward_policy");

    for (i = 0; i < text->len; i++) {
        if (text->data[i] != ' ' && text->data[i] != '\t'
            && text->data[i] != CR && text->data[i] != LF)
        {
            break;
        }
    }

    if (i < text->len && text->data[i] == '{') {
        name = inline_name;
        json = *text;

    } else {
        name = *text;

        if (ngx_conf_full_name(cf->cycle, &name, 1) != NGX_OK
            || ngx_http_tokenward_read(cf, &name, &json) != NGX_OK)
        {
            return NULL;
        }

        text = ngx_palloc(cf->pool, sizeof(ngx_str_t));
        if (text == NULL) {
            ngx_free(json.data);
            return NULL;
        }

        text->data = ngx_pstrdup(cf->pool, &json);
        text->len = json.len;
        ngx_free(json.data);

        if (text->data == NULL) {
            return NULL;
        }

        json = *text;
    }

    tmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_tokenward_module);
    policies = tmcf->policies.elts;

    for (i = 0; i < tmcf->policies.nelts; i++) {
        policy = policies[i];

        if (policy->source == source
            && policy->json.len == json.len
            && ngx_memcmp(policy->json.data, json.data, json.len) == 0)
        {
            return policy;
        }
    }

    error = NULL;
    made = NULL;
    introspector = NULL;

    rc = tokenward_introspector_new(source->document, NULL, &introspector,
                                    &error);

    if (rc == TOKENWARD_OK) {
        rc = tokenward_policy_new(introspector, (const char *) json.data,
                                  json.len, &made, &error);
    }

    tokenward_policy_free(made);
    tokenward_introspector_free(introspector);

    if (rc != TOKENWARD_OK) {
        ngx_http_tokenward_complain(cf, &name, rc, error);
        return NULL;
    }

    policy = ngx_pcalloc(cf->pool, sizeof(ngx_http_tokenward_policy_t));
    policies = ngx_array_push(&tmcf->policies);

    if (policy == NULL || policies == NULL) {
        return NULL;
    }

    policy->source = source;
    policy->json = json;

    *policies = policy;

    return policy;
}


ngx_int_t
ngx_http_tokenward_start(ngx_cycle_t *cycle)
{
    ngx_uint_t                       i;
    tokenward_error                 *error;
    tokenward_result                 rc;
    ngx_http_tokenward_policy_t    **policies;
    ngx_http_tokenward_source_t    **sources;
    ngx_http_tokenward_main_conf_t  *tmcf;

    tmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                               ngx_http_tokenward_module);
    sources = tmcf->sources.elts;
    policies = tmcf->policies.elts;

    error = NULL;
    rc = TOKENWARD_OK;
    ngx_http_tokenward_starting = 1;

    for (i = 0; i < tmcf->sources.nelts && rc == TOKENWARD_OK; i++) {
        rc = ngx_http_tokenward_make(sources[i], &error);

        sources[i]->lean = ngx_http_tokenward_is_lean(sources[i], NULL);
    }

    for (i = 0; i < tmcf->policies.nelts && rc == TOKENWARD_OK; i++) {
        rc = tokenward_policy_new(policies[i]->source->introspector,
                                  (const char *) policies[i]->json.data,
                                  policies[i]->json.len, &policies[i]->policy,
                                  &error);

        policies[i]->lean = ngx_http_tokenward_is_lean(policies[i]->source,
                                                       policies[i]->policy);
    }

    ngx_http_tokenward_starting = 0;

    if (rc != TOKENWARD_OK) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                      "tokenward: no introspector can be made: %s",
                      tokenward_result_name(rc));
        tokenward_error_free(error);
        return NGX_ERROR;
    }

    return NGX_OK;
}


void
ngx_http_tokenward_stop(ngx_cycle_t *cycle)
{
    ngx_uint_t                       i;
    ngx_http_tokenward_policy_t    **policies;
    ngx_http_tokenward_source_t    **sources;
    ngx_http_tokenward_main_conf_t  *tmcf;

    tmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                               ngx_http_tokenward_module);
    sources = tmcf->sources.elts;
    policies = tmcf->policies.elts;

    for (i = 0; i < tmcf->policies.nelts; i++) {
        tokenward_policy_free(policies[i]->policy);
        policies[i]->policy = NULL;
    }

    for (i = 0; i < tmcf->sources.nelts; i++) {
        tokenward_introspector_free(sources[i]->introspector);
        sources[i]->introspector = NULL;
    }
}


/* A worker's configuration is never replaced: it holds as long as that. */

static ngx_uint_t
ngx_http_tokenward_is_lean(ngx_http_tokenward_source_t *source,
    const tokenward_policy *policy)
{
    return tokenward_is_lean(source->introspector, policy, "GET", 3)
           && tokenward_is_lean(source->introspector, policy, "HEAD", 4);
}


static tokenward_result
ngx_http_tokenward_make(ngx_http_tokenward_source_t *source,
    tokenward_error **error)
{
    tokenward_options  options;

    ngx_memzero(&options, sizeof(tokenward_options));
    options.struct_size = sizeof(tokenward_options);
    options.log = ngx_http_tokenward_log;

    if (ngx_cycle->log->log_level >= NGX_LOG_INFO) {
        options.log_level = TOKENWARD_LEVEL_DEBUG;
    }

    return tokenward_introspector_new(source->document, &options,
                                      &source->introspector, error);
}


/*
 * To the error log without the request that happens to be handled: its line
 * would come along, and with it a token that is in the query.
 */

static void
ngx_http_tokenward_log(void *userdata, const tokenward_line *line)
{
    ngx_uint_t     level;
    tokenward_str  text;

    switch (tokenward_line_level(line)) {

    case TOKENWARD_LEVEL_ERROR:
        level = NGX_LOG_ERR;
        break;

    case TOKENWARD_LEVEL_WARN:
        level = NGX_LOG_WARN;
        break;

    case TOKENWARD_LEVEL_INFO:
        level = NGX_LOG_NOTICE;
        break;

    default:
        level = NGX_LOG_INFO;
        break;
    }

    if (ngx_http_tokenward_starting && level >= NGX_LOG_WARN) {
        return;
    }

    if (tokenward_line_text(line, &text) == TOKENWARD_OK) {
        ngx_log_error(level, ngx_cycle->log, 0, "tokenward: %*s",
                      text.len, text.data);
    }
}
