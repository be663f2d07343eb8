-- The current request: seen by the core without a Lua string for each header, and edited from the core's own memory. This is what every
-- request goes through; nothing here allocates but what nginx and Lua need for the edits themselves.
--
-- nginx's headers are read and set through the functions behind ngx.req, as lua-resty-core declares and calls them. It insists on the very
-- release of the Lua module that it is made for, and is used so in those of its releases that were looked at; ngx.req serves otherwise.

local ffi = require "ffi"
local base = require "resty.core.base"
require "resty.core.request"
require "resty.core.time"
local clock = require "resty.tokenward.clock"
local decisions = require "resty.tokenward.decision"
local headers = require "resty.tokenward.headers"
local library = require "resty.tokenward.library"

local C = ffi.C
local ffi_new, ffi_cast, ffi_sizeof, ffi_str, ffi_gc = ffi.new, ffi.cast, ffi.sizeof, ffi.string, ffi.gc
local get_request = base.get_request
local get_method, get_headers = ngx.req.get_method, ngx.req.get_headers
local set_header, clear_header = ngx.req.set_header, ngx.req.clear_header
local read_body, get_body_data, get_body_file = ngx.req.read_body, ngx.req.get_body_data, ngx.req.get_body_file
local set_body_data, set_uri_args = ngx.req.set_body_data, ngx.req.set_uri_args
local http_version = ngx.req.http_version
local text, text_of, set, view = library.text, library.text_of, library.set, library.view
local tonumber, type, error, pairs, ipairs, tostring = tonumber, type, error, pairs, ipairs, tostring
local now = clock.now


local OK = library.OK
local errmsg = base.get_errmsg_ptr()
local cchar, cuchar = ffi.typeof("const char *"), ffi.typeof("const unsigned char *")

-- 0.1.17 made ngx.req.set_header what it is; 0.1.32 is the last that was looked at.
local function is_known(version)
    local major, minor, patch = (version or ""):match("^(%d+)%.(%d+)%.(%d+)")
    patch = tonumber(patch)
    return major == "0" and minor == "1" and patch >= 17 and patch <= 32
end


-- `direct`: nil: by what lua-resty-core declares, where that is known, and by ngx.req elsewhere; `false`: by ngx.req alone; `true`: as nil,
-- and lines are added by nginx's own list.
return function(lib, direct)
    local is_direct = direct ~= false and is_known(base.version)
    if direct and not is_direct then
        ngx.log(ngx.WARN, "tokenward: `direct` has no effect with lua-resty-core ", base.version)
    end

    local _M = { is_direct = is_direct }

    local request = ffi_new("tokenward_request")
    request.struct_size = ffi_sizeof("tokenward_request")
    local step_out = ffi_new("tokenward_step *[1]")
    local needed_out = ffi_new("bool[1]")
    local names_out = ffi_new("const tokenward_str *[1]")
    local headers_out = ffi_new("const tokenward_header *[1]")
    local count_out = ffi_new("size_t[1]")

    -- Strings that `request` points into.
    local alive = { "", "", "", {} }
    local room, lines, elements = 0, nil, nil
    local truncated = ffi_new("int[1]")


    local function grow(count)
        room = count + 32
        lines = ffi_new("tokenward_header[?]", room)
        request.headers = lines
        if is_direct then
            elements = ffi_new("ngx_http_lua_ffi_table_elt_t[?]", room)
        end
    end
    grow(0)


    -- Header lines as they came. Tells whether they speak of a body; with HTTP/2 there may be one without that.
    local fill_headers
    if is_direct then
        function fill_headers(r)
            local count = C.ngx_http_lua_ffi_req_get_headers_count(r, 0, truncated)
            if count < 0 then
                error("the phase has no request headers", 3)
            end
            if count > room then
                grow(count)
            end
            if count > 0 then
                C.ngx_http_lua_ffi_req_get_headers(r, elements, count, 1)
            end
            local has_body = false
            for at = 0, count - 1 do
                local element, line = elements[at], lines[at]
                local length = element.key.len
                -- Content-Length or Transfer-Encoding, or something as long: the core is asked then.
                has_body = has_body or length == 14 or length == 17
                line.name.data, line.name.len = ffi_cast(cchar, element.key.data), length
                line.value.data, line.value.len = ffi_cast(cchar, element.value.data), element.value.len
            end
            request.headers_len = count
            return has_body
        end
    else
        function fill_headers()
            local count, kept = 0, {}
            local function add(name, value)
                if count >= room then
                    local before = lines
                    grow(count * 2)
                    ffi.copy(lines, before, count * ffi_sizeof("tokenward_header"))
                end
                value = tostring(value)
                set(lines[count].name, name)
                set(lines[count].value, value)
                count = count + 1
                kept[count] = value
            end
            local all = get_headers(0, true)
            for name, value in pairs(all) do
                if type(value) == "table" then
                    for at = 1, #value do
                        add(name, value[at])
                    end
                else
                    add(name, value)
                end
            end
            kept.all = all
            alive[4] = kept
            request.headers_len = count
            return true
        end
    end


    local function body_of(gate)
        read_body()
        local body = get_body_data()
        if body then
            return body
        end
        local path = get_body_file()
        if not path then
            return ""
        end
        -- One byte more than is searched: a longer one is passed on as it is.
        local file, err = io.open(path, "rb")
        if not file then
            return nil, err
        end
        body, err = file:read(tonumber(lib.tokenward_body_bytes(gate.handle)) + 1)
        file:close()
        if not body and err then
            return nil, err
        end
        return body or ""
    end


    local function fill(r)
        local has_body = fill_headers(r)
        local method, target = get_method(), ngx.var.request_uri or "/"
        alive[1], alive[2] = method, target
        set(request.method, method)
        set(request.target, target)
        request.body.data, request.body.len = nil, 0
        return has_body or (method ~= "GET" and method ~= "HEAD")
    end


    -- What stands in `step_out` belongs to nobody yet: what a Lua error left there is freed here.
    local function clear_out()
        if step_out[0] ~= nil then
            lib.tokenward_step_free(step_out[0])
            step_out[0] = nil
        end
    end


    -- The step in `step_out`, which the collector frees from now on if nobody does before.
    local function take()
        local step = ffi_gc(step_out[0], lib.tokenward_step_free)
        step_out[0] = nil
        return step
    end


    -- Begins to decide about the current request: the step.
    function _M.begin(gate, policy)
        local r = get_request()
        if not r then
            error("there is no request here", 2)
        end
        if fill(r) and lib.tokenward_needs_body(gate.handle, policy, request, needed_out) == OK and needed_out[0] then
            local body, err = body_of(gate)
            if not body then
                return nil, err
            end
            -- Others may have come while the body was read.
            fill(r)
            alive[3] = body
            request.body.data, request.body.len = body, #body
        end
        clear_out()
        local result = lib.tokenward_begin(gate.handle, policy, request, now(), step_out)
        if result ~= OK then
            return nil, library.reason(result)
        end
        return take()
    end


    local function set_direct(r, name, value, override)
        local result
        if value == nil then
            result = C.ngx_http_lua_ffi_req_set_header(r, ffi_cast(cuchar, name.data), name.len, nil, 0, nil, 0, 1, errmsg)
        else
            result = C.ngx_http_lua_ffi_req_set_header(
                r, ffi_cast(cuchar, name.data), name.len, ffi_cast(cuchar, value.data), value.len, nil, 0, override, errmsg)
        end
        return result == 0
    end


    local function edit_direct(decision)
        local r = get_request()
        if lib.tokenward_decision_remove(decision, names_out, count_out) ~= OK then
            return false
        end
        local count, names = tonumber(count_out[0]), names_out[0]
        for at = 0, count - 1 do
            if not set_direct(r, names[at], nil, 1) then
                return false
            end
        end
        if lib.tokenward_decision_set(decision, headers_out, count_out) ~= OK then
            return false
        end
        count = tonumber(count_out[0])
        for at = 0, count - 1 do
            -- What there was of that name is removed already.
            local line = headers_out[0][at]
            if not set_direct(r, line.name, line.value, 0) then
                return false
            end
        end
        return true
    end


    local function edit_slowly(decision)
        if lib.tokenward_decision_remove(decision, names_out, count_out) ~= OK then
            return false
        end
        for at = 0, tonumber(count_out[0]) - 1 do
            clear_header(text(names_out[0][at]))
        end
        if lib.tokenward_decision_set(decision, headers_out, count_out) ~= OK then
            return false
        end
        local values, order = {}, {}
        for at = 0, tonumber(count_out[0]) - 1 do
            local name, value = text(headers_out[0][at].name), text(headers_out[0][at].value)
            if values[name] then
                values[name][#values[name] + 1] = value
            else
                values[name] = { value }
                order[#order + 1] = name
            end
        end
        for _, name in ipairs(order) do
            set_header(name, values[name])
        end
        return (http_version() or 2) >= 1
    end


    -- Applies an allow to the current request; false: it could not be, and the request must not go on. With a variable for it, a new
    -- target is put there, too: `proxy_pass http://upstream$variable` sends it byte for byte.
    local edit = is_direct and edit_direct or edit_slowly

    function _M.apply(decision, target_variable)
        if not lib.tokenward_decision_is_allow(decision) or not edit(decision) then
            return false
        end
        if lib.tokenward_decision_target(decision, view) == OK then
            local target = text(view[0])
            set_uri_args(target:match("%?(.*)$") or "")
            if target_variable then
                ngx.var[target_variable] = target
            end
        end
        if lib.tokenward_decision_body(decision, view) == OK then
            set_body_data(text(view[0]))
        end
        return true
    end


    -- The whole way of a request that is decided at once and allowed, with nothing to rewrite but headers: what most requests are. It is
    -- one function with everything in it, since that is what LuaJIT compiles to few traces. Gives the note for later phases; or nil and
    -- the step if there is more to do, nothing being applied then; or nil, nil and true where the request must not go on.
    local summary = ffi_new("tokenward_summary")
    local SIZE = ffi_sizeof("tokenward_summary")
    local SOURCES, IDENTITIES = decisions.SOURCES, decisions.IDENTITIES
    local ngx_ctx, ngx_var, ngx_now, monotonic = ngx, ngx.var, ngx.now, clock.monotonic
    local time = ffi_new("tokenward_time")

    -- Where nginx's list of headers lies: looked for at the first requests of the worker, where that is asked for.
    local tries, offset, is_chained = direct and 100 or 0, nil, false
    local add, is_whole = headers.add, headers.is_whole
    local list_t, bytes_t = ffi.typeof("tokenward_ngx_list_t *"), ffi.typeof("char *")

    local function seek(r, count)
        tries = tries - 1
        local found, chained = headers.find(r, elements, count)
        if found then
            tries = 0
            if headers.is_true(r, found, chained, errmsg) then
                offset, is_chained = found, chained
            end
        end
        _M.has_list = offset ~= nil
    end

    function _M.pass(gate, policy)
        local r = get_request()
        if not r then
            error("there is no request here", 3)
        end
        local count = C.ngx_http_lua_ffi_req_get_headers_count(r, 0, truncated)
        if count <= 0 or count > room then
            return nil
        end
        C.ngx_http_lua_ffi_req_get_headers(r, elements, count, 1)
        if tries > 0 then
            seek(r, count)
            -- The probe came and went: they are read again.
            if C.ngx_http_lua_ffi_req_get_headers_count(r, 0, truncated) ~= count then
                return nil
            end
            C.ngx_http_lua_ffi_req_get_headers(r, elements, count, 1)
        end
        local has_body = false
        for at = 0, count - 1 do
            local element, line = elements[at], lines[at]
            local length = element.key.len
            has_body = has_body or length == 14 or length == 17
            line.name.data, line.name.len = ffi_cast(cchar, element.key.data), length
            line.value.data, line.value.len = ffi_cast(cchar, element.value.data), element.value.len
        end
        local method, target = get_method(), ngx_var.request_uri
        if has_body or (method ~= "GET" and method ~= "HEAD") or not target then
            return nil
        end
        request.headers_len = count
        alive[1], alive[2] = method, target
        request.method.data, request.method.len = method, #method
        request.target.data, request.target.len = target, #target
        request.body.data, request.body.len = nil, 0
        time.wall_us = ngx_now() * 1e6 + 0.5
        time.monotonic_us = monotonic() * 1e6 + 0.5
        -- Nothing here yields. A Lua error below leaves the step in `step_out`, where the next request frees it.
        if step_out[0] ~= nil then
            clear_out()
        end
        if lib.tokenward_begin(gate.handle, policy, request, time, step_out) ~= OK then
            return nil
        end
        -- Pointers are read again from where they lie: LuaJIT would make an object of each that is kept over a loop.
        if lib.tokenward_decision_summary(lib.tokenward_step_decision(step_out[0]), summary, SIZE) ~= OK
            or summary.allow ~= 1 or summary.headers_len ~= 0 or summary.target.data ~= nil or summary.body.data ~= nil
        then
            return nil, take()
        end

        local done = 0
        for at = 0, tonumber(summary.remove_len) - 1 do
            local name = summary.remove[at]
            done = done + C.ngx_http_lua_ffi_req_set_header(
                r, ffi_cast(cuchar, name.data), name.len, nil, 0, nil, 0, 1, errmsg)
        end
        -- A list of several parts, or one that is shared with another request, is the Lua module's to see to.
        if offset and is_whole(ffi_cast(list_t, ffi_cast(bytes_t, r) + offset)) then
            for at = 0, tonumber(summary.set_len) - 1 do
                local line = summary.set[at]
                if not add(ffi_cast(list_t, ffi_cast(bytes_t, r) + offset), is_chained,
                    line.name.data, tonumber(line.name.len), line.value.data, tonumber(line.value.len))
                then
                    done = -1
                end
            end
        else
            for at = 0, tonumber(summary.set_len) - 1 do
                -- Added: what there was of that name is removed.
                local line = summary.set[at]
                done = done + C.ngx_http_lua_ffi_req_set_header(
                    r, ffi_cast(cuchar, line.name.data), line.name.len, ffi_cast(cuchar, line.value.data), line.value.len,
                    nil, 0, 0, errmsg)
            end
        end
        if done ~= 0 then
            -- All of them are 0, or less. Some edits are made: nothing can be made of this request any more.
            clear_out()
            return nil, nil, true
        end

        if not gate.context then
            clear_out()
            return true
        end
        local id, username, custom_id = summary.consumer_id, summary.consumer_username, summary.consumer_custom_id
        local note = {
            allow = true,
            source = SOURCES[summary.source],
            identity = IDENTITIES[summary.identity],
            consumer_id = id.len ~= 0 and ffi_str(id.data, id.len) or nil,
            consumer_username = username.len ~= 0 and ffi_str(username.data, username.len) or nil,
            consumer_custom_id = custom_id.len ~= 0 and ffi_str(custom_id.data, custom_id.len) or nil,
        }
        if gate.keep then
            gate:remember(note, lib.tokenward_step_decision(step_out[0]))
        end
        ngx_ctx.ctx.tokenward = note
        clear_out()
        return note
    end


    -- A refusal, copied: `{ status, headers, body }`. Its decision may go then.
    function _M.refusal(decision)
        local status = tonumber(lib.tokenward_decision_status(decision))
        local refusal = { status = status >= 400 and status or 500, headers = {} }
        if lib.tokenward_decision_refusal_headers(decision, headers_out, count_out) == OK then
            for at = 0, tonumber(count_out[0]) - 1 do
                local line = headers_out[0][at]
                refusal.headers[at + 1] = { text(line.name), text(line.value) }
            end
        end
        refusal.body = text_of(lib.tokenward_decision_refusal_body(decision, view))
        return refusal
    end


    -- Answers the current request with a refusal, and ends it.
    function _M.refuse(refusal)
        -- A client that asks whether to send its body is told no.
        clear_header("Expect")
        ngx.status = refusal.status
        for _, line in ipairs(refusal.headers) do
            ngx.header[line[1]] = line[2]
        end
        if refusal.body then
            ngx.header["Content-Length"] = #refusal.body
            ngx.print(refusal.body)
        else
            ngx.send_headers()
        end
        return ngx.exit(refusal.status)
    end


    -- The refusal for what must not happen: 500. nil where there is no memory.
    function _M.internal(gate)
        clear_out()
        if lib.tokenward_internal(gate.handle, get_method() == "HEAD", step_out) ~= OK then
            return nil
        end
        local step = take()
        local refusal = _M.refusal(lib.tokenward_step_decision(step))
        lib.tokenward_step_free(ffi_gc(step, nil))
        return refusal
    end


    return _M
end
