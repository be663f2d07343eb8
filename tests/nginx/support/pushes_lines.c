// A module of nginx that adds lines to those of the client before the content, as nginx lets any module do: as many as the argument
// `push` says.

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

static ngx_int_t push_lines(ngx_http_request_t *r)
{
    ngx_str_t number;
    if (r != r->main || ngx_http_arg(r, (u_char *) "push", 4, &number) != NGX_OK) {
        return NGX_DECLINED;
    }
    ngx_int_t count = ngx_atoi(number.data, number.len);
    for (ngx_int_t i = 0; i < count; i++) {
        ngx_table_elt_t *line = ngx_list_push(&r->headers_in.headers);
        u_char *name = ngx_pnalloc(r->pool, 64);
        if (line == NULL || name == NULL) {
            return NGX_ERROR;
        }
        ngx_memzero(line, sizeof(ngx_table_elt_t));
        line->key.data = name;
        line->key.len = ngx_snprintf(name, 32, "X-Pushed-%i", i) - name;
        line->lowcase_key = name + 32;
        line->hash = ngx_hash_strlow(line->lowcase_key, name, line->key.len);
        line->value = number;
    }
    return NGX_DECLINED;
}

static ngx_int_t add_handler(ngx_conf_t *cf)
{
    ngx_http_core_main_conf_t *cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);
    ngx_http_handler_pt *handler = ngx_array_push(&cmcf->phases[NGX_HTTP_PRECONTENT_PHASE].handlers);
    if (handler == NULL) {
        return NGX_ERROR;
    }
    *handler = push_lines;
    return NGX_OK;
}

static ngx_http_module_t context = {NULL, add_handler, NULL, NULL, NULL, NULL, NULL, NULL};

ngx_module_t ngx_http_pushes_lines_module = {
    NGX_MODULE_V1, &context, NULL, NGX_HTTP_MODULE, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NGX_MODULE_V1_PADDING};

ngx_module_t *ngx_modules[] = {&ngx_http_pushes_lines_module, NULL};
char *ngx_module_names[] = {"ngx_http_pushes_lines_module", NULL};
char *ngx_module_order[] = {NULL};
