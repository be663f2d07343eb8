// A module of nginx whose handler ends the phase PREACCESS for everybody, as nginx lets any module do.

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

static ngx_int_t end_phase(ngx_http_request_t *r)
{
    return NGX_OK;
}

static ngx_int_t add_handler(ngx_conf_t *cf)
{
    ngx_http_core_main_conf_t *cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);
    ngx_http_handler_pt *handler = ngx_array_push(&cmcf->phases[NGX_HTTP_PREACCESS_PHASE].handlers);
    if (handler == NULL) {
        return NGX_ERROR;
    }
    *handler = end_phase;
    return NGX_OK;
}

static ngx_http_module_t context = {NULL, add_handler, NULL, NULL, NULL, NULL, NULL, NULL};

ngx_module_t ngx_http_ends_preaccess_module = {
    NGX_MODULE_V1, &context, NULL, NGX_HTTP_MODULE, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NGX_MODULE_V1_PADDING};

ngx_module_t *ngx_modules[] = {&ngx_http_ends_preaccess_module, NULL};
char *ngx_module_names[] = {"ngx_http_ends_preaccess_module", NULL};
char *ngx_module_order[] = {NULL};
