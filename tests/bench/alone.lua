-- What wrk asks of the authorization server (a token of its own in each request) or of the upstream: the argument says which of them.

local number, asks = 0, false

function init(args)
    asks = args[1] == "authorization server"
end

function request()
    number = number + 1
    if not asks then
        return "GET " .. wrk.path .. " HTTP/1.1\r\nHost: upstream\r\nAccept: */*\r\n\r\n"
    end
    local body = string.format("token=person.%036d", number)
    return "POST " .. wrk.path .. " HTTP/1.1\r\nHost: as\r\nAuthorization: Basic cnM6c2VjcmV0\r\n" ..
        "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
end

function done(summary, latency, _)
    local errors = summary.errors
    io.write(string.format(
        '\n{"requests": %d, "seconds": %.6f, "p50_us": %d, "p99_us": %d, "refused": %d, "broken": %d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
        errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
