-- Counters, of this worker or summed over all of them in a shared dictionary.
--
-- Each worker adds to the dictionary what its counters have grown by, once a second and when it is asked; what it knows of now (entries,
-- bytes, calls under way) stands there under its id and goes with it.

local library = require "resty.tokenward.library"
local ffi = require "ffi"

local ffi_new = ffi.new
local text_of, view = library.text_of, library.view
local tonumber, ipairs = tonumber, ipairs
local concat = table.concat


local _M = {}

-- Seconds between two additions, and how long a worker's gauges count without one.
local EVERY, GAUGE_LIVES = 1, 5
local snapshot_out = ffi_new("tokenward_snapshot *[1]")


-- This worker's counters as Prometheus text.
function _M.text(gate)
    local lib = gate.lib
    local result = lib.tokenward_snapshot_new(gate.handle, snapshot_out)
    if result ~= library.OK then
        return nil, library.reason(result)
    end
    local text = text_of(lib.tokenward_snapshot_prometheus(snapshot_out[0], view))
    lib.tokenward_snapshot_free(snapshot_out[0])
    return text
end


-- Each line of the text: comments in order, and series with their values. A gauge is known by its TYPE.
local function parse(text)
    local parsed, gauges = {}, {}
    for line in text:gmatch("[^\n]+") do
        local name, kind = line:match("^# TYPE (%S+) (%S+)")
        if name then
            gauges[name] = kind == "gauge"
        end
        local series, value = line:match("^([^#%s].*) (%S+)$")
        if series then
            parsed[#parsed + 1] = {
                series = series, value = tonumber(value), gauge = gauges[series:match("^[^{]+")] or false,
            }
        else
            parsed[#parsed + 1] = { comment = line }
        end
    end
    return parsed
end


local function key(gate, series, worker)
    return gate.name .. (worker and "@" .. worker .. ":" or ":") .. series
end


-- Adds to a counter, and never in place of another series: a dictionary that is full says so.
local function add(dict, name, grown)
    local sum, err = dict:incr(name, grown)
    if not sum and err == "not found" then
        local added
        added, err = dict:safe_add(name, 0)
        if added or err == "exists" then
            sum, err = dict:incr(name, grown)
        end
    end
    return sum, err
end


-- Adds this worker's part.
function _M.publish(gate)
    local dict = gate.dict
    local text, err = _M.text(gate)
    if not text then
        return nil, err
    end
    local parsed = parse(text)
    for _, line in ipairs(parsed) do
        if line.series then
            local ok
            if line.gauge then
                ok, err = dict:safe_set(key(gate, line.series, ngx.worker.id() or 0), line.value, GAUGE_LIVES)
            else
                local grown = line.value - (gate.published[line.series] or 0)
                ok = true
                if grown ~= 0 then
                    ok, err = add(dict, key(gate, line.series), grown)
                end
                if ok then
                    gate.published[line.series] = line.value
                end
            end
            if not ok then
                return nil, "the shared dictionary takes no more: " .. (err or "")
            end
        end
    end
    return parsed
end


-- All workers' counters as Prometheus text; without a dictionary this one's.
function _M.all(gate)
    local dict = gate.dict
    if not dict then
        return _M.text(gate)
    end
    local parsed, err = _M.publish(gate)
    if not parsed then
        return nil, err
    end
    local lines = {}
    for _, line in ipairs(parsed) do
        local value
        if line.series and line.gauge then
            value = 0
            for worker = 0, (ngx.worker.count() or 1) - 1 do
                value = value + (dict:get(key(gate, line.series, worker)) or 0)
            end
        elseif line.series then
            value = dict:get(key(gate, line.series)) or 0
        end
        lines[#lines + 1] = line.comment or line.series .. " " .. ("%.14g"):format(value)
    end
    return concat(lines, "\n") .. "\n"
end


-- Adds every second, and once more when the worker ends.
function _M.start(gate)
    local function tick(is_last)
        local ok, err = _M.publish(gate)
        if not ok and not gate.complained then
            gate.complained = true
            ngx.log(ngx.ERR, "tokenward: ", err)
        end
        return is_last
    end
    return ngx.timer.every(EVERY, tick)
end


return _M
