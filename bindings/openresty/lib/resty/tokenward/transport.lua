-- Calls of the introspection endpoint that do not block: by `resty.http` where it is installed, else by an internal location; or over
-- cosockets.
--
-- A transport is a function of a call `{ method, url, headers, body, time_left, deadline, reply_bytes, keepalive }` (seconds, bytes) that
-- gives an answer `{ status, headers = { { name, value }, ... }, body }`, or nil and how it failed: `connect`, `dns`, `tls`, `closed`
-- (before the header section was complete), `timed_out`, `protocol`, `too_long`, `cut_off`. `is_retry` of a call: the attempt before failed
-- with `connect` or `closed`, and this one goes over a new connection.

local clock = require "resty.tokenward.clock"

local max, min = math.max, math.min
local lower = string.lower
local tonumber, tostring, type, pairs = tonumber, tostring, type, pairs
local concat = table.concat


local _M = {}


-- What resty.http and nginx say about a failure, as one of ours. `began`: whether anything was sent.
local function failure_of(err, began)
    err = lower(tostring(err))
    if err:find("timeout", 1, true) then
        return "timed_out"
    elseif err:find("could not be resolved", 1, true) or err:find("no resolver", 1, true) then
        return "dns"
    elseif err:find("certificate", 1, true) or err:find("ssl", 1, true) or err:find("handshake", 1, true) then
        return "tls"
    elseif not began then
        return "connect"
    elseif err:find("closed", 1, true) or err:find("reset", 1, true) or err:find("broken pipe", 1, true) then
        return "closed"
    end
    return "protocol"
end


local function split(url)
    local scheme, authority, path = url:match("^(https?)://([^/?]+)(.*)$")
    if not scheme then
        return nil
    end
    local host, port = authority:match("^(%b[])"), authority:match(":(%d+)$")
    host = host or authority:match("^([^:]+)")
    if path:sub(1, 1) ~= "/" then
        path = "/" .. path
    end
    return scheme, host, tonumber(port) or (scheme == "https" and 443 or 80), path, authority
end


-- By resty.http. A connection goes back to the pool when its answer was read to the end, and is closed in every other case. The
-- certificate is verified against `lua_ssl_trusted_certificate`.
function _M.by_http(http, options)
    return function(call)
        local scheme, host, port, path, authority = split(call.url)
        if not scheme then
            return nil, "protocol"
        end
        local client = http.new()
        local function in_time()
            local left = (call.deadline - clock.monotonic()) * 1000
            client:set_timeout(max(1, min(left, call.time_left * 1000)))
            return left > 0
        end
        if not in_time() then
            return nil, "timed_out"
        end
        local ok, err = client:connect({
            scheme = scheme, host = host, port = port, ssl_verify = true,
            ssl_server_name = host, pool_size = options.pool_size,
            -- In a pool of its own a retry finds nothing that is kept, and leaves nothing.
            pool = call.is_retry and "tokenward:new" or nil,
        })
        if not ok then
            return nil, failure_of(err, false)
        end

        local headers = { Host = authority, ["Content-Length"] = tostring(#call.body) }
        for _, line in ipairs(call.headers) do
            headers[line[1]] = line[2]
        end
        in_time()
        local answer
        answer, err = client:request({ method = call.method, path = path, headers = headers, body = call.body })
        if not answer then
            client:close()
            return nil, failure_of(err, true)
        end

        local parts, bytes = {}, 0
        local reader = answer.body_reader
        while reader do
            if not in_time() then
                client:close()
                return nil, "timed_out"
            end
            local chunk
            chunk, err = reader(min(call.reply_bytes + 1, 65536))
            if err then
                client:close()
                return nil, failure_of(err, true) == "timed_out" and "timed_out" or "cut_off"
            end
            if not chunk then
                break
            end
            bytes = bytes + #chunk
            if bytes > call.reply_bytes then
                client:close()
                return nil, "too_long"
            end
            parts[#parts + 1] = chunk
        end
        if call.is_retry or call.keepalive <= 0 or not client:set_keepalive(call.keepalive * 1000, options.pool_size) then
            client:close()
        end
        return { status = answer.status, headers = _M.lines(answer.headers), body = concat(parts) }
    end
end


-- A table of headers, whose values may be arrays, as lines.
function _M.lines(headers)
    local lines = {}
    for name, value in pairs(headers) do
        if type(value) == "table" then
            for at = 1, #value do
                lines[#lines + 1] = { name, tostring(value[at]) }
            end
        else
            lines[#lines + 1] = { name, tostring(value) }
        end
    end
    return lines
end


-- nginx does not say whether it was the connection or TLS that failed: whether a connection can be made tells.
local function connects(url)
    local _, host, port = split(url)
    local socket = ngx.socket.tcp()
    socket:settimeout(1000)
    local ok, err = socket:connect(host, port)
    if ok then
        socket:close()
    end
    return ok or not (err == "connection refused" or err == "timeout")
end


-- By an internal location, which `resty.tokenward.capture` serves.
function _M.by_capture(location)
    return function(call)
        -- What the location's handlers learn comes back in here: it is the subrequest's ngx.ctx.
        local seen = { tokenward_call = call }
        if (ngx.req.http_version() or 3) >= 2 then
            ngx.log(ngx.ERR, "tokenward: ngx.location.capture works in no HTTP/2 request: resty.http is needed, or a function")
            return nil, "connect"
        end
        local answer = ngx.location.capture(location, { method = ngx.HTTP_POST, body = call.body, ctx = seen })
        if not seen.tokenward_sent then
            ngx.log(ngx.ERR, "tokenward: the location ", location, " does not call resty.tokenward.capture")
            return nil, "connect"
        end
        local failure = seen.tokenward_failure
        if failure == "connect" and call.url:sub(1, 6) == "https:" and connects(call.url) then
            failure = "tls"
        end
        if failure then
            return nil, failure
        end
        if answer.truncated then
            return nil, "cut_off"
        end
        return { status = answer.status, headers = seen.tokenward_headers or {}, body = answer.body }
    end
end


-- `wanted`: "http", "capture", "socket", a function, or nil for the first that is there.
function _M.choose(wanted, options)
    if type(wanted) == "function" then
        return wanted, "function"
    end
    if wanted == nil or wanted == "http" then
        local ok, http = pcall(require, "resty.http")
        if ok and type(http) == "table" and http.new then
            return _M.by_http(http, options), "http"
        end
        if wanted == "http" then
            return nil, "resty.http is not installed: " .. tostring(http)
        end
    end
    if wanted == nil or wanted == "capture" then
        return _M.by_capture(options.location), "capture"
    end
    if wanted == "socket" then
        return require("resty.tokenward.socket").new(options, split), "socket"
    end
    return nil, "`transport` is `http`, `capture`, `socket` or a function"
end


return _M
