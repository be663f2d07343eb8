-- What the internal location does through which the introspection endpoint is called where no HTTP library is installed:
--
--     location = /_tokenward/introspect {
--         internal;
--         rewrite_by_lua_block       { require("resty.tokenward.capture").send() }
--         header_filter_by_lua_block { require("resty.tokenward.capture").receive() }
--         body_filter_by_lua_block   { require("resty.tokenward.capture").bound() }
--         proxy_pass ...;
--     }
--
-- The README has the rest of it.

local _M = {}


local KEPT = { host = true, connection = true, ["content-length"] = true }


-- A call of ours is under way here, and nothing else.
local function call_of(ctx)
    local call = ctx.tokenward_call
    if not ngx.is_subrequest or not call then
        return nil
    end
    return call
end


-- Makes the subrequest the call: nothing of the client's request goes along.
function _M.send()
    local ctx = ngx.ctx
    local call = call_of(ctx)
    if not call then
        return ngx.exit(ngx.HTTP_NOT_FOUND)
    end
    for name in pairs(ngx.req.get_headers(0, true)) do
        if not KEPT[name:lower()] then
            ngx.req.clear_header(name)
        end
    end
    for _, line in ipairs(call.headers) do
        ngx.req.set_header(line[1], line[2])
    end
    ctx.tokenward_sent = true
end


local function last(value)
    return (value or ""):match("([^,%s]+)%s*$")
end


-- Notes what the endpoint answered, or how it failed: an answer of nginx's own is not the endpoint's.
function _M.receive()
    local ctx = ngx.ctx
    local call = call_of(ctx)
    if not call then
        return
    end
    local var = ngx.var
    local header_time = last(var.upstream_header_time)
    if not header_time or header_time == "-" then
        local connect_time = last(var.upstream_connect_time)
        if ngx.status == ngx.HTTP_GATEWAY_TIMEOUT then
            ctx.tokenward_failure = "timed_out"
        elseif not connect_time or connect_time == "-" then
            ctx.tokenward_failure = "connect"
        elseif (tonumber(last(var.upstream_bytes_received)) or 0) > 0 then
            ctx.tokenward_failure = "protocol"
        else
            ctx.tokenward_failure = "closed"
        end
        return
    end
    local headers = require("resty.tokenward.transport").lines(ngx.resp.get_headers(0, true))
    ctx.tokenward_headers = headers
    local length = tonumber(ngx.header["Content-Length"])
    if length and length > call.reply_bytes then
        ctx.tokenward_failure = "too_long"
    end
end


-- Keeps no more of the body than is read.
function _M.bound()
    local ctx = ngx.ctx
    local call = call_of(ctx)
    if not call then
        return
    end
    local bytes = (ctx.tokenward_bytes or 0) + #(ngx.arg[1] or "")
    ctx.tokenward_bytes = bytes
    if bytes > call.reply_bytes then
        ctx.tokenward_failure = "too_long"
    end
    if ctx.tokenward_failure then
        ngx.arg[1] = nil
    end
end


return _M
