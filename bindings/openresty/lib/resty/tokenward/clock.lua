-- The time of now, on two clocks, as nginx knows it: it looks once for each round of its event loop.

local ffi = require "ffi"
require "resty.tokenward.cdefs"
local monotonic_msec = require("resty.core.time").monotonic_msec

local now = ngx.now
local time = ffi.new("tokenward_time")


local _M = {}


-- Seconds on the monotonic clock.
local monotonic
if monotonic_msec then
    function monotonic()
        return monotonic_msec() / 1000
    end
else
    ffi.cdef[[
        typedef struct { long tv_sec; long tv_nsec; } tokenward_timespec;
        int clock_gettime(int clock, tokenward_timespec *now);
    ]]
    local spec = ffi.new("tokenward_timespec")

    function monotonic()
        ffi.C.clock_gettime(1, spec)
        return tonumber(spec.tv_sec) + tonumber(spec.tv_nsec) / 1e9
    end
end
_M.monotonic = monotonic


-- One struct, written anew each time: for the call that it is given to.
function _M.now()
    -- Rounded: what lies a part of a microsecond before a deadline would never reach it while the clock stands.
    time.wall_us = now() * 1e6 + 0.5
    time.monotonic_us = monotonic() * 1e6 + 0.5
    return time
end


return _M
