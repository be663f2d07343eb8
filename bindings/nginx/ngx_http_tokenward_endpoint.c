
/*
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Locations of endpoints, as far as nginx -t can tell about them.
 */

#include "ngx_http_tokenward.h"


static char *ngx_http_tokenward_check_endpoint(ngx_conf_t *cf,
    ngx_http_core_loc_conf_t *server, ngx_http_tokenward_loc_conf_t *conf);
static ngx_http_core_loc_conf_t *ngx_http_tokenward_find_location(
    ngx_http_core_loc_conf_t *server, ngx_str_t *uri, ngx_uint_t *certain);
static ngx_int_t ngx_http_tokenward_check_locations(ngx_conf_t *cf,
    ngx_http_core_loc_conf_t *server, void **loc_conf);
static ngx_int_t ngx_http_tokenward_check_tree(ngx_conf_t *cf,
    ngx_http_core_loc_conf_t *server, ngx_http_location_tree_node_t *node);


/* Every endpoint of every protected location, as far as it can be told now. */

ngx_int_t
ngx_http_tokenward_check_endpoints(ngx_conf_t *cf)
{
    ngx_uint_t                   i;
    void                       **loc_conf;
    ngx_http_core_loc_conf_t   **named;
    ngx_http_core_srv_conf_t   **cscfp;
    ngx_http_core_main_conf_t   *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);
    cscfp = cmcf->servers.elts;

    for (i = 0; i < cmcf->servers.nelts; i++) {
        loc_conf = cscfp[i]->ctx->loc_conf;

        if (ngx_http_tokenward_check_locations(cf,
                              loc_conf[ngx_http_core_module.ctx_index],
                              loc_conf)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        named = cscfp[i]->named_locations;

        for (/* void */ ; named && *named; named++) {
            if (ngx_http_tokenward_check_locations(cf,
                              loc_conf[ngx_http_core_module.ctx_index],
                              (*named)->loc_conf)
                != NGX_OK)
            {
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_tokenward_check_locations(ngx_conf_t *cf,
    ngx_http_core_loc_conf_t *server, void **loc_conf)
{
    char                           *error;
    ngx_http_core_loc_conf_t       *location;
    ngx_http_tokenward_loc_conf_t  *conf;
#if (NGX_PCRE)
    ngx_http_core_loc_conf_t      **clcfp;
#endif

    location = loc_conf[ngx_http_core_module.ctx_index];
    conf = loc_conf[ngx_http_tokenward_module.ctx_index];

    if (conf->enable) {
        error = ngx_http_tokenward_check_endpoint(cf, server, conf);

        if (error) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"tokenward_endpoint %V\": %s", &conf->endpoint,
                          error);
            return NGX_ERROR;
        }
    }

#if (NGX_PCRE)

    if (location->regex_locations) {
        for (clcfp = location->regex_locations; *clcfp; clcfp++) {
            if (ngx_http_tokenward_check_locations(cf, server,
                                                   (*clcfp)->loc_conf)
                != NGX_OK)
            {
                return NGX_ERROR;
            }
        }
    }

#endif

    return ngx_http_tokenward_check_tree(cf, server,
                                         location->static_locations);
}


static ngx_int_t
ngx_http_tokenward_check_tree(ngx_conf_t *cf, ngx_http_core_loc_conf_t *server,
    ngx_http_location_tree_node_t *node)
{
    if (node == NULL) {
        return NGX_OK;
    }

    if ((node->exact
         && ngx_http_tokenward_check_locations(cf, server,
                                               node->exact->loc_conf)
            != NGX_OK)
        || (node->inclusive
            && ngx_http_tokenward_check_locations(cf, server,
                                                  node->inclusive->loc_conf)
               != NGX_OK)
        || ngx_http_tokenward_check_tree(cf, server, node->left) != NGX_OK
        || ngx_http_tokenward_check_tree(cf, server, node->tree) != NGX_OK
        || ngx_http_tokenward_check_tree(cf, server, node->right) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


/*
 * What nginx -t can tell. Regular expressions, rewrites and variables are seen
 * when the call is made: ngx_http_tokenward_call_preaccess().
 */

static char *
ngx_http_tokenward_check_endpoint(ngx_conf_t *cf,
    ngx_http_core_loc_conf_t *server, ngx_http_tokenward_loc_conf_t *conf)
{
#if (NGX_HTTP_SSL)
    ngx_uint_t                      i;
    ngx_module_t                  **modules;
    ngx_http_upstream_conf_t       *ucf;
#endif
    ngx_uint_t                      certain;
    ngx_http_core_loc_conf_t       *clcf;
    ngx_http_tokenward_loc_conf_t  *own;

    clcf = ngx_http_tokenward_find_location(server, &conf->endpoint, &certain);

    if (clcf == NULL) {
        return certain ? "this server has no such location" : NULL;
    }

    if (!certain) {
        return NULL;
    }

    if (!clcf->internal) {
        return "the location is not \"internal\"";
    }

    own = clcf->loc_conf[ngx_http_tokenward_module.ctx_index];

    if (own->metrics || clcf->handler == NULL) {
        return "the location does not proxy";
    }

    if (!conf->source->https || conf->insecure) {
        return NULL;
    }

#if (NGX_HTTP_SSL)

    /* the module's configuration begins with that of its upstream */

    ucf = NULL;
    modules = cf->cycle->modules;

    for (i = 0; modules[i]; i++) {
        if (ngx_strcmp(modules[i]->name, "ngx_http_proxy_module") == 0) {
            ucf = clcf->loc_conf[modules[i]->ctx_index];
            break;
        }
    }

    if (ucf == NULL || ucf->upstream == NULL) {
        return NULL;
    }

    /*
     * Newer ones have a place for TLS everywhere, which several locations may
     * share, and make a context for those of "https". Where there is one, the
     * call itself tells whether it is of this location.
     */

    if (ucf->ssl == NULL || ucf->ssl->ctx == NULL) {
        return "introspection_url is https, and the location proxies without "
               "TLS; \"insecure\" permits it";
    }

    if (ucf->ssl_verify != 1) {
        return "the location lacks \"proxy_ssl_verify on\", which "
               "\"insecure\" permits";
    }

    if (ucf->ssl_server_name != 1) {
        return "the location lacks \"proxy_ssl_server_name on\", which "
               "\"insecure\" permits";
    }

#endif

    return NULL;
}


/*
 * The location of an exact URI as nginx would find it; not certain where a
 * regular expression may be found instead, or locations are nested.
 */

static ngx_http_core_loc_conf_t *
ngx_http_tokenward_find_location(ngx_http_core_loc_conf_t *server,
    ngx_str_t *uri, ngx_uint_t *certain)
{
    u_char                         *p;
    size_t                          len, n;
    ngx_int_t                       rc;
    ngx_http_core_loc_conf_t       *found;
    ngx_http_location_tree_node_t  *node;

    p = uri->data;
    len = uri->len;
    found = NULL;
    node = server->static_locations;

    *certain = 1;

    while (node) {
        n = (len <= (size_t) node->len) ? len : node->len;
        rc = ngx_filename_cmp(p, node->name, n);

        if (rc != 0) {
            node = (rc < 0) ? node->left : node->right;
            continue;
        }

        if (len > (size_t) node->len) {
            if (node->inclusive) {
                found = node->inclusive;
                p += n;
                len -= n;
                node = node->tree;
                continue;
            }

            node = node->right;
            continue;
        }

        if (len == (size_t) node->len) {
            if (node->exact) {
                return node->exact;
            }

            found = node->inclusive;
            break;
        }

        node = node->left;
    }

#if (NGX_PCRE)

    if (server->regex_locations && (found == NULL || !found->noregex)) {
        *certain = 0;
    }

#endif

    if (found && found->static_locations) {
        *certain = 0;
    }

    return found;
}
