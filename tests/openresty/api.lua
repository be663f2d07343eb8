-- The library's own promises, in a worker of nginx: each function is a test.

local cjson = require "cjson.safe"
local tokenward = require "resty.tokenward"


local _M, tests = {}, {}

local CONFIG = { introspection_url = "https://as.example/introspect", authorization_value = "Basic eA==", ttl = 3600 }
local ALICE = { { id = "1", username = "alice", custom_id = "app", tags = { "a" }, groups = { "g" } } }


local function check(condition, what)
    if not condition then
        error(what or "it is not so", 2)
    end
end


local function same(seen, expected)
    if cjson.encode(seen) ~= cjson.encode(expected) then
        error(("expected %s, got %s"):format(cjson.encode(expected), cjson.encode(seen)), 2)
    end
end


local function fails(pattern, call, ...)
    local ok, err = pcall(call, ...)
    check(not ok, "no error")
    check(tostring(err):find(pattern, 1, true), "the error is: " .. tostring(err))
    -- Misuse is blamed on who did it.
    check(tostring(err):find("api.lua", 1, true) or not tostring(err):find("lua:%d"), "blamed on " .. tostring(err))
end


local function answers(claims)
    local calls = {}
    return function(call)
        calls[#calls + 1] = call
        return { status = 200, headers = { { "content-type", "application/json" } }, body = cjson.encode(claims) }
    end, calls
end


local function gate_of(options)
    options.config = options.config or CONFIG
    options.consumers = options.consumers or ALICE
    return assert(tokenward.new(options))
end


local function bearer(token, more)
    local headers = { { "Authorization", "Bearer " .. token } }
    for _, line in ipairs(more or {}) do
        headers[#headers + 1] = line
    end
    return { method = "GET", target = "/orders?page=2", headers = headers }
end


tests["a request that is given is decided about, and remembered"] = function()
    local transport, calls = answers({ active = true, username = "alice", scope = "a b", realm = { roles = { "x", "y" } } })
    local gate = gate_of({ transport = transport })
    local decision = assert(gate:check(bearer("abc", { { "X_Consumer-ID", "root" } })))
    check(decision.allow)
    same({ decision.source, decision.identity }, { "endpoint", "consumer" })
    same(decision:consumer(), ALICE[1])
    same(decision:remove(), { "Authorization", "X_Consumer-ID" })
    same(decision:set()[1], { "X-Consumer-ID", "1" })
    same(decision:claim("realm"), { roles = { "x", "y" } })
    same(decision:claim_text("username"), "alice")
    same(decision:claim_json("username"), '"alice"')
    same((decision:claim_at("/realm/roles/1")), "y")
    check(decision:claim("none") == nil and decision:claim_text("realm") == nil and decision:expires() == nil)
    check(decision:target() == nil and decision:body() == nil)
    same(calls[1].url, "https://as.example/introspect")
    same({ calls[1].method, calls[1].body }, { "POST", "token=abc" })
    check(calls[1].time_left > 9 and calls[1].reply_bytes == 1048576 and calls[1].keepalive == 60)
    same(gate:check(bearer("abc")).source, "cache")
    same(#calls, 1)
    check(gate:forget("abc") and not gate:forget("abc"))
    gate:forget_all()
    same(gate:check(bearer("abc")).source, "endpoint")
end

tests["what a refusal says"] = function()
    local gate = gate_of({ transport = answers({ active = false }) })
    local decision = assert(gate:check(bearer("abc")))
    check(not decision.allow)
    same({ decision.reason, decision.reason_number, decision.status }, { "token_inactive", 1200, 401 })
    local headers, body = decision:refusal()
    same(headers[3][1], "WWW-Authenticate")
    same(cjson.decode(body).error, "invalid_token")
    same(decision:set(), {})
    check(decision:consumer() == nil and decision:claim("sub") == nil)
end

tests["a policy shares the cache and asks for more"] = function()
    local transport, calls = answers({ active = true, scope = "read" })
    local gate = gate_of({ transport = transport })
    local writes = assert(gate:policy({ require = { scopes = { "write" } } }))
    check(gate:check(bearer("abc")).allow)
    same(gate:check(bearer("abc"), writes).reason, "insufficient_scope")
    same(#calls, 1)
    local policy, err = gate:policy({ ttl = 3, realmm = "x" })
    check(policy == nil and err:find("`realmm`", 1, true) and err:find("ttl", 1, true), err)
    fails("a policy of `gate:policy` is needed", gate.check, gate, bearer("abc"), {})
end

tests["everything that is wrong with a configuration is said at once"] = function()
    local gate, err = tokenward.new({ config = { introspection_url = 3, tll = 1 }, transport = function() end })
    check(gate == nil and err:find("introspection_url", 1, true) and err:find("`tll`", 1, true), err)
    local document
    document, err = tokenward.document({ file = "/nowhere/at/all" })
    check(document == nil and err:find("/nowhere/at/all", 1, true), err)
    document, err = tokenward.document({ config = CONFIG, consumers = { {} } })
    check(document == nil and err:find("consumers[0]", 1, true), err)
    document = assert(tokenward.document({ kong = [[
_format_version: "3.0"
consumers: [{username: alice}]
plugins:
- name: oauth2-introspection
  config: {introspection_url: "http://as.example/", authorization_value: x}
]] }))
    check(#document:warnings() > 0 and document.consumer_count == 1)
    same(document:introspection_url(), "http://as.example/")
    same({ document:timeout(), document:keepalive(), document:reply_bytes() }, { 10, 60, 1048576 })
    check(document:tls_roots() == nil and document:concurrent_introspections() == 1024)
end

tests["misuse is an error where it happens"] = function()
    fails("a table of options is needed", tokenward.new)
    fails("a table of options is needed", tokenward.document)
    fails("one of `config`, `kong` and `file` is needed", tokenward.document, {})
    fails("unknown option `configg`", tokenward.document, { configg = "{}" })
    fails("config: a table or JSON text is needed", tokenward.document, { config = 3 })
    fails("`keep` is an array", tokenward.new, { config = CONFIG, keep = { 3 } })
    fails("`direct` is", tokenward.new, { config = CONFIG, direct = "list" })
    fails("`log_level` is", tokenward.new, { config = CONFIG, log_level = "loud" })
    local gate = gate_of({ transport = function() end })
    fails("a header line is { name, value }", gate.check, gate, { headers = { { "a" } } })
    local step = assert(gate:begin(bearer("abc")))
    fails("an answer, or how the call failed", step.reply, step, nil, "somehow")
    local ok, err = step:resume()
    check(not ok and err == "TOKENWARD_WRONG_STEP", err)
    check(step:decision() == nil)
    local decision = gate:check({ method = "GET", target = "/" })
    fails("the name of a claim is a string", decision.claim, decision, 3)
    local none, why = tokenward.new({ config = CONFIG, metrics = "no_such_dict" })
    check(none == nil and why:find("no_such_dict", 1, true))
    none, why = tokenward.new({ config = CONFIG, transport = "carrier pigeon" })
    check(none == nil and why:find("capture", 1, true))
    none, why = require("resty.tokenward.library").load("/nowhere/libtokenward.so")
    check(none == nil and why:find("is loaded already", 1, true))
end

tests["a transport that fails, or gives no answer, lets nobody in"] = function()
    for transport, reason in pairs({
        [function() error("out of paper") end] = "reply_malformed",
        [function() return "200" end] = "reply_malformed",
        [function() return nil, "no idea" end] = "reply_malformed",
        [function() return { status = 20000, headers = {}, body = "" } end] = "reply_malformed",
        [function() return nil, "timed_out" end] = "endpoint_timed_out",
        [function() return nil, "dns" end] = "endpoint_unreachable",
        [function() return nil, "connect" end] = "endpoint_unreachable",
    }) do
        local gate = gate_of({ transport = transport, log_level = "error" })
        local decision = assert(gate:check(bearer("abc")))
        check(not decision.allow)
        same(decision.reason, reason)
    end
end

tests["a failed connection is tried again"] = function()
    local calls = 0
    local gate = gate_of({ transport = function()
        calls = calls + 1
        if calls == 1 then
            return nil, "closed"
        end
        return { status = 200, headers = { { "Content-Type", "application/json" } }, body = '{"active":true}' }
    end })
    check(gate:check(bearer("abc")).allow and calls == 2)
end

tests["a step is driven by hand"] = function()
    local gate = gate_of({ transport = function() end })
    local asks, waits = assert(gate:begin(bearer("abc"))), assert(gate:begin(bearer("abc")))
    same(asks:outbound().body, "token=abc")
    check(waits:outbound() == nil and waits:deadline() > 0 and asks:deadline() == nil)
    assert(waits:set_tag(7))
    check(gate:next_ready() == nil)
    assert(asks:reply({ status = 200, headers = { { "content-type", "application/json" } }, body = '{"active":true}' }))
    same(gate:next_ready(), 7)
    assert(waits:resume())
    same(waits:decision().source, "waiting")
    check(asks:decision().allow)
    -- The decision stays when its step is let go.
    local decision = waits:decision()
    waits:free()
    collectgarbage()
    same(#decision:remove(), 1)
end

tests["tags of steps by hand and of requests that sleep do not mix"] = function()
    local replies, asked = {}, 0
    local gate = gate_of({ transport = function(call)
        asked = asked + 1
        while not replies[call.body] do
            ngx.sleep(0.01)
        end
        return replies[call.body]
    end })
    local active = { status = 200, headers = { { "content-type", "application/json" } }, body = '{"active":true}' }
    local asks, waits = assert(gate:begin(bearer("by-hand"))), assert(gate:begin(bearer("by-hand")))
    assert(waits:set_tag(1))
    local threads = {}
    for at = 1, 3 do
        threads[at] = ngx.thread.spawn(function() return assert(gate:check(bearer("sleeps"))) end)
    end
    same(asked, 1)
    assert(asks:reply(active))
    replies["token=sleeps"] = active
    -- Whoever takes the tags, each comes to whose it is.
    local seen = {}
    local before = ngx.now()
    for at = 1, 3 do
        local ok, decision = ngx.thread.wait(threads[at])
        check(ok and decision.allow)
        seen[at] = decision.source
    end
    check(ngx.now() - before < 1, "nobody waits for the deadline")
    same(seen, { "endpoint", "waiting", "waiting" })
    same(gate:next_ready(), 1)
    check(gate:next_ready() == nil)
    assert(waits:resume())
    check(waits:decision().allow)
    fails("a tag is a whole number", waits.set_tag, waits, 2^52)
end

tests["a dictionary that is full takes nothing in place of something else"] = function()
    local dict = ngx.shared.small
    local at = 0
    while dict:safe_set("theirs" .. at, ("x"):rep(100)) do
        at = at + 1
    end
    local gate = gate_of({ transport = answers({ active = true }), metrics = "small" })
    gate:check(bearer("abc"))
    local metrics, err = gate:metrics()
    check(metrics == nil and err:find("takes no more: no memory", 1, true), err)
    for before = 0, at - 1 do
        check(dict:get("theirs" .. before), "evicted")
    end
end

tests["handles are freed by the collector"] = function()
    for _ = 1, 50 do
        local gate = gate_of({ transport = answers({ active = true }) })
        gate:check(bearer("abc"))
        gate:begin(bearer("other"))
        gate:policy({})
    end
    collectgarbage()
    collectgarbage()
end

tests["nothing is put into the global table"] = function()
    local known = {}
    for name in pairs(_G) do
        known[name] = true
    end
    gate_of({ transport = answers({ active = true }) }):check(bearer("abc"))
    for name in pairs(_G) do
        check(known[name], "a global: " .. tostring(name))
    end
    for name in pairs(package.loaded) do
        check(not (name:find("^resty%.tokenward") and rawget(_G, name)), name)
    end
end

-- A request's memory as nginx lays it out, with what the Lua module says of its headers.
local function memory(size)
    local ffi = require "ffi"
    local names = { "Host", "Authorization", "Accept" }
    local made = { size = size, count = #names, words = ffi.new("uintptr_t[128]"), pool = ffi.new("uintptr_t[512]"), texts = {} }
    local function address(pointer)
        return ffi.cast("uintptr_t", ffi.cast("char *", pointer))
    end
    local array = ffi.cast("char *", made.pool) + 80
    made.pool[0], made.pool[1] = address(array + 20 * size), address(made.pool + 512)
    made.elements = ffi.new("ngx_http_lua_ffi_table_elt_t[?]", #names)
    made.headers = {}
    for at, name in ipairs(names) do
        local key, value = ffi.new("unsigned char[?]", #name + 1, name), ffi.new("unsigned char[4]", "abc")
        local lowcase = ffi.new("unsigned char[?]", #name + 1)
        made.texts[at] = { key, value, lowcase }
        local header = ffi.cast("tokenward_ngx_header_t *", array + (at - 1) * size)
        header.key, header.key_len, header.value, header.value_len = key, #name, value, 3
        header.hash, header.lowcase_key = ffi.C.ngx_hash_strlow(lowcase, key, #name), lowcase
        made.elements[at - 1].key.data, made.elements[at - 1].key.len = key, #name
        made.elements[at - 1].value.data, made.elements[at - 1].value.len = value, 3
        made.headers[at] = header
    end
    made.words[11] = address(made.pool)
    local list = ffi.cast("tokenward_ngx_list_t *", made.words + 13)
    list.last, list.part.elts, list.part.nelts = list.part, array, #names
    list.size, list.nalloc, list.pool = size, 20, made.pool
    made.list, made.authorization = list, made.words + 40
    made.authorization[0] = address(made.headers[2])
    return made
end

tests["nginx's list of headers is found where it is, and nowhere if anything about it is another"] = function()
    local ffi = require "ffi"
    local headers = require "resty.tokenward.headers"
    same({ headers.size_of(1022001), headers.size_of(1023000), headers.size_of(1029003) }, { 48, 56, 56 })
    check(headers.size_of(1017009) == nil and headers.size_of(1030000) == nil and headers.size_of(nil) == nil)
    local function find(made)
        return headers.find(ffi.cast("ngx_http_request_t *", made.words), made.elements, made.count, made.size)
    end
    local changes = {
        ["the list's last part"] = function(made) made.list.last = ffi.cast("void *", made.pool) end,
        ["a further part"] = function(made) made.list.part.next = made.list.part end,
        ["the number"] = function(made) made.list.part.nelts = 2 end,
        ["the room"] = function(made) made.list.nalloc = 2 end,
        ["a room beyond the pool"] = function(made) made.list.nalloc = 200 end,
        ["the size"] = function(made) made.list.size = 64 end,
        ["the pool"] = function(made) made.list.pool = made.words end,
        ["the request's pool"] = function(made) made.words[11] = made.words[11] + 8 end,
        ["where the pool is free"] = function(made) made.pool[0] = made.pool[0] - 8 end,
        ["where the pool ends"] = function(made) made.pool[1] = made.pool[0] - 8 end,
        ["the array"] = function(made) made.list.part.elts = made.words end,
        ["a name's place"] = function(made) made.headers[1].key = made.texts[2][1] end,
        ["a name's length"] = function(made) made.headers[3].key_len = 5 end,
        ["a value's place"] = function(made) made.headers[3].value = made.texts[1][2] end,
        ["a value's length"] = function(made) made.headers[1].value_len = 4 end,
        ["a hash"] = function(made) made.headers[2].hash = 1 end,
        ["a name in lower case"] = function(made) made.texts[1][3][0] = 0x48 end,
        ["no name in lower case"] = function(made) made.headers[1].lowcase_key = nil end,
        ["no pointer to the credential"] = function(made) made.authorization[0] = 0 end,
        ["two pointers to the credential"] = function(made) made.words[50] = made.authorization[0] end,
        ["no credential"] = function(made) made.elements[1].key.len = 12 end,
        ["two credentials"] = function(made) made.elements[2].key = made.elements[1].key end,
    }
    for _, size in ipairs({ 48, 56 }) do
        same({ find(memory(size)) }, { 13 * 8, 40 * 8 })
        for what, change in pairs(changes) do
            local made = memory(size)
            change(made)
            check(find(made) == nil, size .. ": " .. what)
        end
    end
    local made = memory(56)
    made.headers[1].next[0] = made.headers[3]
    same({ find(made) }, { 13 * 8, 40 * 8 })
    made.headers[1].next[0] = made.words
    check(find(made) == nil, "a header beyond the list")
end

-- As much of resty.http as is used, over real sockets. It is a stand-in: lua-resty-http itself is no Debian package.
local function stand_in(port, seen)
    local client = {}
    client.__index = client
    function client:set_timeout(milliseconds)
        seen.timeout = milliseconds
        self.socket:settimeout(milliseconds)
    end
    function client:connect(options)
        seen.options = options
        return self.socket:connect("127.0.0.1", port)
    end
    function client:request(request)
        seen.request = request
        local lines = { request.method .. " " .. request.path .. " HTTP/1.1" }
        for name, value in pairs(request.headers) do
            lines[#lines + 1] = name .. ": " .. value
        end
        local sent, err = self.socket:send(table.concat(lines, "\r\n") .. "\r\n\r\n" .. request.body)
        if not sent then
            return nil, err
        end
        local status
        status, err = self.socket:receive("*l")
        if not status then
            return nil, err
        end
        local headers, line = {}, self.socket:receive("*l")
        while line and line ~= "" do
            local name, value = line:match("^([^:]+): *(.*)$")
            headers[name] = value
            line = self.socket:receive("*l")
        end
        local left = tonumber(headers["Content-Length"])
        return {
            status = tonumber(status:match(" (%d+)")), headers = headers,
            body_reader = function(size)
                if left <= 0 then
                    return nil
                end
                local chunk, problem = self.socket:receive(math.min(size, left))
                if not chunk then
                    return nil, problem
                end
                left = left - #chunk
                return chunk
            end,
        }
    end
    function client:set_keepalive(milliseconds)
        seen.kept = milliseconds
        return self.socket:setkeepalive(milliseconds)
    end
    function client:close()
        seen.closed = true
        return self.socket:close()
    end
    return { new = function() return setmetatable({ socket = ngx.socket.tcp() }, client) end }
end

tests["resty.http is used where it is installed, and a connection kept only after a whole answer"] = function()
    local seen = {}
    package.loaded["resty.http"] = stand_in(tonumber(ngx.var.arg_endpoint), seen)
    local gate = gate_of({ config = { introspection_url = "http://127.0.0.1:1/introspect?a=b", authorization_value = "Basic eA==",
        limits = { reply_bytes = 4096 }, timeout = 1000 } })
    same(gate.transport_kind, "http")
    check(gate:check(bearer("good")).allow)
    same({ seen.request.path, seen.request.method, seen.request.body }, { "/introspect?a=b", "POST", "token=good" })
    same({ seen.options.ssl_verify, seen.options.scheme, seen.options.port }, { true, "http", 1 })
    same({ seen.request.headers.Authorization, seen.request.headers["Content-Length"] }, { "Basic eA==", "10" })
    check(seen.kept == 60000 and not seen.closed and seen.timeout <= 1000)
    for token, reason in pairs({
        long = "reply_malformed", cut = "reply_malformed", slow = "endpoint_timed_out", closed = "endpoint_unreachable",
    }) do
        seen.kept, seen.closed = nil, nil
        local decision = gate:check(bearer(token))
        same({ token, decision.reason }, { token, reason })
        check(seen.closed and not seen.kept, token)
    end
    package.loaded["resty.http"] = nil
end

tests["the Kong plugin works with what Kong gives a plugin"] = function()
    local said = {}
    local function each(list)
        local at = 0
        return function()
            at = at + 1
            if list[at] == false then
                return false, "no database"
            end
            return list[at]
        end
    end
    local listed = { { id = "1", username = "alice" } }
    -- A stand-in of the few functions that the handler uses, and no more.
    rawset(_G, "kong", {
        db = { consumers = { each = function() return each(listed) end } },
        log = { err = function(...) said.err = table.concat({ ... }) end },
        response = { exit = function(status, body, headers) said.exit = { status, body, headers } end },
        client = {
            load_consumer = function(id)
                if said.gone then
                    return nil, "gone"
                end
                return { id = id, loaded = true }
            end,
            authenticate = function(consumer, credential) said.authenticated = { consumer, credential } end,
        },
        worker_events = { register = function(call, source, event) said.event = { call, source, event } end },
    })
    local seen = {}
    package.loaded["resty.http"] = stand_in(tonumber(ngx.var.arg_endpoint), seen)
    local handler = require "kong.plugins.tokenward.handler"
    local schema = require "kong.plugins.tokenward.schema"
    same(schema.name, "tokenward")
    local conf = { config = '{"introspection_url": "http://127.0.0.1:1/", "authorization_value": "Basic eA=="}' }
    handler:init_worker()
    handler:access(conf)
    same({ said.exit[1], said.exit[3]["WWW-Authenticate"] }, { 401, 'Bearer realm="service"' })
    ngx.req.set_header("Authorization", "Bearer good")
    ngx.req.set_header("X-Consumer-ID", "root")
    said.exit = nil
    handler:access(conf)
    check(said.exit == nil, cjson.encode(said.exit or said.err))
    same(said.authenticated, { { id = "1", loaded = true }, { id = "app" } })
    same({ ngx.req.get_headers()["x-consumer-id"], ngx.req.get_headers()["authorization"] }, { "1" })
    -- Kong's consumers change: the answer is remembered, the consumer is another.
    listed = { { id = "2", username = "alice" } }
    same({ said.event[2], said.event[3] }, { "crud", "consumers" })
    said.event[1]()
    ngx.req.set_header("Authorization", "Bearer good")
    handler:access(conf)
    same(said.authenticated[1].id, "2")
    -- They cannot be read: nobody is let in by what was known.
    local fails_once = listed
    listed = { false }
    said.event[1]()
    ngx.req.set_header("Authorization", "Bearer good")
    handler:access(conf)
    check(said.exit and said.exit[1] == 500)
    listed, said.exit = fails_once, nil
    handler:access(conf)
    check(said.exit == nil)
    said.gone, said.authenticated = true, nil
    ngx.req.set_header("Authorization", "Bearer good")
    handler:access(conf)
    check(said.exit[1] == 500 and not said.authenticated)
    handler:access({ config = "{}" })
    check(said.exit[1] == 500 and said.err:find("introspection_url", 1, true))
    package.loaded["resty.http"] = nil
    rawset(_G, "kong", nil)
end


function _M.run()
    local names = {}
    for name in pairs(tests) do
        names[#names + 1] = name
    end
    table.sort(names)
    local results = {}
    for _, name in ipairs(names) do
        local ok, err = xpcall(tests[name], function(problem) return debug.traceback(tostring(problem), 2) end)
        results[#results + 1] = { name = name, problem = not ok and err or nil }
    end
    ngx.print(cjson.encode(results))
end


return _M
