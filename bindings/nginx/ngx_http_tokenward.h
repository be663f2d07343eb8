
/*
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Tokenward for nginx: what the files of the module know of each other.
 *
 *   _module      directives, and what is made at start
 *   _config      documents and policies
 *   _endpoint    locations of endpoints are checked
 *   _request     the phases: begins and decides
 *   _context     what is known of a request, and how it is refused
 *   _wait        sleeps and is woken
 *   _edits       what a decision does to the headers
 *   _rewrite     and to target and body
 *   _call        one introspection request, as a background subrequest
 *   _reply       and what comes back
 *   _filters     refusals get their body here, and calls their answer
 *   _variables   $tokenward_*
 *   _metrics     counters of all workers
 */

#ifndef _NGX_HTTP_TOKENWARD_H_INCLUDED_
#define _NGX_HTTP_TOKENWARD_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include <tokenward.h>


#if (nginx_version < 1018000)
#error "Tokenward needs nginx 1.18 or later"
#endif


#define NGX_HTTP_TOKENWARD_ACCESS     0
#define NGX_HTTP_TOKENWARD_PREACCESS  1


/* What is set on nearly every request has its place in the context. */
#define NGX_HTTP_TOKENWARD_PARTS      3
#define NGX_HTTP_TOKENWARD_TAIL       16


/* A configuration file with its consumers: one introspector in each worker. */

typedef struct {
    ngx_str_t                      file;        /* full name, without #route=... */
    ngx_str_t                      select;
    ngx_str_t                      consumers;   /* full name, or empty */

    tokenward_document            *document;
    tokenward_introspector        *introspector;   /* of this worker */

    size_t                         reply_bytes;
    uint32_t                       key;         /* in the zone */
    unsigned                       https:1;
    unsigned                       lean:1;      /* as of a policy */
} ngx_http_tokenward_source_t;


typedef struct {
    ngx_http_tokenward_source_t   *source;
    ngx_str_t                      json;
    tokenward_policy              *policy;      /* of this worker */

    /* of a GET or HEAD few lines count */
    unsigned                       lean:1;
} ngx_http_tokenward_policy_t;


typedef struct {
    ngx_array_t                    sources;     /* of pointers */
    ngx_array_t                    policies;    /* of pointers */
    ngx_shm_zone_t                *zone;

    /* indices of variables whose value may stem from what the edits change */
    ngx_array_t                    stale;
} ngx_http_tokenward_main_conf_t;


typedef struct {
    ngx_flag_t                     guarded;     /* there is a protected location */
} ngx_http_tokenward_srv_conf_t;


typedef struct {
    ngx_flag_t                     enable;
    ngx_uint_t                     phase;
    ngx_str_t                      config;
    ngx_str_t                      consumers;
    ngx_str_t                      endpoint;
    ngx_flag_t                     insecure;
    ngx_str_t                      policy_text;
    ngx_flag_t                     metrics;

    ngx_http_tokenward_source_t   *source;
    ngx_http_tokenward_policy_t   *policy;      /* NULL: the document's own */
} ngx_http_tokenward_loc_conf_t;


typedef struct ngx_http_tokenward_ctx_s   ngx_http_tokenward_ctx_t;
typedef struct ngx_http_tokenward_call_s  ngx_http_tokenward_call_t;


/* Lines that were set before and are set again: never changed, and copied. */

typedef struct {
    uint64_t                       shared;
    ngx_uint_t                     refs;
    size_t                         count;
    ngx_table_elt_t                elts[1];
} ngx_http_tokenward_lines_t;


/*
 * One of a main request that came to a protected location. It lives as long
 * as the request's pool, and is found again after an internal redirect. It is
 * not of that pool, which would have to grow for it: a worker uses the same
 * few again and again.
 */

struct ngx_http_tokenward_ctx_s {
    ngx_http_request_t            *request;

    /* who decides: a location with the same two decides alike */
    ngx_http_tokenward_source_t   *source;
    ngx_http_tokenward_policy_t   *policy;

    tokenward_step                *step;
    const tokenward_decision      *decision;    /* a view of the step */
    ngx_uint_t                     status;      /* of a refusal */

    ngx_http_tokenward_lines_t    *lines;       /* views of it may be in use */

    ngx_http_tokenward_call_t     *call;        /* under way */
    ngx_event_t                   *timer;       /* of a call or a wait */

    ngx_str_t                      body;        /* that the client sent */

    unsigned                       allowed:1;
    unsigned                       refused:1;
    unsigned                       challenged:1;
    unsigned                       wanted:1;    /* adds headers to the response */
    unsigned                       waiting:1;
    unsigned                       woken:1;
    unsigned                       body_asked:1;
    unsigned                       body_read:1;
    unsigned                       edited:1;
    unsigned                       replacing:1; /* the body of a refusal */
    unsigned                       replaced:1;
    unsigned                       tail_used:1;
    unsigned                       failed:1;    /* a connection, just now */

    /* from here on it is not set to zero */

    ngx_http_tokenward_ctx_t      *next;        /* of those that are free */

    /* what else the client sent, as it was before any edit */
    ngx_list_t                     headers;
    ngx_table_elt_t               *authorization;
    ngx_str_t                      method;
    ngx_str_t                      target;

    /* lines as long as Authorization that begin like it, and the last one */
    ngx_uint_t                     ncredentials;
    ngx_table_elt_t               *credential;

    ngx_list_part_t                parts[NGX_HTTP_TOKENWARD_PARTS];
    ngx_table_elt_t                tail[NGX_HTTP_TOKENWARD_TAIL];
};


struct ngx_http_tokenward_call_s {
    ngx_http_tokenward_ctx_t      *ctx;         /* NULL: nobody waits any more */
    ngx_http_tokenward_loc_conf_t *conf;
    ngx_http_request_t            *request;     /* the subrequest */

    ngx_uint_t                     failure;
    ngx_uint_t                     status;
    u_char                        *body;
    size_t                         length;
    size_t                         size;
    size_t                         limit;

    ngx_int_t                    (*create_request)(ngx_http_request_t *r);
    ngx_int_t                    (*process_header)(ngx_http_request_t *r);
    void                         (*finalize_request)(ngx_http_request_t *r,
                                       ngx_int_t rc);

    ngx_http_upstream_srv_conf_t  *upstream;    /* the location's, of a retry */
    ngx_event_get_peer_pt          get_peer;

    unsigned                       answered:1;  /* a header section was read */
    unsigned                       over:1;
    unsigned                       fresh:1;     /* over a new connection */
};


extern ngx_module_t  ngx_http_tokenward_module;


/* _config */

char *ngx_http_tokenward_resolve(ngx_conf_t *cf,
    ngx_http_tokenward_loc_conf_t *conf);
ngx_int_t ngx_http_tokenward_start(ngx_cycle_t *cycle);
void ngx_http_tokenward_stop(ngx_cycle_t *cycle);

/* _endpoint */

ngx_int_t ngx_http_tokenward_check_endpoints(ngx_conf_t *cf);

/* _request */

ngx_int_t ngx_http_tokenward_post_read_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_tokenward_rewrite_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_tokenward_preaccess_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_tokenward_access_any_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_tokenward_access_all_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_tokenward_view(ngx_http_tokenward_ctx_t *ctx,
    tokenward_request *request, tokenward_header *few, ngx_uint_t nfew);

/* _context */

ngx_http_tokenward_ctx_t *ngx_http_tokenward_ctx(ngx_http_request_t *r);
ngx_http_tokenward_ctx_t *ngx_http_tokenward_create_ctx(
    ngx_http_request_t *r);
ngx_int_t ngx_http_tokenward_refuse(ngx_http_tokenward_ctx_t *ctx);
ngx_int_t ngx_http_tokenward_fail(ngx_http_tokenward_ctx_t *ctx,
    const char *what);
void ngx_http_tokenward_drop(void *data);
ngx_int_t ngx_http_tokenward_retire(ngx_http_tokenward_ctx_t *ctx);

/* _wait */

ngx_int_t ngx_http_tokenward_resume(ngx_http_tokenward_ctx_t *ctx);
ngx_int_t ngx_http_tokenward_wait(ngx_http_tokenward_ctx_t *ctx,
    const tokenward_wait *wait);
ngx_int_t ngx_http_tokenward_park(ngx_http_tokenward_ctx_t *ctx);
void ngx_http_tokenward_wake(ngx_http_tokenward_ctx_t *ctx);
ngx_int_t ngx_http_tokenward_set_timer(ngx_http_tokenward_ctx_t *ctx,
    ngx_event_handler_pt handler, uint64_t deadline_us);

/* _edits */

ngx_int_t ngx_http_tokenward_strip(ngx_http_request_t *r);
void ngx_http_tokenward_save(ngx_http_tokenward_ctx_t *ctx);
void ngx_http_tokenward_restore(ngx_http_tokenward_ctx_t *ctx);
ngx_int_t ngx_http_tokenward_apply(ngx_http_tokenward_ctx_t *ctx);
ngx_int_t ngx_http_tokenward_apply_again(ngx_http_tokenward_ctx_t *ctx,
    const tokenward_brief *brief);
void ngx_http_tokenward_release(ngx_http_tokenward_lines_t *lines);

/* _rewrite */

#define NGX_HTTP_TOKENWARD_STALE_HEADER  1
#define NGX_HTTP_TOKENWARD_STALE_TARGET  2
#define NGX_HTTP_TOKENWARD_STALE_BODY    4

ngx_int_t ngx_http_tokenward_view_body(ngx_http_tokenward_ctx_t *ctx,
    size_t limit);
ngx_int_t ngx_http_tokenward_new_target(ngx_http_tokenward_ctx_t *ctx,
    tokenward_str *target);
ngx_int_t ngx_http_tokenward_new_body(ngx_http_tokenward_ctx_t *ctx,
    tokenward_str *body);
void ngx_http_tokenward_flush(ngx_http_request_t *r, ngx_uint_t what);
ngx_int_t ngx_http_tokenward_mark_stale(ngx_cycle_t *cycle);

/* _call */

ngx_int_t ngx_http_tokenward_call(ngx_http_tokenward_ctx_t *ctx,
    ngx_http_tokenward_loc_conf_t *conf, const tokenward_outbound *outbound);
ngx_int_t ngx_http_tokenward_call_preaccess(ngx_http_request_t *r);
void ngx_http_tokenward_call_abort(ngx_http_tokenward_call_t *call);
ngx_http_tokenward_call_t *ngx_http_tokenward_call_of(ngx_http_request_t *r);

/* _reply */

ngx_int_t ngx_http_tokenward_call_reply(ngx_http_tokenward_ctx_t *ctx);
void ngx_http_tokenward_call_header(ngx_http_tokenward_call_t *call);
void ngx_http_tokenward_call_body(ngx_http_tokenward_call_t *call,
    ngx_chain_t *in);

/* _filters */

ngx_int_t ngx_http_tokenward_filter_init(ngx_conf_t *cf);

/* _variables */

ngx_int_t ngx_http_tokenward_add_variables(ngx_conf_t *cf);

/* _metrics */

char *ngx_http_tokenward_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_http_tokenward_metrics_handler(ngx_http_request_t *r);
void ngx_http_tokenward_metrics_start(ngx_cycle_t *cycle);
void ngx_http_tokenward_metrics_stop(ngx_cycle_t *cycle);


static ngx_inline tokenward_str
ngx_http_tokenward_str(const ngx_str_t *s)
{
    tokenward_str  str;

    str.data = (const char *) s->data;
    str.len = s->len;

    return str;
}


/* nginx's own time of this event loop: what its timers go by. */

static ngx_inline tokenward_time
ngx_http_tokenward_now(void)
{
    ngx_time_t      *tp;
    tokenward_time   now;

    tp = ngx_timeofday();

    now.wall_us = (uint64_t) tp->sec * 1000000 + (uint64_t) tp->msec * 1000;
    now.monotonic_us = (uint64_t) ngx_current_msec * 1000;

    return now;
}


#endif /* _NGX_HTTP_TOKENWARD_H_INCLUDED_ */
