
/*
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Counters of all workers, summed in shared memory. Each worker writes what it
 * has counted into a slot of its own, every second and before it answers; what
 * a worker had counted that is no more is kept in a slot without a process.
 */

#include "ngx_http_tokenward.h"


#define NGX_HTTP_TOKENWARD_INTERVAL  1000
#define NGX_HTTP_TOKENWARD_NUMBERS   64


typedef struct {
    ngx_uint_t           used;
    ngx_pid_t            pid;       /* 0: of workers that are no more */
    uint32_t             key;       /* of the source */
    size_t               count;
    uint64_t             numbers[NGX_HTTP_TOKENWARD_NUMBERS];
} ngx_http_tokenward_slot_t;


typedef struct {
    ngx_uint_t                 nslots;
    ngx_http_tokenward_slot_t  slots[1];
} ngx_http_tokenward_slots_t;


static ngx_int_t ngx_http_tokenward_init_zone(ngx_shm_zone_t *zone,
    void *data);
static void ngx_http_tokenward_tick(ngx_event_t *ev);
static void ngx_http_tokenward_publish_all(
    ngx_http_tokenward_main_conf_t *tmcf);
static void ngx_http_tokenward_publish(ngx_shm_zone_t *zone,
    ngx_http_tokenward_source_t *source);
static ngx_http_tokenward_slot_t *ngx_http_tokenward_slot(
    ngx_http_tokenward_slots_t *slots, ngx_pid_t pid, uint32_t key);
static void ngx_http_tokenward_reap(ngx_http_tokenward_slots_t *slots,
    ngx_pid_t gone);
static tokenward_result ngx_http_tokenward_sum(ngx_shm_zone_t *zone,
    ngx_http_tokenward_source_t *source, tokenward_snapshot **sum);


static ngx_event_t       ngx_http_tokenward_timer;
static ngx_connection_t  ngx_http_tokenward_dummy;
static ngx_uint_t        ngx_http_tokenward_full;


char *
ngx_http_tokenward_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_tokenward_main_conf_t *tmcf = conf;

    ssize_t     size;
    ngx_str_t  *value;

    static ngx_str_t  name = ngx_string("tokenward");

    if (tmcf->zone) {
        return "is duplicate";
    }

    value = cf->args->elts;
    size = ngx_parse_size(&value[1]);

    if (size == NGX_ERROR) {
        return "has an invalid size";
    }

    if (size < (ssize_t) (8 * ngx_pagesize)) {
        return "is too small";
    }

    tmcf->zone = ngx_shared_memory_add(cf, &name, size,
                                       &ngx_http_tokenward_module);
    if (tmcf->zone == NULL) {
        return NGX_CONF_ERROR;
    }

    tmcf->zone->init = ngx_http_tokenward_init_zone;
    tmcf->zone->data = tmcf;

    return NGX_CONF_OK;
}


/* A reload goes on counting where it was. */

static ngx_int_t
ngx_http_tokenward_init_zone(ngx_shm_zone_t *zone, void *data)
{
    size_t                       size;
    ngx_slab_pool_t             *shpool;
    ngx_http_tokenward_slots_t  *slots;

    shpool = (ngx_slab_pool_t *) zone->shm.addr;

    if (data || zone->shm.exists) {
        return NGX_OK;
    }

    /* the pool's own pages and their table take a part */

    size = zone->shm.size / 4 * 3;

    slots = ngx_slab_calloc(shpool, size);
    if (slots == NULL) {
        return NGX_ERROR;
    }

    slots->nslots = 1 + (size - sizeof(ngx_http_tokenward_slots_t))
                        / sizeof(ngx_http_tokenward_slot_t);
    shpool->data = slots;

    return NGX_OK;
}


static ngx_http_tokenward_slots_t *
ngx_http_tokenward_lock(ngx_shm_zone_t *zone)
{
    ngx_slab_pool_t  *shpool;

    shpool = (ngx_slab_pool_t *) zone->shm.addr;

    ngx_shmtx_lock(&shpool->mutex);

    return shpool->data;
}


static void
ngx_http_tokenward_unlock(ngx_shm_zone_t *zone)
{
    ngx_shmtx_unlock(&((ngx_slab_pool_t *) zone->shm.addr)->mutex);
}


void
ngx_http_tokenward_metrics_start(ngx_cycle_t *cycle)
{
    ngx_http_tokenward_slots_t      *slots;
    ngx_http_tokenward_main_conf_t  *tmcf;

    tmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                               ngx_http_tokenward_module);

    if (tmcf->zone == NULL || tmcf->sources.nelts == 0) {
        return;
    }

    /* a process id may come again */

    slots = ngx_http_tokenward_lock(tmcf->zone);
    ngx_http_tokenward_reap(slots, ngx_pid);
    ngx_http_tokenward_unlock(tmcf->zone);

    ngx_http_tokenward_publish_all(tmcf);

    ngx_http_tokenward_dummy.fd = (ngx_socket_t) -1;
    ngx_http_tokenward_dummy.data = tmcf;

    ngx_http_tokenward_timer.handler = ngx_http_tokenward_tick;
    ngx_http_tokenward_timer.data = &ngx_http_tokenward_dummy;
    ngx_http_tokenward_timer.log = cycle->log;
    ngx_http_tokenward_timer.cancelable = 1;

    ngx_add_timer(&ngx_http_tokenward_timer, NGX_HTTP_TOKENWARD_INTERVAL);
}


void
ngx_http_tokenward_metrics_stop(ngx_cycle_t *cycle)
{
    ngx_http_tokenward_slots_t      *slots;
    ngx_http_tokenward_main_conf_t  *tmcf;

    tmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                               ngx_http_tokenward_module);

    if (tmcf->zone == NULL || tmcf->sources.nelts == 0) {
        return;
    }

    ngx_http_tokenward_publish_all(tmcf);

    slots = ngx_http_tokenward_lock(tmcf->zone);
    ngx_http_tokenward_reap(slots, ngx_pid);
    ngx_http_tokenward_unlock(tmcf->zone);
}


static void
ngx_http_tokenward_tick(ngx_event_t *ev)
{
    ngx_http_tokenward_publish_all(ngx_http_tokenward_dummy.data);

    ngx_add_timer(ev, NGX_HTTP_TOKENWARD_INTERVAL);
}


static void
ngx_http_tokenward_publish_all(ngx_http_tokenward_main_conf_t *tmcf)
{
    ngx_uint_t                     i;
    ngx_http_tokenward_source_t  **sources;

    sources = tmcf->sources.elts;

    for (i = 0; i < tmcf->sources.nelts; i++) {
        ngx_http_tokenward_publish(tmcf->zone, sources[i]);
    }
}


static void
ngx_http_tokenward_publish(ngx_shm_zone_t *zone,
    ngx_http_tokenward_source_t *source)
{
    size_t                       count;
    const uint64_t              *numbers;
    tokenward_snapshot          *snapshot;
    ngx_http_tokenward_slot_t   *slot;
    ngx_http_tokenward_slots_t  *slots;

    if (tokenward_snapshot_new(source->introspector, &snapshot)
        != TOKENWARD_OK)
    {
        return;
    }

    if (tokenward_snapshot_numbers(snapshot, &numbers, &count) == TOKENWARD_OK
        && count <= NGX_HTTP_TOKENWARD_NUMBERS)
    {
        slots = ngx_http_tokenward_lock(zone);

        slot = ngx_http_tokenward_slot(slots, ngx_pid, source->key);

        if (slot) {
            slot->count = count;
            ngx_memcpy(slot->numbers, numbers, count * sizeof(uint64_t));
        }

        ngx_http_tokenward_unlock(zone);

        if (slot == NULL && !ngx_http_tokenward_full) {
            ngx_http_tokenward_full = 1;
            ngx_log_error(NGX_LOG_ALERT, ngx_cycle->log, 0,
                          "tokenward: \"tokenward_zone\" is too small, "
                          "counters are missing");
        }
    }

    tokenward_snapshot_free(snapshot);
}


/* The slot of a process, which is made if there is none; pid 0: of the gone. */

static ngx_http_tokenward_slot_t *
ngx_http_tokenward_slot(ngx_http_tokenward_slots_t *slots, ngx_pid_t pid,
    uint32_t key)
{
    ngx_uint_t                  i;
    ngx_http_tokenward_slot_t  *slot, *empty;

    empty = NULL;

    for (i = 0; i < slots->nslots; i++) {
        slot = &slots->slots[i];

        if (!slot->used) {
            if (empty == NULL) {
                empty = slot;
            }

            continue;
        }

        if (slot->pid == pid && slot->key == key) {
            return slot;
        }
    }

    if (empty) {
        ngx_memzero(empty, sizeof(ngx_http_tokenward_slot_t));
        empty->used = 1;
        empty->pid = pid;
        empty->key = key;
    }

    return empty;
}


/* Counters of processes that are no more stay, their gauges do not. */

static void
ngx_http_tokenward_reap(ngx_http_tokenward_slots_t *slots, ngx_pid_t gone)
{
    size_t                      n;
    ngx_uint_t                  i;
    ngx_http_tokenward_slot_t  *slot, *kept;

    for (i = 0; i < slots->nslots; i++) {
        slot = &slots->slots[i];

        if (!slot->used || slot->pid == 0
            || (slot->pid != gone
                && (kill(slot->pid, 0) == 0 || ngx_errno != NGX_ESRCH)))
        {
            continue;
        }

        n = slot->count;

        if (n < TOKENWARD_SNAPSHOT_GAUGES) {
            slot->used = 0;
            continue;
        }

        ngx_memzero(slot->numbers + n - TOKENWARD_SNAPSHOT_GAUGES,
                    TOKENWARD_SNAPSHOT_GAUGES * sizeof(uint64_t));

        /* one of those that were gone before may have been another version */

        kept = ngx_http_tokenward_slot(slots, 0, slot->key);

        if (kept == NULL) {
            slot->pid = 0;
            continue;
        }

        if (kept->count != n) {
            ngx_memzero(kept->numbers, sizeof(kept->numbers));
            kept->count = n;
        }

        while (n--) {
            kept->numbers[n] += slot->numbers[n];
        }

        slot->used = 0;
    }
}


static tokenward_result
ngx_http_tokenward_sum(ngx_shm_zone_t *zone,
    ngx_http_tokenward_source_t *source, tokenward_snapshot **sum)
{
    size_t                       n, count;
    uint64_t                     total[NGX_HTTP_TOKENWARD_NUMBERS];
    ngx_uint_t                   i;
    const uint64_t              *numbers;
    tokenward_result             rc;
    tokenward_snapshot          *snapshot;
    ngx_http_tokenward_slot_t   *slot;
    ngx_http_tokenward_slots_t  *slots;

    rc = tokenward_snapshot_new(source->introspector, &snapshot);

    if (rc != TOKENWARD_OK) {
        return rc;
    }

    if (zone == NULL
        || tokenward_snapshot_numbers(snapshot, &numbers, &count)
           != TOKENWARD_OK
        || count > NGX_HTTP_TOKENWARD_NUMBERS)
    {
        *sum = snapshot;
        return TOKENWARD_OK;
    }

    ngx_memcpy(total, numbers, count * sizeof(uint64_t));

    tokenward_snapshot_free(snapshot);

    slots = ngx_http_tokenward_lock(zone);

    ngx_http_tokenward_reap(slots, (ngx_pid_t) -1);

    for (i = 0; i < slots->nslots; i++) {
        slot = &slots->slots[i];

        if (slot->used && slot->key == source->key && slot->pid != ngx_pid
            && slot->count == count)
        {
            for (n = 0; n < count; n++) {
                total[n] += slot->numbers[n];
            }
        }
    }

    ngx_http_tokenward_unlock(zone);

    return tokenward_snapshot_of_numbers(total, count, sum);
}


ngx_int_t
ngx_http_tokenward_metrics_handler(ngx_http_request_t *r)
{
    ngx_int_t                        rc;
    ngx_buf_t                       *b;
    ngx_chain_t                      out;
    tokenward_str                    text;
    tokenward_snapshot              *snapshot;
    ngx_http_tokenward_loc_conf_t   *conf;
    ngx_http_tokenward_main_conf_t  *tmcf;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    conf = ngx_http_get_module_loc_conf(r, ngx_http_tokenward_module);
    tmcf = ngx_http_get_module_main_conf(r, ngx_http_tokenward_module);

    if (conf->source == NULL
        || ngx_http_tokenward_sum(tmcf->zone, conf->source, &snapshot)
           != TOKENWARD_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b = NULL;

    if (tokenward_snapshot_prometheus(snapshot, &text) == TOKENWARD_OK) {
        b = ngx_create_temp_buf(r->pool, text.len);

        if (b) {
            b->last = ngx_cpymem(b->last, text.data, text.len);
        }
    }

    tokenward_snapshot_free(snapshot);

    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_length_n = b->last - b->pos;

    ngx_str_set(&r->headers_out.content_type,
                "text/plain; version=0.0.4; charset=utf-8");
    r->headers_out.content_type_len = sizeof("text/plain") - 1;
    r->headers_out.content_type_lowcase = NULL;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    b->last_buf = (r == r->main) ? 1 : 0;
    b->last_in_chain = 1;

    out.buf = b;
    out.next = NULL;

    return ngx_http_output_filter(r, &out);
}
