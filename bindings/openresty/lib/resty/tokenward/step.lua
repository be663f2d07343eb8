-- Steps: a request with everything given, time included, for flows of their own. A step stands at a call to make (`outbound`), a wait
-- (`deadline`), or its decision.

local ffi = require "ffi"
local library = require "resty.tokenward.library"
local decisions = require "resty.tokenward.decision"

local ffi_new, ffi_gc, ffi_sizeof = ffi.new, ffi.gc, ffi.sizeof
local text_of, view, set = library.text_of, library.view, library.set
local tonumber, setmetatable, type = tonumber, setmetatable, type


local _M = {}
local mt = { __index = _M }

local FAILURES = {
    connect = 1, dns = 2, tls = 3, closed = 4, timed_out = 5, protocol = 6, too_long = 7, cut_off = 8,
}
_M.FAILURES = FAILURES

local OK, INVALID_ARGUMENT = library.OK, library.INVALID_ARGUMENT
local SIZE_OF_REQUEST, SIZE_OF_REPLY = ffi_sizeof("tokenward_request"), ffi_sizeof("tokenward_reply")


-- Header lines `{ { name, value }, ... }` as C's; nil for none.
local function header_array(lines)
    local count = lines and #lines or 0
    if count == 0 then
        return nil, 0
    end
    local array = ffi_new("tokenward_header[?]", count)
    for at = 1, count do
        local line = lines[at]
        if type(line[1]) ~= "string" or type(line[2]) ~= "string" then
            library.misuse("a header line is { name, value }")
        end
        set(array[at - 1].name, line[1])
        set(array[at - 1].value, line[2])
    end
    return array, count
end


-- A request `{ method, target, headers, trailers, body }` as C's, and what has to live as long.
local function view_of(request)
    local made = ffi_new("tokenward_request")
    local headers, count = header_array(request.headers)
    local method, target, trailers = request.method or "GET", request.target or "/", request.trailers or {}
    made.struct_size = SIZE_OF_REQUEST
    set(made.method, method)
    set(made.target, target)
    if headers then
        made.headers, made.headers_len = headers, count
    end
    local names = ffi_new("tokenward_str[?]", #trailers + 1)
    for at = 1, #trailers do
        set(names[at - 1], trailers[at])
    end
    made.trailers, made.trailers_len = names, #trailers
    if request.body then
        set(made.body, request.body)
    end
    return made, { headers, names, request, method, target }
end


function _M.needs_body(gate, request, policy)
    local made, alive = view_of(request)
    local needed = ffi_new("bool[1]")
    local result = gate.lib.tokenward_needs_body(gate.handle, policy, made, needed)
    if result ~= OK or not alive then
        return nil, library.reason(result)
    end
    return needed[0]
end


-- Begins to decide. `now`: a function that gives `tokenward_time`.
function _M.begin(gate, request, now, policy)
    local made, alive = view_of(request)
    local out = ffi_new("tokenward_step *[1]")
    local result = gate.lib.tokenward_begin(gate.handle, policy, made, now(), out)
    if result ~= OK or not alive then
        return nil, library.reason(result)
    end
    local lib = gate.lib
    return setmetatable({ lib = lib, gate = gate, now = now, handle = ffi_gc(out[0], lib.tokenward_step_free) }, mt)
end


-- A call as a table: `{ method, url, headers, body, time_left, deadline }`, times in seconds.
function _M.call_of(lib, outbound)
    local headers = decisions.lines(
        lib.tokenward_outbound_headers(outbound, decisions.headers_out, decisions.count_out))
    return {
        method = text_of(lib.tokenward_outbound_method(outbound, view)),
        url = text_of(lib.tokenward_outbound_url(outbound, view)),
        headers = headers,
        body = text_of(lib.tokenward_outbound_body(outbound, view)),
        time_left = tonumber(lib.tokenward_outbound_time_left_us(outbound)) / 1e6,
        deadline = tonumber(lib.tokenward_outbound_deadline_us(outbound)) / 1e6,
    }
end


-- Hands over an answer `{ status, headers, body }`, or nil and how the call failed.
function _M.reply_to(lib, handle, now, answer, failure)
    local reply = ffi_new("tokenward_reply")
    reply.struct_size = SIZE_OF_REPLY
    local headers
    if answer then
        local count
        headers, count = header_array(answer.headers)
        reply.status = answer.status
        if headers then
            reply.headers, reply.headers_len = headers, count
        end
        set(reply.body, answer.body or "")
    else
        reply.failure = FAILURES[failure] or FAILURES.protocol
    end
    local result = lib.tokenward_step_reply(handle, reply, now())
    if result == INVALID_ARGUMENT and answer then
        -- A status that is none, say. The step still stands at its call.
        return _M.reply_to(lib, handle, now, nil, "protocol"), headers
    end
    return result
end


-- The call to make, or nil.
function _M:outbound()
    local outbound = self.lib.tokenward_step_outbound(self.handle)
    if outbound == nil then
        return nil
    end
    return _M.call_of(self.lib, outbound)
end


-- Until when a wait may last, in seconds on the monotonic clock; nil where the step does not wait.
function _M:deadline()
    local wait = self.lib.tokenward_step_wait(self.handle)
    if wait == nil then
        return nil
    end
    return tonumber(self.lib.tokenward_wait_deadline_us(wait)) / 1e6
end


function _M:decision()
    return self.handle and self.gate:decision_of(self.handle)
end


local function checked(result)
    if result ~= OK then
        return nil, library.reason(result)
    end
    return true
end


-- `answer`: `{ status, headers, body }`; or nil, and `failure` says how the call failed.
function _M:reply(answer, failure)
    if not answer and not FAILURES[failure] then
        library.misuse("an answer, or how the call failed")
    end
    return checked(_M.reply_to(self.lib, self.handle, self.now, answer, failure))
end


function _M:resume()
    return checked(self.lib.tokenward_step_resume(self.handle, self.now()))
end


-- When the wait can go on, `gate:next_ready()` gives the tag: a whole number below 2^52.
function _M:set_tag(tag)
    if type(tag) ~= "number" or tag < 0 or tag >= 2^52 or tag % 1 ~= 0 then
        library.misuse("a tag is a whole number from 0 to 2^52 - 1")
    end
    return checked(self.lib.tokenward_step_set_tag(self.handle, tag))
end


-- Ends the step now: a step without a decision has denied, and whoever waits for it goes on. A decision stays as long as it is held.
function _M:free()
    local handle = self.handle
    self.handle = nil
    if handle and self.lib.tokenward_step_decision(handle) == nil then
        self.lib.tokenward_step_free(ffi_gc(handle, nil))
    end
end


return _M
