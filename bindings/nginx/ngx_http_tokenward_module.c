
/*
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Directives, and what is made at start.
 */

#include "ngx_http_tokenward.h"


static void *ngx_http_tokenward_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_tokenward_create_srv_conf(ngx_conf_t *cf);
static void *ngx_http_tokenward_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_tokenward_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static char *ngx_http_tokenward_endpoint(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_tokenward_metrics(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_tokenward_preconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_tokenward_postconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_tokenward_handler(ngx_conf_t *cf, ngx_uint_t phase,
    ngx_http_handler_pt handler, ngx_uint_t last);
static ngx_int_t ngx_http_tokenward_init_module(ngx_cycle_t *cycle);
static ngx_int_t ngx_http_tokenward_init_process(ngx_cycle_t *cycle);
static void ngx_http_tokenward_exit_process(ngx_cycle_t *cycle);


/* This process is master and worker in one, and runs. */

static ngx_uint_t  ngx_http_tokenward_single;


static ngx_conf_enum_t  ngx_http_tokenward_phases[] = {
    { ngx_string("access"), NGX_HTTP_TOKENWARD_ACCESS },
    { ngx_string("preaccess"), NGX_HTTP_TOKENWARD_PREACCESS },
    { ngx_null_string, 0 }
};


static ngx_command_t  ngx_http_tokenward_commands[] = {

    { ngx_string("tokenward"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_tokenward_loc_conf_t, enable),
      NULL },

    { ngx_string("tokenward_config"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_str_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_tokenward_loc_conf_t, config),
      NULL },

    { ngx_string("tokenward_consumers"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_str_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_tokenward_loc_conf_t, consumers),
      NULL },

    { ngx_string("tokenward_endpoint"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE12,
      ngx_http_tokenward_endpoint,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("tokenward_policy"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_str_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_tokenward_loc_conf_t, policy_text),
      NULL },

    { ngx_string("tokenward_phase"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_tokenward_loc_conf_t, phase),
      &ngx_http_tokenward_phases },

    { ngx_string("tokenward_metrics"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS,
      ngx_http_tokenward_metrics,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("tokenward_zone"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_tokenward_zone,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_tokenward_module_ctx = {
    ngx_http_tokenward_preconfiguration,   /* preconfiguration */
    ngx_http_tokenward_postconfiguration,  /* postconfiguration */

    ngx_http_tokenward_create_main_conf,   /* create main configuration */
    NULL,                                  /* init main configuration */

    ngx_http_tokenward_create_srv_conf,    /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_tokenward_create_loc_conf,    /* create location configuration */
    ngx_http_tokenward_merge_loc_conf      /* merge location configuration */
};


ngx_module_t  ngx_http_tokenward_module = {
    NGX_MODULE_V1,
    &ngx_http_tokenward_module_ctx,        /* module context */
    ngx_http_tokenward_commands,           /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    ngx_http_tokenward_init_module,        /* init module */
    ngx_http_tokenward_init_process,       /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_tokenward_exit_process,       /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static void *
ngx_http_tokenward_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_tokenward_main_conf_t  *tmcf;

    tmcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_tokenward_main_conf_t));
    if (tmcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&tmcf->sources, cf->pool, 1,
                       sizeof(ngx_http_tokenward_source_t *))
        != NGX_OK
        || ngx_array_init(&tmcf->policies, cf->pool, 1,
                          sizeof(ngx_http_tokenward_policy_t *))
           != NGX_OK)
    {
        return NULL;
    }

    return tmcf;
}


static void *
ngx_http_tokenward_create_srv_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_tokenward_srv_conf_t));
}


static void *
ngx_http_tokenward_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_tokenward_loc_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_http_tokenward_loc_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     conf->config = { 0, NULL };
     *     conf->consumers = { 0, NULL };
     *     conf->endpoint = { 0, NULL };
     *     conf->policy_text = { 0, NULL };
     *     conf->metrics = 0;
     *     conf->source = NULL;
     *     conf->policy = NULL;
     */

    conf->enable = NGX_CONF_UNSET;
    conf->phase = NGX_CONF_UNSET_UINT;
    conf->insecure = NGX_CONF_UNSET;

    return conf;
}


static char *
ngx_http_tokenward_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_tokenward_loc_conf_t *prev = parent;
    ngx_http_tokenward_loc_conf_t *conf = child;

    ngx_http_tokenward_srv_conf_t  *tscf;

    ngx_conf_merge_value(conf->enable, prev->enable, 0);
    ngx_conf_merge_uint_value(conf->phase, prev->phase,
                              NGX_HTTP_TOKENWARD_ACCESS);
    ngx_conf_merge_str_value(conf->config, prev->config, "");
    ngx_conf_merge_str_value(conf->consumers, prev->consumers, "");
    ngx_conf_merge_str_value(conf->policy_text, prev->policy_text, "");

    if (conf->endpoint.data == NULL) {
        conf->endpoint = prev->endpoint;
        conf->insecure = prev->insecure;
    }

    if (conf->enable) {
        tscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_tokenward_module);
        tscf->guarded = 1;
    }

    return ngx_http_tokenward_resolve(cf, conf);
}


static char *
ngx_http_tokenward_endpoint(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_tokenward_loc_conf_t *tlcf = conf;

    ngx_str_t  *value;

    if (tlcf->endpoint.data) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (value[1].len == 0 || value[1].data[0] != '/') {
        return "needs the URI of a location, beginning with \"/\"";
    }

    tlcf->endpoint = value[1];
    tlcf->insecure = 0;

    if (cf->args->nelts == 3) {
        if (ngx_strcmp(value[2].data, "insecure") != 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\", \"insecure\" is the "
                               "only one", &value[2]);
            return NGX_CONF_ERROR;
        }

        tlcf->insecure = 1;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_tokenward_metrics(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_tokenward_loc_conf_t *tlcf = conf;

    ngx_http_core_loc_conf_t  *clcf;

    if (tlcf->metrics) {
        return "is duplicate";
    }

    tlcf->metrics = 1;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = ngx_http_tokenward_metrics_handler;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_tokenward_preconfiguration(ngx_conf_t *cf)
{
    if (tokenward_abi_check(TOKENWARD_ABI_VERSION) != TOKENWARD_OK) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "tokenward: the library has another ABI than the module");
        return NGX_ERROR;
    }

    return ngx_http_tokenward_add_variables(cf);
}


static ngx_int_t
ngx_http_tokenward_postconfiguration(ngx_conf_t *cf)
{
    ngx_http_tokenward_main_conf_t  *tmcf;

    tmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_tokenward_module);

    if (tmcf->sources.nelts == 0) {
        return NGX_OK;
    }

    if (ngx_http_tokenward_check_endpoints(cf) != NGX_OK) {
        return NGX_ERROR;
    }

    /*
     * The handler that was registered last runs first. Where any of several
     * modules suffices, ours is the first to run: a token that is there tells
     * who the client is. Where all of them have to agree, it is the last:
     * nobody is asked about an address that is denied anyway.
     */

    if (ngx_http_tokenward_handler(cf, NGX_HTTP_POST_READ_PHASE,
                                   ngx_http_tokenward_post_read_handler, 0)
        != NGX_OK
        || ngx_http_tokenward_handler(cf, NGX_HTTP_SERVER_REWRITE_PHASE,
                                      ngx_http_tokenward_rewrite_handler, 0)
           != NGX_OK
        || ngx_http_tokenward_handler(cf, NGX_HTTP_REWRITE_PHASE,
                                      ngx_http_tokenward_rewrite_handler, 0)
           != NGX_OK
        || ngx_http_tokenward_handler(cf, NGX_HTTP_PREACCESS_PHASE,
                                      ngx_http_tokenward_preaccess_handler, 0)
           != NGX_OK
        || ngx_http_tokenward_handler(cf, NGX_HTTP_PRECONTENT_PHASE,
                                      ngx_http_tokenward_preaccess_handler, 0)
           != NGX_OK
        || ngx_http_tokenward_handler(cf, NGX_HTTP_ACCESS_PHASE,
                                      ngx_http_tokenward_access_any_handler, 0)
           != NGX_OK
        || ngx_http_tokenward_handler(cf, NGX_HTTP_ACCESS_PHASE,
                                      ngx_http_tokenward_access_all_handler, 1)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_tokenward_filter_init(cf);
}


static ngx_int_t
ngx_http_tokenward_handler(ngx_conf_t *cf, ngx_uint_t phase,
    ngx_http_handler_pt handler, ngx_uint_t last)
{
    ngx_array_t                *handlers;
    ngx_http_handler_pt        *h;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);
    handlers = &cmcf->phases[phase].handlers;

    h = ngx_array_push(handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    if (last) {
        h = handlers->elts;
        ngx_memmove(h + 1, h,
                    (handlers->nelts - 1) * sizeof(ngx_http_handler_pt));
    }

    *h = handler;

    return NGX_OK;
}


/*
 * With "master_process off", nginx gives a new configuration no connections
 * and no call of init_process: it accepts nobody any more. Who is connected
 * already stays with the old configuration, introspectors included.
 */

static ngx_int_t
ngx_http_tokenward_init_module(ngx_cycle_t *cycle)
{
    if (ngx_http_tokenward_single) {
        ngx_log_error(NGX_LOG_ALERT, cycle->log, 0,
                      "tokenward: nginx cannot reload its configuration with "
                      "\"master_process off\", restart it");
    }

    return NGX_OK;
}


/* A cache manager is no worker. */

static ngx_int_t
ngx_http_tokenward_init_process(ngx_cycle_t *cycle)
{
    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    if (ngx_http_cycle_get_module_main_conf(cycle, ngx_http_tokenward_module)
        == NULL)
    {
        return NGX_OK;
    }

    if (ngx_http_tokenward_mark_stale(cycle) != NGX_OK
        || ngx_http_tokenward_start(cycle) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_http_tokenward_metrics_start(cycle);

    ngx_http_tokenward_single = (ngx_process == NGX_PROCESS_SINGLE);

    return NGX_OK;
}


static void
ngx_http_tokenward_exit_process(ngx_cycle_t *cycle)
{
    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE)
    {
        return;
    }

    if (ngx_http_cycle_get_module_main_conf(cycle, ngx_http_tokenward_module)
        == NULL)
    {
        return;
    }

    ngx_http_tokenward_metrics_stop(cycle);
    ngx_http_tokenward_stop(cycle);
}
