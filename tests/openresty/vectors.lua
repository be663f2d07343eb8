-- Plays the vectors through the Lua API, in a worker of nginx: what vectors.py made of them.

local cjson = require "cjson.safe"
local ffi = require "ffi"
local tokenward = require "resty.tokenward"

ffi.cdef[[
    int setenv(const char *name, const char *value, int overwrite);
    int unsetenv(const char *name);
]]


local _M = {}

-- Vectors that do not hold here, with the reason.
local NOT_HERE = {
    ["consumers are not part of a bare configuration"] = "documents may have consumers",
}

-- What the Lua API does not show: who was let go (tags say who is ready), and log lines, which go to nginx's log.
local time = ffi.new("tokenward_time")


local function now()
    return time
end


local function raw(hex)
    if hex == nil or hex == cjson.null then
        return nil
    end
    return (hex:gsub("..", function(digits) return string.char(tonumber(digits, 16)) end))
end


local function pairs_of(lines)
    local made = {}
    for at, line in ipairs(lines or {}) do
        made[at] = { raw(line[1]), raw(line[2]) }
    end
    return made
end


local function all_of(names)
    local made = {}
    for at, name in ipairs(names or {}) do
        made[at] = raw(name)
    end
    return made
end


local function same(what, seen, expected)
    local function equal(one, other)
        if type(one) ~= "table" or type(other) ~= "table" then
            return one == other
        end
        for key, value in pairs(one) do
            if not equal(value, other[key]) then
                return false
            end
        end
        for key in pairs(other) do
            if one[key] == nil then
                return false
            end
        end
        return true
    end
    if not equal(seen, expected) then
        error(("%s: expected %s, got %s"):format(what, cjson.encode(expected) or tostring(expected),
            cjson.encode(seen) or tostring(seen)), 0)
    end
end


local function given(what, seen, expected)
    if expected ~= nil then
        same(what, seen, expected)
    end
end


local function null_is_nil(value)
    if value == cjson.null then
        return nil
    end
    return value
end


local function compare_allow(decision, expected)
    given("source", decision.source, expected.source)
    if expected.identity then
        local consumer = decision:consumer()
        same("identity", consumer and { [decision.identity] = consumer.id } or decision.identity, expected.identity)
    end
    given("set", decision:set(), expected.set and pairs_of(expected.set))
    given("remove", decision:remove(), expected.remove and all_of(expected.remove))
    for _, part in ipairs({ "target", "body" }) do
        if expected[part] ~= nil then
            same(part, decision[part](decision), raw(expected[part]))
        end
    end
    given("response_headers", decision:response_headers(),
        expected.response_headers and pairs_of(expected.response_headers))
    if expected.expires ~= nil then
        same("expires", decision:expires(), null_is_nil(expected.expires))
    end
    for pointer, value in pairs(expected.claims or {}) do
        same(pointer, null_is_nil((decision:claim_at(pointer))), null_is_nil(cjson.decode(value)))
    end
end


local function compare(step, expect)
    if expect.introspect then
        local call = step:outbound()
        if not call then
            error("no call is made", 0)
        end
        local expected = expect.introspect
        given("method", call.method, expected.method)
        given("url", call.url, expected.url)
        given("headers", call.headers, expected.headers and pairs_of(expected.headers))
        given("body", call.body, raw(expected.body))
        given("time_left", math.floor(call.time_left * 1e6 + 0.5) / 1e3, expected.time_left)
    elseif expect.wait then
        local deadline = step:deadline()
        if not deadline then
            error("it does not wait", 0)
        end
        given("deadline", deadline, expect.wait.deadline)
    elseif expect.allow or expect.deny then
        local decision = step:decision()
        if not decision then
            error("there is no decision", 0)
        end
        same("allow", decision.allow, expect.allow ~= nil)
        if expect.allow then
            return compare_allow(decision, expect.allow)
        end
        local expected = expect.deny
        given("reason", decision.reason, expected.reason)
        given("number", decision.reason_number, expected.number)
        given("status", decision.status, expected.status)
        local headers, body = decision:refusal()
        given("headers", headers, expected.headers and pairs_of(expected.headers))
        if expected.body ~= nil then
            same("body", body, raw(expected.body))
        end
    end
end


local function counters(gate)
    local seen = { decisions = {} }
    for line in gate:metrics():gmatch("[^\n]+") do
        local name, labels, value = line:match("^tokenward_([a-z_]+)(%b{}) (%S+)$")
        if not name then
            name, value = line:match("^tokenward_([a-z_]+) (%S+)$")
        end
        if name then
            local reason = labels and labels:match('reason="([^"]*)"')
            if reason then
                seen.decisions[reason == "" and "allow" or reason] = tonumber(value)
            else
                name = name:gsub("_total$", ""):gsub("^cache_", ""):gsub("^header_", "")
                seen[name] = tonumber(value)
            end
        end
    end
    return seen
end


local function begin(player, begin_of, expect)
    local request = {
        method = begin_of.method or "GET", target = raw(begin_of.target) or "/", headers = pairs_of(begin_of.headers),
        trailers = all_of(begin_of.trailers), body = raw(begin_of.body),
    }
    local policy
    if begin_of.policy then
        policy = assert(player.gate:policy(begin_of.policy))
    end
    if expect.needs_body ~= nil then
        local body = request.body
        request.body = nil
        same("needs_body", player.gate:needs_body(request, policy), expect.needs_body)
        request.body = body
    end
    local step = assert(player.gate:begin(request, policy, now))
    player.steps[begin_of.as] = step
    return step
end


local function tag(player, name)
    local step = player.steps[name]
    if step and step:deadline() then
        player.next_tag = player.next_tag + 1
        player.tags[player.next_tag] = name
        assert(step:set_tag(player.next_tag))
    end
end


local function play_step(player, one)
    local expect, gate, steps = one.expect or {}, player.gate, player.steps
    if one.at then
        local wall, mono = one.at, one.at
        if type(one.at) == "table" then
            wall, mono = one.at.wall, one.at.mono
        end
        local function micros(seconds)
            return math.min(math.floor(seconds * 1e6 + 0.5), 2 ^ 63)
        end
        time.wall_us, time.monotonic_us = micros(wall), micros(mono)
    end
    local name, step = nil, nil
    if one.begin then
        name, step = one.begin.as, begin(player, one.begin, expect)
    elseif one.reply then
        name, step = one.reply, steps[one.reply]
        local headers = one.headers and pairs_of(one.headers) or { { "content-type", "application/json" } }
        assert(step:reply({ status = one.status or 200, headers = headers, body = raw(one.body) or "" }))
    elseif one.fail then
        name, step = one.fail, steps[one.fail]
        assert(step:reply(nil, one.failure))
    elseif one.resume then
        name, step = one.resume, steps[one.resume]
        assert(step:resume())
    elseif one.drop then
        steps[one.drop]:free()
        steps[one.drop] = nil
    elseif one.forget then
        given("forgotten", gate:forget(raw(one.forget)), expect.forgotten)
    elseif one.forget_all then
        gate:forget_all()
    elseif one.replace_consumers then
        assert(gate:replace_consumers(assert(tokenward.document({ config = player.text, consumers = one.replace_consumers,
            folder = player.folder }))))
    elseif one.replace_config then
        assert(gate:replace_config(assert(tokenward.document({ config = one.replace_config, folder = player.folder }))))
    end
    if step and step:outbound() then
        player.calls = player.calls + 1
    end
    if step then
        compare(step, expect)
    end
    local ready = {}
    if name then
        tag(player, name)
    end
    local found = gate:next_ready()
    while found do
        ready[#ready + 1] = player.tags[found]
        found = gate:next_ready()
    end
    table.sort(ready)
    if expect.ready then
        same("ready", ready, expect.ready)
    end
    given("calls", player.calls, expect.calls)
    if expect.snapshot then
        local seen = counters(gate)
        for counter, value in pairs(expect.snapshot) do
            if type(value) == "table" then
                for label, count in pairs(value) do
                    same(counter .. " " .. label, seen.decisions[label] or 0, count)
                end
            else
                same(counter, seen[counter] or 0, value)
            end
        end
    end
end


local function compare_messages(what, found, expected)
    if #found ~= #expected then
        error(("%s: %d expected, found %s"):format(what, #expected, table.concat(found, "\n")), 0)
    end
    for at, message in ipairs(expected) do
        for _, part in ipairs(message.contains or {}) do
            if not found[at]:find(part, 1, true) then
                error(("%s: %q is not in %q"):format(what, part, found[at]), 0)
            end
        end
        for _, part in ipairs(message.lacks or {}) do
            if found[at]:find(part, 1, true) then
                error(("%s: %q is in %q"):format(what, part, found[at]), 0)
            end
        end
    end
end


local function split(text)
    local found = {}
    for line in text:gmatch("[^\n]+") do
        found[#found + 1] = line
    end
    return found
end


local function play(vector, folder)
    for name, content in pairs(vector.files) do
        os.execute("mkdir -p '" .. folder .. "'")
        local file = assert(io.open(folder .. "/" .. name, "wb"))
        file:write(raw(content))
        file:close()
    end
    for name, value in pairs(vector.env or {}) do
        ffi.C.setenv(name, value, 1)
    end
    local options = { config = vector.text, consumers = vector.consumers, folder = folder, select = vector.select }
    local document, err = tokenward.document(options)
    for name in pairs(vector.env or {}) do
        ffi.C.unsetenv(name)
    end
    local load = vector.load or {}
    local errors = load.errors or load.consumers_errors
    if errors then
        if document then
            error("loading succeeded", 0)
        end
        return compare_messages("errors", split(err), errors)
    end
    if not document then
        error("loading failed: " .. err, 0)
    end
    if load.warnings then
        compare_messages("warnings", document:warnings(), load.warnings)
    end
    local gate = assert(tokenward.new({
        document = document, transport = function() error("vectors make no calls") end, log_level = "error",
    }))
    local player = {
        gate = gate, steps = {}, tags = {}, next_tag = 0, calls = 0, text = vector.text, folder = folder,
    }
    time.wall_us, time.monotonic_us = 1000e6, 1000e6
    for at, one in ipairs(vector.steps) do
        local ok, problem = pcall(play_step, player, one)
        if not ok then
            error(("step %d: %s"):format(at - 1, problem), 0)
        end
    end
end


-- Plays all of them, and says so as Rust's test runner does.
function _M.run(path, folder)
    local file = assert(io.open(path, "rb"))
    local vectors = assert(cjson.decode(file:read("*a")))
    file:close()
    local passed, failed = 0, 0
    for at, vector in ipairs(vectors) do
        if not NOT_HERE[vector.name] then
            local ok, problem = pcall(play, vector, folder .. "/" .. at)
            if ok then
                passed = passed + 1
            else
                failed = failed + 1
                ngx.say("test ", vector.area, ": ", vector.name, " ... FAILED: ", problem)
            end
        end
    end
    ngx.say(("test result: %s. %d passed; %d failed;"):format(failed == 0 and "ok" or "FAILED", passed, failed))
end


return _M
