-- A decision as an object, for code with a flow of its own. `gate:access()` does without it.

local ffi = require "ffi"
local cjson = require "cjson.safe"
local library = require "resty.tokenward.library"

local ffi_new = ffi.new
local text, text_of, view = library.text, library.text_of, library.view
local tonumber, setmetatable, type = tonumber, setmetatable, type


local _M = {}
local mt = { __index = _M }

local OK = library.OK
local SOURCES = { [0] = "none", "endpoint", "cache", "waiting" }
local IDENTITIES = { [0] = "none", "unmatched", "consumer", "anonymous" }
_M.SOURCES, _M.IDENTITIES = SOURCES, IDENTITIES

local headers_out = ffi_new("const tokenward_header *[1]")
local names_out = ffi_new("const tokenward_str *[1]")
local count_out = ffi_new("size_t[1]")
local moment_out = ffi_new("int64_t[1]")


-- The step of the decision that is read now. LuaJIT keeps nothing alive that no code names later, and what C gave points into it.
local alive = {}


-- An array of `{ name, value }`, in order.
local function lines(result)
    local found = {}
    if result == OK then
        for at = 0, tonumber(count_out[0]) - 1 do
            local line = headers_out[0][at]
            found[at + 1] = { text(line.name), text(line.value) }
        end
    end
    return found
end
_M.lines, _M.headers_out, _M.count_out = lines, headers_out, count_out


local function name_of_reason(lib, number)
    if number == 0 then
        return nil
    end
    return text_of(lib.tokenward_reason_name(number, view)) or tostring(number)
end
_M.name_of_reason = name_of_reason


-- Consumers: `{ id, username, custom_id, tags, groups }`.
function _M.read_consumer(lib, consumer)
    if consumer == nil then
        return nil
    end
    local function all(at_index)
        local found = {}
        while at_index(consumer, #found, view) == OK do
            found[#found + 1] = text(view[0])
        end
        return found
    end
    return {
        id = text_of(lib.tokenward_consumer_id(consumer, view)),
        username = text_of(lib.tokenward_consumer_username(consumer, view)),
        custom_id = text_of(lib.tokenward_consumer_custom_id(consumer, view)),
        tags = all(lib.tokenward_consumer_tag_at),
        groups = all(lib.tokenward_consumer_group_at),
    }
end


-- `step`: what the decision lives in; it is freed when nobody holds the decision any more.
function _M.new(lib, step, apply, refuse)
    local handle = lib.tokenward_step_decision(step)
    if handle == nil then
        return nil
    end
    local reason = tonumber(lib.tokenward_decision_reason(handle))
    return setmetatable({
        lib = lib,
        step = step,
        handle = handle,
        appliers = { apply, refuse },
        allow = lib.tokenward_decision_is_allow(handle),
        source = SOURCES[lib.tokenward_decision_source(handle)] or "unknown",
        identity = IDENTITIES[lib.tokenward_decision_identity(handle)] or "unknown",
        reason = name_of_reason(lib, reason),
        reason_number = reason ~= 0 and reason or nil,
        status = not lib.tokenward_decision_is_allow(handle) and tonumber(lib.tokenward_decision_status(handle)) or nil,
    }, mt)
end


-- The consumer, matched or anonymous, or nil.
function _M:consumer()
    alive.step = self.step
    return _M.read_consumer(self.lib, self.lib.tokenward_decision_consumer(self.handle))
end


local function check_name(name)
    if type(name) ~= "string" then
        library.misuse("the name of a claim is a string")
    end
end


local function decoded(json)
    if not json then
        return nil
    end
    return cjson.decode(json)
end


-- A claim as Lua's value, or nil; `cjson.null` for null. Numbers beyond 2^53 lose digits: `claim_json` keeps them.
function _M:claim(name)
    check_name(name)
    return decoded(self:claim_json(name))
end


-- A claim as the authorization server wrote it in JSON, or nil.
function _M:claim_json(name)
    check_name(name)
    alive.step = self.step
    return text_of(self.lib.tokenward_decision_claim(self.handle, name, #name, view))
end


-- A claim that is a string, or nil.
function _M:claim_text(name)
    check_name(name)
    alive.step = self.step
    return text_of(self.lib.tokenward_decision_claim_text(self.handle, name, #name, view))
end


-- The value at a JSON Pointer, as Lua's value and as JSON; "" is all claims.
function _M:claim_at(pointer)
    check_name(pointer)
    alive.step = self.step
    local json = text_of(self.lib.tokenward_decision_claim_at(self.handle, pointer, #pointer, view))
    return decoded(json), json
end


-- Seconds since 1970 at which the token expires, or nil.
function _M:expires()
    if self.lib.tokenward_decision_expires_us(self.handle, moment_out) ~= OK then
        return nil
    end
    return tonumber(moment_out[0]) / 1e6
end


-- The edits of the upstream request: header lines to set, an array of `{ name, value }`,
function _M:set()
    alive.step = self.step
    return lines(self.lib.tokenward_decision_set(self.handle, headers_out, count_out))
end


-- names to remove before that,
function _M:remove()
    alive.step = self.step
    local found = {}
    if self.lib.tokenward_decision_remove(self.handle, names_out, count_out) == OK then
        for at = 0, tonumber(count_out[0]) - 1 do
            found[at + 1] = text(names_out[0][at])
        end
    end
    return found
end


-- the request target and the body where they change, else nil,
function _M:target()
    alive.step = self.step
    return text_of(self.lib.tokenward_decision_target(self.handle, view))
end


function _M:body()
    alive.step = self.step
    return text_of(self.lib.tokenward_decision_body(self.handle, view))
end


-- and the header lines that every 2xx answer gets.
function _M:response_headers()
    alive.step = self.step
    return lines(self.lib.tokenward_decision_response_headers(self.handle, headers_out, count_out))
end


-- The refusal: header lines, and the body or nil.
function _M:refusal()
    alive.step = self.step
    local headers = lines(self.lib.tokenward_decision_refusal_headers(self.handle, headers_out, count_out))
    return headers, text_of(self.lib.tokenward_decision_refusal_body(self.handle, view))
end


-- Applies the edits to the current request, or answers it with the refusal and ends it: after it, the request goes on.
function _M:apply()
    alive.step = self.step
    if self.allow then
        return self.appliers[1](self.handle)
    end
    return self.appliers[2](self.handle)
end


return _M
