-- The current request: seen by the core without a Lua string for each header, and edited from the core's own memory. This is what every
-- request goes through; nothing here allocates but what nginx and Lua need for the edits themselves.
--
-- nginx's headers are read and set through the functions behind ngx.req, as lua-resty-core declares and calls them. It insists on the very
-- release of the Lua module that it is made for, and is used so in those of its releases that were looked at; ngx.req serves otherwise.

local ffi = require "ffi"
local bit = require "bit"
local base = require "resty.core.base"
require "resty.core.request"
require "resty.core.time"
require "resty.core.var"
local clock = require "resty.tokenward.clock"
local decisions = require "resty.tokenward.decision"
local headers = require "resty.tokenward.headers"
local library = require "resty.tokenward.library"

local C = ffi.C
local ffi_new, ffi_cast, ffi_sizeof, ffi_str, ffi_gc, ffi_copy = ffi.new, ffi.cast, ffi.sizeof, ffi.string, ffi.gc, ffi.copy
local band, bor, lshift = bit.band, bit.bor, bit.lshift
local get_request = base.get_request
local get_method, get_headers = ngx.req.get_method, ngx.req.get_headers
local set_header, clear_header = ngx.req.set_header, ngx.req.clear_header
local read_body, get_body_data, get_body_file = ngx.req.read_body, ngx.req.get_body_data, ngx.req.get_body_file
local set_body_data, set_uri_args = ngx.req.set_body_data, ngx.req.set_uri_args
local http_version = ngx.req.http_version
local text, text_of, set, view = library.text, library.text_of, library.set, library.view
local tonumber, type, error, pairs, ipairs, tostring = tonumber, type, error, pairs, ipairs, tostring
local now, may_be_authorization, is_authorization = clock.now, headers.may_be_authorization, headers.is_authorization


local OK = library.OK
-- The identity of a preflight request: nobody was asked about one.
local NOBODY_ASKED = 0
local errmsg = base.get_errmsg_ptr()
local cchar, cuchar = ffi.typeof("const char *"), ffi.typeof("const unsigned char *")

-- 0.1.17 made ngx.req.set_header what it is; 0.1.32 is the last that was looked at.
local function is_known(version)
    local major, minor, patch = (version or ""):match("^(%d+)%.(%d+)%.(%d+)")
    patch = tonumber(patch)
    return major == "0" and minor == "1" and patch >= 17 and patch <= 32
end


-- `direct`: nil and `true`: by nginx's own list, where this nginx is known and the list is found to be what it has to be; else by what
-- lua-resty-core declares, where that is known, which is what "module" is; else by ngx.req, which is what `false` is.
return function(lib, passed, direct)
    local is_direct = direct ~= false and is_known(base.version)
    local size = is_direct and direct ~= "module" and headers.size_of(ngx.config.nginx_version) or nil
    if direct == true and not size or direct == "module" and not is_direct then
        ngx.log(ngx.WARN, "tokenward: `direct` has no effect with nginx ", ngx.config.nginx_version, " and lua-resty-core ", base.version)
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


    -- How many of `count` lines are `Authorization`.
    local function credentials(count)
        local found = 0
        for at = 0, count - 1 do
            local name = lines[at].name
            if may_be_authorization(name.data, tonumber(name.len)) == 1 and is_authorization(name.data) then
                found = found + 1
            end
        end
        return found
    end


    -- Header lines as they came. Tells whether they speak of a body (with HTTP/2 there may be one without that), and how many are
    -- `Authorization`. There is room for one more.
    local fill_headers
    if is_direct then
        function fill_headers(r)
            local count = C.ngx_http_lua_ffi_req_get_headers_count(r, 0, truncated)
            if count < 0 then
                error("the phase has no request headers", 3)
            end
            if count >= room then
                grow(count)
            end
            if count > 0 then
                C.ngx_http_lua_ffi_req_get_headers(r, elements, count, 1)
            end
            local has_body, found = false, 0
            for at = 0, count - 1 do
                local element, line = elements[at], lines[at]
                local length = element.key.len
                -- Content-Length or Transfer-Encoding, or something as long: the core is asked then.
                has_body = has_body or length == 14 or length == 17
                found = found + may_be_authorization(element.key.data, length)
                line.name.data, line.name.len = ffi_cast(cchar, element.key.data), length
                line.value.data, line.value.len = ffi_cast(cchar, element.value.data), element.value.len
            end
            request.headers_len = count
            return has_body, found > 0 and credentials(count) or 0
        end
    else
        function fill_headers()
            local count, found, kept = 0, 0, {}
            local function add(name, value)
                found = found + (#name == 13 and name:lower() == "authorization" and 1 or 0)
                if count + 1 >= room then
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
            return true, found
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


    local AUTHORIZATION = "Authorization"
    -- How many of `lines`, as they came, are `Authorization`.
    local lines_found = 0

    -- The current request. Tells whether it may have a body, and what is remembered of an earlier decision about it, where that hid
    -- something: the credential is then there again. What that decision set is there as if the client had sent it, and is removed.
    local function fill(r)
        local has_body, found = fill_headers(r)
        lines_found = found
        local earlier = found == 0 and passed.find(r) or nil
        if earlier and earlier.value ~= nil then
            local line = lines[request.headers_len]
            set(line.name, AUTHORIZATION)
            line.value.data, line.value.len = ffi_cast(cchar, earlier.value), earlier.value_len
            request.headers_len = request.headers_len + 1
        end
        local method, target = get_method(), ngx.var.request_uri or "/"
        alive[1], alive[2] = method, target
        set(request.method, method)
        set(request.target, target)
        request.body.data, request.body.len = nil, 0
        return has_body or (method ~= "GET" and method ~= "HEAD"), earlier
    end


    -- Whether an earlier decision about a request is what a policy of a gate would decide: it stands, and all edits are made.
    local function stands(earlier, gate, policy_number)
        return earlier.gate == gate.number and earlier.policy == policy_number and not gate.context
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


    -- Begins to decide about the current request: the step; or nil, nil and true where what was decided already stands for this policy.
    function _M.begin(gate, policy, policy_number)
        local r = get_request()
        if not r then
            error("there is no request here", 2)
        end
        local asks, earlier = fill(r)
        if earlier and stands(earlier, gate, policy_number) then
            return nil, nil, true
        end
        if asks and lib.tokenward_needs_body(gate.handle, policy, request, needed_out) == OK and needed_out[0] then
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


    -- Whether an earlier decision about this request hid a credential that is found no more.
    function _M.is_redirected()
        local r = get_request()
        return r ~= nil and passed.find(r) ~= nil
    end


    -- Remembers a decision that hides something from the upstream, for the case that the request is redirected within nginx.
    -- `is_now`: `lines` are those of this request.
    local function remember(r, gate, policy_number, is_now)
        if not is_now then
            local _, found = fill_headers(r)
            lines_found = found
        end
        if lines_found == 0 then
            local earlier = passed.find(r)
            return passed.remember(r, gate.number, policy_number, earlier and earlier.value, earlier and earlier.value_len or 0)
        end
        local credential, many
        for at = 0, tonumber(request.headers_len) - 1 do
            local line = lines[at]
            if line.name.len == 13 and text(line.name):lower() == "authorization" then
                many, credential = credential ~= nil, line
            end
        end
        if not credential or many then
            -- Which of several it would be is not for us to say.
            return passed.remember(r, gate.number, policy_number, nil, 0)
        end
        return passed.remember(r, gate.number, policy_number, credential.value.data, tonumber(credential.value.len), true)
    end


    -- Applies an allow to the current request; false: it could not be, and the request must not go on. `policy_number`: 0 where another
    -- look at the request has to decide anew. With a variable for it, a new target is put there, too: `proxy_pass
    -- http://upstream$variable` sends it byte for byte.
    local edit = is_direct and edit_direct or edit_slowly

    function _M.apply(gate, policy_number, decision, is_now)
        local r = get_request()
        if not lib.tokenward_decision_is_allow(decision) then
            return false
        end
        if lib.tokenward_decision_remove(decision, names_out, count_out) ~= OK then
            return false
        end
        local hides = count_out[0] > 0 and may_be_authorization(names_out[0][0].data, tonumber(names_out[0][0].len)) == 1
        local has_target = lib.tokenward_decision_target(decision, view) == OK
        local has_body = lib.tokenward_decision_body(decision, view) == OK
        local is_redirected = passed.find(r) ~= nil
        -- After another one even if it hides nothing: the edits are those of this one now.
        if hides or has_target or has_body or is_redirected then
            -- A preflight is let through for what it is, and nginx makes a GET of it for the page of an error.
            local is_preflight = lib.tokenward_decision_identity(decision) == NOBODY_ASKED
            remember(r, gate, (has_target or is_preflight) and 0 or policy_number, is_now)
        end
        if not edit(decision) then
            return false
        end
        if lib.tokenward_decision_target(decision, view) == OK then
            local target = text(view[0])
            -- After a redirect the arguments are its own, or what they were made already.
            if not is_redirected or ngx.var.args == (ngx.var.request_uri or ""):match("%?(.*)$") then
                set_uri_args(target:match("%?(.*)$") or "")
            end
            if gate.target_variable then
                ngx.var[gate.target_variable] = target
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
    local ngx_ctx, ngx_now, monotonic = ngx, ngx.now, clock.monotonic
    local time = ffi_new("tokenward_time")
    local text_out, rows_out = ffi_new("unsigned char *[1]"), ffi_new("char *[1]")
    local brief = ffi_new("tokenward_brief")
    local BRIEF_SIZE = ffi_sizeof("tokenward_brief")
    local URI, uri_lowcase = "request_uri", ffi_new("char[?]", #"request_uri")
    local uri_out, uri_len_out = ffi_new("char *[1]"), ffi_new("size_t[1]")
    -- Lengths of Content-Length and Transfer-Encoding, a bit each.
    local BODY_LENGTHS = bor(lshift(1, 14), lshift(1, 17))

    -- Where nginx's list of headers lies, and its pointer to `Authorization`: looked for at the first requests of the worker.
    local tries, offset, pointer = size and 100 or 0, nil, nil
    local add, is_whole, kept, keep = headers.add, headers.is_whole, headers.kept, headers.keep
    local list_t, header_t, bytes_t = ffi.typeof("tokenward_ngx_list_t *"), ffi.typeof("tokenward_ngx_header_t *"), ffi.typeof("char *")
    local words_t, uchars_t, word = ffi.typeof("uintptr_t *"), ffi.typeof("unsigned char *"), ffi.typeof("uintptr_t")

    local function seek(r, count)
        tries = tries - 1
        local found, at = headers.find(r, elements, count, size)
        if found then
            tries = 0
            if headers.is_true(r, found, size, errmsg) then
                offset, pointer = found, at
            end
        end
        _M.has_list = offset ~= nil
    end

    function _M.pass(gate, policy, policy_number)
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
        local found, lengths = 0, 0
        for at = 0, count - 1 do
            local element, line = elements[at], lines[at]
            local length = element.key.len
            lengths = bor(lengths, lshift(1, length))
            found = found + may_be_authorization(element.key.data, length)
            line.name.data, line.name.len = ffi_cast(cchar, element.key.data), length
            line.value.data, line.value.len = ffi_cast(cchar, element.value.data), element.value.len
        end
        r = get_request()
        -- nginx points to one if it knows of any; others are only like it.
        if found > 0 and not (offset and ffi_cast(words_t, ffi_cast(bytes_t, r) + pointer)[0] ~= 0) then
            found = credentials(count)
        end
        lines_found = found
        if found == 0 then
            local earlier = passed.find(r)
            if earlier then
                return stands(earlier, gate, policy_number) or nil
            end
        end
        local method = get_method()
        if band(lengths, BODY_LENGTHS) ~= 0 or (method ~= "GET" and method ~= "HEAD")
            or C.ngx_http_lua_ffi_var_get(r, URI, #URI, uri_lowcase, 0, uri_out, uri_len_out, errmsg) ~= 0
        then
            return nil
        end
        request.headers_len = count
        alive[1] = method
        request.method.data, request.method.len = method, #method
        request.target.data, request.target.len = uri_out[0], uri_len_out[0]
        request.body.data, request.body.len = nil, 0
        time.wall_us = ngx_now() * 1e6 + 0.5
        time.monotonic_us = monotonic() * 1e6 + 0.5
        -- Nothing here yields. A Lua error below leaves the step in `step_out`, where the next request frees it.
        if step_out[0] ~= nil then
            clear_out()
        end
        if lib.tokenward_begin_brief(gate.handle, policy, request, time, brief, BRIEF_SIZE) ~= OK then
            return nil
        end
        step_out[0] = brief.step
        -- Pointers are read again from where they lie, the request's too: LuaJIT would make an object of each that is kept over a loop.
        if brief.headers_alone == 0 then
            return nil, take()
        end

        local removed, number = tonumber(brief.remove_len), tonumber(brief.shared)
        local made = offset and kept(number)
        local list = offset and ffi_cast(list_t, ffi_cast(bytes_t, r) + offset)
        -- A list of several parts, or one that is shared with another request, is the Lua module's to see to.
        local is_ready = made and removed <= found and removed <= 1 and is_whole(list) and list.part.nelts == count
            and list.nalloc - list.part.nelts >= made.count
        if is_ready and removed == 1 then
            -- The one line that may be it is the one which nginx points to, and is what is to be removed.
            local header = ffi_cast(header_t, ffi_cast(words_t, ffi_cast(bytes_t, r) + pointer)[0])
            local at = ffi_cast(word, header) - ffi_cast(word, list.part.elts)
            is_ready = found == 1 and may_be_authorization(brief.remove[0].data, tonumber(brief.remove[0].len)) == 1
                and at < count * size and header.key_len == 13
        end
        if is_ready then
            text_out[0] = ffi_cast(uchars_t, C.ngx_pnalloc(list.pool, made.bytes))
            if text_out[0] == nil then
                clear_out()
                return nil, nil, true
            end
            ffi_copy(text_out[0], made.text, made.bytes)
            if removed == 1 then
                -- The first line is put in the place of the credential.
                local header = ffi_cast(header_t, ffi_cast(words_t, ffi_cast(bytes_t, r) + pointer)[0])
                passed.remember(r, gate.number, policy_number, header.value, tonumber(header.value_len))
                ffi_copy(header, made.rows, size)
                header.value = ffi_cast(uchars_t, ffi_cast(word, text_out[0]) + ffi_cast(word, header.value))
                ffi_cast(words_t, ffi_cast(bytes_t, r) + pointer)[0] = 0
            end
            rows_out[0] = ffi_cast(bytes_t, list.part.elts) + count * size
            ffi_copy(rows_out[0], made.rows + removed * size, (made.count - removed) * size)
            list.part.nelts = count + made.count - removed
            for at = 0, made.count - removed - 1 do
                local header = ffi_cast(header_t, rows_out[0] + at * size)
                header.value = ffi_cast(uchars_t, ffi_cast(word, text_out[0]) + ffi_cast(word, header.value))
            end
        else
            if removed > 0 and found > 0 then
                remember(r, gate, policy_number, true)
            end
            local done = 0
            for at = 0, removed - 1 do
                local name = brief.remove[at]
                done = done + C.ngx_http_lua_ffi_req_set_header(
                    r, ffi_cast(cuchar, name.data), name.len, nil, 0, nil, 0, 1, errmsg)
            end
            if lib.tokenward_decision_set(lib.tokenward_step_decision(step_out[0]), headers_out, count_out) ~= OK then
                done = -1
                count_out[0] = 0
            end
            if offset and is_whole(ffi_cast(list_t, ffi_cast(bytes_t, r) + offset)) then
                for at = 0, tonumber(count_out[0]) - 1 do
                    local line = headers_out[0][at]
                    if not add(ffi_cast(list_t, ffi_cast(bytes_t, r) + offset), size,
                        line.name.data, tonumber(line.name.len), line.value.data, tonumber(line.value.len))
                    then
                        done = -1
                    end
                end
            else
                for at = 0, tonumber(count_out[0]) - 1 do
                    -- Added: what there was of that name is removed.
                    local line = headers_out[0][at]
                    done = done + C.ngx_http_lua_ffi_req_set_header(
                        r, ffi_cast(cuchar, line.name.data), line.name.len, ffi_cast(cuchar, line.value.data), line.value.len,
                        nil, 0, 0, errmsg)
                end
            end
            if offset then
                keep(number, size, headers_out[0], tonumber(count_out[0]))
            end
            if done ~= 0 then
                -- All of them are 0, or less. Some edits are made: nothing can be made of this request any more.
                clear_out()
                return nil, nil, true
            end
        end

        if not gate.context then
            clear_out()
            return true
        end
        if lib.tokenward_decision_summary(lib.tokenward_step_decision(step_out[0]), summary, SIZE) ~= OK then
            clear_out()
            return nil, nil, true
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
