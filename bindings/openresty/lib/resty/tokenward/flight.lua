-- What a request does that has no decision at once: it makes the call, or sleeps until another request has made it.
--
-- A step that is under way is nginx's to free when its request ends, however that ends: a client that goes away takes its Lua threads
-- with it, and no Lua runs then. Whoever waits for that step is woken by the next request that looks (`drain`), and those who sleep look
-- now and then themselves.

local ffi = require "ffi"
local semaphore = require "ngx.semaphore"
local clock = require "resty.tokenward.clock"
local library = require "resty.tokenward.library"
local steps = require "resty.tokenward.step"

local ffi_gc, ffi_new = ffi.gc, ffi.new
local spawn, wait_for, kill, sleep_for = ngx.thread.spawn, ngx.thread.wait, ngx.thread.kill, ngx.sleep
local status_of = coroutine.status
local max, min, random = math.max, math.min, math.random
local tonumber, pcall, pairs, setmetatable = tonumber, pcall, pairs, setmetatable
local monotonic, now = clock.monotonic, clock.now


local OK = library.OK
-- Seconds between two looks of one who sleeps, at least; more where many do.
local LOOK = 0.05


return function(lib, passed)
    -- Tags from here on are those of requests that sleep here; those below are of steps that are driven by hand.
    local _M = { FIRST_TAG = 2^52 }

    local own, disown = passed.own, passed.disown
    local tag_out = ffi_new("uint64_t[1]")
    local log_out = ffi_new("tokenward_line *[1]")
    local LEVELS = { ngx.ERR, ngx.WARN, ngx.NOTICE, ngx.DEBUG }


    -- Wakes those whose answer is there, or whose turn it is to ask.
    local function drain(gate)
        while lib.tokenward_next_ready(gate.handle, tag_out) == OK do
            local tag = tonumber(tag_out[0])
            local sleeper = gate.sleepers[tag]
            if sleeper then
                sleeper:post(1)
            elseif tag < _M.FIRST_TAG then
                gate.ready[#gate.ready + 1] = tag
            end
        end
    end
    _M.drain = drain


    -- Hands the core's log lines to nginx's.
    local function drain_log(gate)
        while lib.tokenward_next_log(gate.handle, log_out) == OK do
            local line = log_out[0]
            local level = LEVELS[lib.tokenward_line_level(line)] or ngx.ERR
            local said = library.text_of(lib.tokenward_line_text(line, library.view))
            lib.tokenward_line_free(line)
            ngx.log(level, "tokenward: ", said)
        end
    end
    _M.drain_log = drain_log


    -- How long to sleep before a look. Sleepers of one gate look at different times, about every LOOK seconds one of them.
    local function nap(gate)
        local moment = monotonic()
        if moment - gate.counted > 1 then
            local count = 0
            for _ in pairs(gate.sleepers) do
                count = count + 1
            end
            gate.counted, gate.count = moment, count
        end
        return LOOK + random() * LOOK * gate.count
    end


    -- Sleeps until the step can be resumed with profit, or its deadline comes.
    local function sleep(gate, step, deadline)
        local sleeper, err = semaphore.new(0)
        if not sleeper then
            return nil, err
        end
        local tag = gate.next_tag
        gate.next_tag = tag + 1
        gate.sleepers[tag] = sleeper
        gate.count = gate.count + 1
        if lib.tokenward_step_set_tag(step, tag) ~= OK then
            gate.sleepers[tag] = nil
            return nil, "the wait takes no tag"
        end
        drain(gate)
        local woken, left
        repeat
            left = deadline - monotonic()
            -- A millisecond more than is left: nginx's clock is as coarse, and stands still until something waits.
            woken, err = sleeper:wait(min(nap(gate), max(left, 0) + 0.001))
            if not woken and err ~= "timeout" then
                gate.sleepers[tag] = nil
                return nil, err
            end
            if not woken then
                drain(gate)
            end
        until woken or left <= 0
        gate.sleepers[tag] = nil
        gate.count = max(gate.count - 1, 0)
        return true
    end


    local function safely(transport, call)
        return pcall(transport, call)
    end


    local function alarm(seconds)
        sleep_for(seconds)
        return alarm
    end


    -- The call, for as long as its deadline lets it: a transport whose every read is in time may still never end. What it does then is
    -- killed, its socket closed. An internal location's subrequest cannot be.
    local function in_time(gate, call)
        if gate.transport_kind == "capture" then
            return pcall(gate.transport, call)
        end
        local thread, err = spawn(safely, gate.transport, call)
        if not thread then
            return false, err
        end
        local watch
        if status_of(thread) ~= "zombie" then
            watch, err = spawn(alarm, max(call.deadline - monotonic(), 0) + 0.01)
            if not watch then
                kill(thread)
                return false, err
            end
        end
        local waited, ok, answer, failure
        if watch then
            waited, ok, answer, failure = wait_for(thread, watch)
            kill(ok == alarm and thread or watch)
        else
            waited, ok, answer, failure = wait_for(thread)
        end
        if not waited then
            return false, ok
        elseif ok == alarm then
            return true, nil, "timed_out"
        end
        return ok, answer, failure
    end


    local function call_out(gate, step, outbound)
        local call = steps.call_of(lib, outbound)
        call.reply_bytes, call.keepalive = gate.reply_bytes, gate.keepalive
        local ok, answer, failure = in_time(gate, call)
        if not ok then
            ngx.log(ngx.ERR, "tokenward: the transport failed: ", library.loggable(answer))
            answer, failure = nil, "protocol"
        elseif answer and (type(answer) ~= "table" or type(answer.status) ~= "number") then
            ngx.log(ngx.ERR, "tokenward: the transport gave no answer")
            answer, failure = nil, "protocol"
        end
        steps.reply_to(lib, step, now, answer, failure)
    end


    local function go(gate, step)
        while lib.tokenward_step_decision(step) == nil do
            local outbound = lib.tokenward_step_outbound(step)
            if outbound ~= nil then
                call_out(gate, step, outbound)
            else
                local wait = lib.tokenward_step_wait(step)
                if wait == nil then
                    return nil, "the step stands nowhere"
                end
                local slept, err = sleep(gate, step, tonumber(lib.tokenward_wait_deadline_us(wait)) / 1e6)
                if not slept then
                    return nil, err
                end
                lib.tokenward_step_resume(step, now())
            end
            drain(gate)
        end
        drain_log(gate)
        return true
    end


    -- Brings a step to its decision; false if that cannot be: the step is freed then. While it is under way nginx frees it when the request
    -- ends, before and after the collector does. In a light thread of its own: who kills the one that
    -- asked for the decision does not end a call that others wait for.
    function _M.finish(gate, step)
        local cleanup = own(step)
        ffi_gc(step, nil)
        if not cleanup then
            lib.tokenward_step_free(step)
            drain(gate)
            return false, "no memory"
        end
        local ok, done, err
        local thread
        thread, err = spawn(go, gate, step)
        if thread then
            ok, done, err = wait_for(thread)
            err = not ok and done or err
        end
        disown(cleanup)
        ffi_gc(step, lib.tokenward_step_free)
        if not ok or not done then
            lib.tokenward_step_free(ffi_gc(step, nil))
            drain(gate)
            drain_log(gate)
            return false, err
        end
        return true
    end


    -- Semaphores by tag, which go with the threads that sleep on them.
    function _M.sleepers()
        return setmetatable({}, { __mode = "v" })
    end


    return _M
end
