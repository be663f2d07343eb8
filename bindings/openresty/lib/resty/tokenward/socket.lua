-- Calls of the introspection endpoint over nginx's cosockets: as much of HTTP/1.1 as one POST needs.
--
-- The deadline covers all of it, from connecting to the last byte, however slowly bytes come. No more is read than the longest reply that
-- counts and 64 KiB of headers. A connection is kept once its answer was read to the end and nothing more has come; what is tried again
-- goes over a new one, since those that are kept may all be as dead as the one that failed. The certificate is verified against
-- `lua_ssl_trusted_certificate`.

local clock = require "resty.tokenward.clock"

local max, min = math.max, math.min
local find, lower, match, sub = string.find, string.lower, string.match, string.sub
local concat, tostring, tonumber, type = table.concat, tostring, tonumber, type
local ipairs, pcall, setmetatable = ipairs, pcall, setmetatable
local tcp = ngx.socket.tcp


local _M = {}


-- Bytes of an answer's header section.
local HEADERS = 65536
local PIECE = 16384

local transports = 0


-- What a cosocket says about a failure, as one of ours.
local function failure_of(err, other)
    err = lower(tostring(err))
    if find(err, "timeout", 1, true) then
        return "timed_out"
    elseif find(err, "resolve", 1, true) then
        return "dns"
    end
    return other
end


local function wait_no_longer(socket, call)
    local left = min(call.deadline - clock.monotonic(), call.time_left) * 1000
    socket:settimeout(max(1, left))
    return left > 0
end


-- What has come and was not used yet.
local Stream = {}
Stream.__index = Stream


-- Reads on: true, or nil and how that failed.
function Stream:more()
    if not wait_no_longer(self.socket, self.call) then
        return nil, "timed_out"
    end
    local piece, err = self.socket:receiveany(PIECE)
    if not piece then
        -- An end is one thing, an error another.
        self.is_broken = err ~= "closed"
        return nil, failure_of(err, "closed")
    end
    self.rest = self.rest .. piece
    return true
end


-- What comes before a text, which is used up with it; no more than `limit` bytes.
function Stream:before(text, limit, too_long)
    local from = 1
    while true do
        local at = find(self.rest, text, from, true)
        if at and at <= limit then
            local found = sub(self.rest, 1, at - 1)
            self.rest = sub(self.rest, at + #text)
            return found
        elseif at or #self.rest > limit then
            return nil, too_long
        end
        from = max(1, #self.rest - #text + 2)
        local ok, err = self:more()
        if not ok then
            return nil, err
        end
    end
end


-- Adds the next `length` bytes to a list.
function Stream:take(length, parts)
    while length > 0 do
        if #self.rest == 0 then
            local ok, err = self:more()
            if not ok then
                return nil, err
            end
        end
        local piece = sub(self.rest, 1, length)
        self.rest = sub(self.rest, #piece + 1)
        parts[#parts + 1] = piece
        length = length - #piece
    end
    return true
end


-- Status, header lines and version of an answer; or nil and how it failed.
local function head_of(stream)
    while true do
        -- Who speaks something else is not waited for.
        while #stream.rest < 7 do
            local ok, err = stream:more()
            if not ok then
                return nil, err
            end
        end
        if sub(stream.rest, 1, 7) ~= "HTTP/1." then
            return nil, "protocol"
        end
        local text, err = stream:before("\r\n\r\n", HEADERS, "protocol")
        if not text then
            return nil, err
        end
        local minor, status, at = match(text, "^HTTP/1%.([01]) ([1-9]%d%d)[^\r\n]*()")
        if not minor then
            return nil, "protocol"
        end
        status = tonumber(status)
        if status == 101 then
            return nil, "protocol"
        elseif status >= 200 then
            local lines = {}
            local rest = sub(text, at)
            while rest ~= "" do
                local name, value, following = match(rest, "^\r\n([%w!#$%%&'*+%-.^_`|~]+):[ \t]*([^\r\n%z]*)()")
                if not name then
                    return nil, "protocol"
                end
                lines[#lines + 1] = { name, (value:gsub("[ \t]+$", "")) }
                rest = sub(rest, following)
            end
            return status, lines, tonumber(minor)
        end
    end
end


-- How the body is framed: "none", "chunked", a length, or "close"; and whether the connection may be kept.
local function framing(status, lines, minor)
    local length, coding
    local keep = minor == 1
    for _, line in ipairs(lines) do
        local name, value = lower(line[1]), line[2]
        if name == "content-length" then
            if not find(value, "^%d+$") or (length and length ~= tonumber(value)) then
                return nil
            end
            length = tonumber(value)
        elseif name == "transfer-encoding" then
            if coding or lower(value) ~= "chunked" then
                return nil
            end
            coding = "chunked"
        elseif name == "connection" and find("," .. lower(value):gsub("[ \t]", "") .. ",", ",close,", 1, true) then
            keep = false
        end
    end
    if status == 204 or status == 304 then
        return "none", keep
    elseif coding then
        -- With a length as well, whose end it is is not sure.
        return coding, keep and not length
    elseif length then
        return length, keep
    end
    return "close", false
end


local function chunks(stream, limit, parts)
    local bytes = 0
    while true do
        local line, err = stream:before("\r\n", 1024, "protocol")
        if not line then
            return nil, err
        end
        local digits = match(line, "^(%x+)[ \t]*$") or match(line, "^(%x+)[ \t]*;")
        if not digits or #digits > 12 then
            return nil, "protocol"
        end
        local size = tonumber(digits, 16)
        if size == 0 then
            break
        end
        bytes = bytes + size
        if bytes > limit then
            return nil, "too_long"
        end
        local ok
        ok, err = stream:take(size, parts)
        if not ok then
            return nil, err
        end
        line, err = stream:before("\r\n", 2, "protocol")
        if line ~= "" then
            return nil, err or "protocol"
        end
    end
    -- Trailers say nothing here.
    while true do
        local line, err = stream:before("\r\n", HEADERS, "protocol")
        if not line then
            return nil, err
        elseif line == "" then
            return true
        end
    end
end


local function until_closed(stream, limit, parts)
    local bytes = 0
    while true do
        bytes = bytes + #stream.rest
        if bytes > limit then
            return nil, "too_long"
        end
        parts[#parts + 1] = stream.rest
        stream.rest = ""
        local ok, err = stream:more()
        if not ok then
            return err == "closed" and not stream.is_broken or nil, err
        end
    end
end


-- The answer, and whether its connection may be kept; or nil and how that failed.
local function answer_of(stream, call)
    local status, lines, minor = head_of(stream)
    if not status then
        return nil, lines
    end
    local frame, keep = framing(status, lines, minor)
    if not frame then
        return nil, "protocol"
    end
    local parts, ok, err = {}, true, nil
    if frame == "chunked" then
        ok, err = chunks(stream, call.reply_bytes, parts)
    elseif frame == "close" then
        ok, err = until_closed(stream, call.reply_bytes, parts)
    elseif frame ~= "none" then
        if frame > call.reply_bytes then
            return nil, "too_long"
        end
        ok, err = stream:take(frame, parts)
    end
    if not ok then
        return nil, err == "closed" and "cut_off" or err
    end
    return { status = status, headers = lines, body = concat(parts) }, keep and stream.rest == ""
end


local function request_of(call, authority, path)
    local lines = { call.method, " ", path, " HTTP/1.1\r\nHost: ", authority, "\r\nContent-Length: ", #call.body, "\r\n" }
    for _, line in ipairs(call.headers) do
        lines[#lines + 1] = line[1] .. ": " .. line[2] .. "\r\n"
    end
    lines[#lines + 1] = "\r\n"
    lines[#lines + 1] = call.body
    return concat(lines)
end


-- A socket that is connected, or nil and how that failed.
local function connected(call, hosts, port, pool)
    local err
    for _, host in ipairs(hosts) do
        local socket = tcp()
        if not wait_no_longer(socket, call) then
            return nil, "timed_out"
        end
        local ok
        ok, err = socket:connect(host, port, pool)
        if ok then
            return socket
        end
    end
    return nil, failure_of(err, "connect")
end


-- `options`: `pool_size`; `address`, one address or a list of them, is connected to in place of looking the endpoint's name up, for which
-- nginx needs a `resolver`.
function _M.new(options, split)
    transports = transports + 1
    local name = "tokenward:" .. transports
    local address = options.address
    if type(address) == "string" then
        address = { address }
    end
    return function(call)
        local scheme, host, port, path, authority = split(call.url)
        if not scheme then
            return nil, "protocol"
        end
        -- In a pool of their own new ones find nothing, and leave nothing.
        local pool = { pool = call.is_retry and name .. ":new" or name, pool_size = options.pool_size }
        local socket, err = connected(call, address or { host }, port, pool)
        if not socket then
            return nil, err
        end
        local is_new = socket:getreusedtimes() == 0
        if scheme == "https" and is_new then
            wait_no_longer(socket, call)
            -- Asked for a session, since otherwise a handshake that is over at once counts as good whatever its certificate; one whose
            -- certificate is not good is an assertion of lua-resty-core's then.
            local done, ok
            done, ok, err = pcall(socket.sslhandshake, socket, nil, (host:gsub("[%[%]]", "")), true)
            if not done or ok == nil and err then
                socket:close()
                return nil, done and failure_of(err, "tls") or "tls"
            end
        end
        wait_no_longer(socket, call)
        local sent
        sent, err = socket:send(request_of(call, authority, path))
        if not sent then
            socket:close()
            return nil, failure_of(err, "closed")
        end
        local answer, keep = answer_of(setmetatable({ socket = socket, call = call, rest = "" }, Stream), call)
        if not answer then
            socket:close()
            return nil, keep
        end
        if not keep or call.is_retry or call.keepalive <= 0 or not socket:setkeepalive(call.keepalive * 1000, options.pool_size) then
            socket:close()
        end
        return answer
    end
end


return _M
