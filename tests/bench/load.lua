-- What wrk sends, each request with a token, and what it says at the end: a line of JSON.
--
--   wrk -s load.lua URL -- HEAD LENGTH FROM COUNT OFFSET
--
-- Tokens are HEAD and a number filled up with zeros to LENGTH bytes: those from FROM on, COUNT of them in turn, beginning at OFFSET. A COUNT of 0
-- is without end: every request has a token of its own. Up to 1000 requests are made before the clock starts.

local requests, count, number, prefix, width, suffix = nil, nil, nil, nil, nil, nil
local MADE_BEFORE = 1000

local function of(n)
    local digits = string.format("%d", n)
    return prefix .. string.rep("0", width - #digits) .. digits .. suffix
end

function init(args)
    local head, length, from, offset = args[1], tonumber(args[2]), tonumber(args[3]), tonumber(args[5])
    count = tonumber(args[4])
    prefix = "GET " .. wrk.path .. " HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer " .. head
    suffix = "\r\nAccept: */*\r\n\r\n"
    width = length - #head
    if count > 0 and count <= MADE_BEFORE then
        requests = {}
        for i = 0, count - 1 do
            requests[i] = of(from + i)
        end
        number = offset % count - 1
    elseif count > 0 then
        number = offset % count - 1
        local base = from
        request = function()
            number = (number + 1) % count
            return of(base + number)
        end
    else
        number = from - 1
    end
end

function request()
    number = number + 1
    if not requests then
        return of(number)
    end
    if number >= count then
        number = 0
    end
    return requests[number]
end

function done(summary, latency, _)
    local errors = summary.errors
    io.write(string.format(
        '\n{"requests": %d, "seconds": %.6f, "p50_us": %d, "p90_us": %d, "p99_us": %d, "max_us": %d, "refused": %d, "broken": %d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max,
        errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
