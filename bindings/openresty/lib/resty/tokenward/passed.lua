-- What a request remembers of its decision when nginx redirects it internally (`error_page`, `try_files`, `index`, `ngx.exec`), which
-- takes `ngx.ctx` and everything else of Lua's from it: who decided, and the credential that was hidden.
--
-- It stands in memory of the request itself, on nginx's own list of what to do when this very request ends: no other request has that
-- list, and it goes with the request. A note there is two entries, one after the other: the first frees no step, which is nothing to do
-- and which nobody else asks for; the second does nothing and has the note.

local ffi = require "ffi"
local base = require "resty.core.base"

local C = ffi.C
local ffi_cast, ffi_copy, ffi_sizeof = ffi.cast, ffi.copy, ffi.sizeof
local get_request = base.get_request


ffi.cdef[[
    /* nginx's own, for modules: a list of what to do when a request ends. */
    typedef struct tokenward_ngx_cleanup_s {
        void (*handler)(void *data);
        void *data;
        struct tokenward_ngx_cleanup_s *next;
    } tokenward_ngx_cleanup_t;

    tokenward_ngx_cleanup_t *ngx_http_cleanup_add(ngx_http_request_t *r, size_t size);

    typedef struct {
        void                *request;
        double               gate;
        double               policy;
        const unsigned char *value;
        size_t               value_len;
    } tokenward_passed_t;
]]


local SIZE = ffi_sizeof("tokenward_passed_t")
local passed_t, uchars_t = ffi.typeof("tokenward_passed_t *"), ffi.typeof("unsigned char *")


return function(lib)
    local _M = {}

    local free = ffi_cast("void (*)(void *)", lib.tokenward_step_free)


    -- Remembers that a policy of a gate let the request go on; their numbers, where 0 is nobody's. `value`: of the `Authorization` line
    -- that was hidden: it lies in memory of the request, or is a string of Lua's; NULL where none was. False: there is no memory.
    function _M.remember(r, gate, policy, value, value_len, is_string)
        local note = C.ngx_http_cleanup_add(r, is_string and SIZE + value_len or SIZE)
        if note == nil or note.data == nil then
            return false
        end
        local passed = ffi_cast(passed_t, note.data)
        passed.request, passed.gate, passed.policy = r, gate, policy
        passed.value_len = value_len
        if is_string then
            local copy = ffi_cast(uchars_t, note.data) + SIZE
            ffi_copy(copy, value, value_len)
            passed.value = copy
        else
            passed.value = value
        end
        local mark = C.ngx_http_cleanup_add(r, 0)
        if mark == nil then
            return false
        end
        mark.handler = free
        return true
    end


    -- The latest note of the request, or nil.
    function _M.find(r)
        local entry = C.ngx_http_cleanup_add(r, 0)
        while entry ~= nil do
            if entry.handler == free and entry.data == nil then
                local passed = ffi_cast(passed_t, entry.next.data)
                -- A subrequest shares the list of its parent.
                if passed.request == ffi_cast("void *", r) then
                    return passed
                end
            end
            entry = entry.next
        end
        return nil
    end


    -- A step that nginx frees when the request ends, until `disown`.
    function _M.own(step)
        local entry = C.ngx_http_cleanup_add(get_request(), 0)
        if entry == nil then
            return nil
        end
        entry.data = step
        entry.handler = free
        return entry
    end


    function _M.disown(entry)
        entry.handler = nil
    end


    return _M
end
