-- Tokenward for OpenResty and nginx with the Lua module: who is behind an OAuth 2.0 access token, and what may the upstream be told?
--
--     init_worker_by_lua_block   { gate = require("resty.tokenward").new{ file = "/etc/tokenward.json" } }   -- in a module of yours
--     access_by_lua_block        { require("gate"):access() }
--
-- The README next to this library has the rest.

local ffi = require "ffi"
local bind_current = require "resty.tokenward.current"
local bind_flight = require "resty.tokenward.flight"
local bind_passed = require "resty.tokenward.passed"
local clock = require "resty.tokenward.clock"
local decisions = require "resty.tokenward.decision"
local documents = require "resty.tokenward.document"
local library = require "resty.tokenward.library"
local metrics = require "resty.tokenward.metrics"
local steps = require "resty.tokenward.step"
local transport = require "resty.tokenward.transport"

local ffi_new, ffi_gc, ffi_sizeof = ffi.new, ffi.gc, ffi.sizeof
local setmetatable, type, pairs, tostring = setmetatable, type, pairs, tostring
local text_of, view = library.text_of, library.view
local tonumber = tonumber


local _M = { _VERSION = "0.1.0" }

local Gate = {}
local gate_mt = { __index = Gate }
local policy_mt = {}

local OK = library.OK
local SOURCES, IDENTITIES = decisions.SOURCES, decisions.IDENTITIES
local LEVELS = { error = 1, warn = 2, info = 3, debug = 4 }

-- Those of a gate; the others are the document's.
local OPTIONS = {
    document = true, transport = true, location = true, metrics = true, name = true, keep = true, context = true,
    target_variable = true, log_level = true, direct = true, pool_size = true,
}


-- Bound once the library is loaded; what reads and edits requests, by the `direct` of a gate.
local lib, flight, passed
local currents = {}
-- Numbers of gates and policies, for notes of requests; 0 is nobody's.
local numbers = 0

local function next_number()
    numbers = numbers + 1
    return numbers
end


-- Reads a configuration and its consumers and checks them, without a gate: in `init_by_lua`, so that a bad one keeps the server from
-- starting. Gives a document, for `new{ document = ... }`; or nil and everything that is wrong with it.
_M.document = documents.new


-- Makes a gate: in `init_worker_by_lua`, since each worker has its own. `options`: those of `document`, or `document`; and `transport`,
-- `location`, `metrics`, `name`, `keep`, `context`, `target_variable`, `log_level`, `pool_size`. nil and the reason if that cannot be.
function _M.new(options)
    if type(options) ~= "table" then
        library.misuse("a table of options is needed")
    end
    if type(options.keep or {}) ~= "table" then
        library.misuse("`keep` is an array of names of claims")
    end
    for _, claim in ipairs(options.keep or {}) do
        if type(claim) ~= "string" then
            library.misuse("`keep` is an array of names of claims")
        end
    end
    if options.direct ~= nil and type(options.direct) ~= "boolean" and options.direct ~= "module" then
        library.misuse("`direct` is true, \"module\", false or nil")
    end
    if type(options.target_variable or "") ~= "string" then
        library.misuse("`target_variable` is the name of a variable")
    end
    if ngx.get_phase() == "init" then
        library.misuse("a gate is made in init_worker_by_lua: each worker has its own")
    end
    local of_document, has_document = {}, false
    for name, value in pairs(options) do
        if not OPTIONS[name] then
            of_document[name], has_document = value, true
        end
    end
    local document, err = options.document
    if document and has_document then
        library.misuse("a document has its configuration and consumers already")
    elseif not document then
        document, err = documents.new(of_document)
        if not document then
            return nil, err
        end
    end
    local log_level = LEVELS[options.log_level or "info"]
    if not log_level then
        library.misuse("`log_level` is error, warn, info or debug")
    end

    if not lib then
        lib = library.loaded()
        passed = bind_passed(lib)
        flight = bind_flight(lib, passed)
    end
    local mode = tostring(options.direct)
    currents[mode] = currents[mode] or bind_current(lib, passed, options.direct)

    local chosen, kind = transport.choose(options.transport, {
        location = options.location or "/_tokenward/introspect",
        pool_size = options.pool_size or 32,
    })
    if not chosen then
        return nil, kind
    end
    local dict
    if options.metrics then
        dict = ngx.shared[options.metrics]
        if not dict then
            return nil, "there is no lua_shared_dict " .. tostring(options.metrics)
        end
    end

    local settings = ffi_new("tokenward_options")
    settings.struct_size = ffi_sizeof("tokenward_options")
    settings.log_level, settings.log_lines = log_level, 256
    local out, errors = ffi_new("tokenward_introspector *[1]"), ffi_new("tokenward_error *[1]")
    local result = lib.tokenward_introspector_new(document.handle, settings, out, errors)
    if result ~= OK then
        return nil, library.reason(result, errors)
    end
    local self = setmetatable({
        lib = lib,
        handle = ffi_gc(out[0], lib.tokenward_introspector_free),
        transport = chosen,
        transport_kind = kind,
        current = currents[mode],
        number = next_number(),
        policy_number = next_number(),
        reply_bytes = document:reply_bytes(),
        keepalive = document:keepalive(),
        name = options.name or "tokenward",
        dict = dict,
        published = {},
        keep = options.keep,
        context = options.context == true or options.keep ~= nil,
        target_variable = options.target_variable,
        sleepers = flight.sleepers(),
        ready = {},
        next_tag = flight.FIRST_TAG,
        count = 0,
        counted = 0,
    }, gate_mt)
    flight.drain_log(self)
    if dict then
        local started
        started, err = metrics.start(self)
        if not started then
            return nil, err
        end
    end
    return self
end


-- Claims that later phases want, as text, or as JSON where they are no strings.
function Gate:remember(note, decision)
    local keep = self.keep
    for at = 1, #keep do
        local claim = keep[at]
        note[claim] = text_of(lib.tokenward_decision_claim_text(decision, claim, #claim, view))
            or text_of(lib.tokenward_decision_claim(decision, claim, #claim, view))
    end
end


-- What later phases see of a decision, in `ngx.ctx.tokenward`.
local function noted(self, decision)
    local note = {
        allow = lib.tokenward_decision_is_allow(decision),
        source = SOURCES[lib.tokenward_decision_source(decision)],
    }
    if not note.allow then
        note.reason = decisions.name_of_reason(lib, tonumber(lib.tokenward_decision_reason(decision)))
        note.status = tonumber(lib.tokenward_decision_status(decision))
        return note
    end
    note.identity = IDENTITIES[lib.tokenward_decision_identity(decision)]
    local consumer = lib.tokenward_decision_consumer(decision)
    if consumer ~= nil then
        note.consumer_id = text_of(lib.tokenward_consumer_id(consumer, view))
        note.consumer_username = text_of(lib.tokenward_consumer_username(consumer, view))
        note.consumer_custom_id = text_of(lib.tokenward_consumer_custom_id(consumer, view))
    end
    if self.keep then
        self:remember(note, decision)
    end
    return note
end


local count_out, headers_out = decisions.count_out, decisions.headers_out

local function has_response_headers(decision)
    return lib.tokenward_decision_response_headers(decision, headers_out, count_out) == OK and count_out[0] > 0
end


-- A step that holds its decision, and true if nothing was waited for; else nil and why not, or nil, nil and true where what was decided
-- already stands. `step`: one that was begun already.
local function decide(self, policy, step, policy_number)
    local err, stands
    if not step then
        step, err, stands = self.current.begin(self, policy, policy_number)
        if not step then
            return nil, err, stands
        end
    end
    if lib.tokenward_step_decision(step) == nil then
        local done
        done, err = flight.finish(self, step)
        if not done then
            return nil, err
        end
        return step
    end
    return step, nil, true
end


-- The refusal for what must not happen.
local function refuse_internal(self, why)
    ngx.log(ngx.ERR, "tokenward: ", library.loggable(why))
    local refusal = self.current.internal(self)
    if not refusal then
        return ngx.exit(ngx.HTTP_INTERNAL_SERVER_ERROR)
    end
    return self.current.refuse(refusal)
end


local function handle_of(policy)
    if policy == nil then
        return nil
    end
    if type(policy) ~= "table" or getmetatable(policy) ~= policy_mt then
        library.misuse("a policy of `gate:policy` is needed")
    end
    return policy.handle
end


local TOKEN_MISSING = 1100

local function access_slowly(self, policy, policy_number, begun)
    local step, err, is_now = decide(self, policy, begun, policy_number)
    if not step then
        return is_now or refuse_internal(self, err)
    end
    local decision = lib.tokenward_step_decision(step)
    local note = true
    if self.context then
        note = noted(self, decision)
        ngx.ctx.tokenward = note
    end
    -- What is read of a decision is read before its step goes, and that is said where it goes: LuaJIT keeps nothing that no code names.
    if not lib.tokenward_decision_is_allow(decision) then
        if lib.tokenward_decision_reason(decision) == TOKEN_MISSING and self.current.is_redirected() then
            ngx.log(ngx.WARN, "tokenward: the request was redirected within nginx to a location that decides otherwise, after its token ",
                "was taken out of its body, or one of several lines was hidden: it is refused")
        end
        local refusal = self.current.refusal(decision)
        lib.tokenward_step_free(ffi_gc(step, nil))
        flight.drain_log(self)
        return self.current.refuse(refusal)
    end
    local answers = has_response_headers(decision)
    local applied = self.current.apply(self, answers and 0 or policy_number, decision, is_now)
    if answers and has_response_headers(decision) then
        ngx.ctx.tokenward_headers = decisions.lines(OK)
    end
    lib.tokenward_step_free(ffi_gc(step, nil))
    if not applied then
        return refuse_internal(self, "the edits cannot be applied to this request")
    end
    return note
end


-- Does everything for the current request, in `access_by_lua`: decides, asking the authorization server without blocking, and either
-- applies the edits and returns, or answers with the refusal and ends the request. `policy`: of `gate:policy`. Where the request was let
-- go on already and then redirected within nginx, that stands for the same policy, and another decides from what the client sent.
function Gate:access(policy)
    local number = self.policy_number
    if policy ~= nil then
        policy, number = handle_of(policy), policy.number
    end
    local current = self.current
    local note, begun, failed
    if current.is_direct then
        note, begun, failed = current.pass(self, policy, number)
        if note then
            return note
        end
        if failed then
            return refuse_internal(self, "the edits cannot be applied to this request")
        end
    end
    return access_slowly(self, policy, number, begun)
end


-- A step's decision as an object, which can be applied to the current request.
function Gate:decision_of(step)
    return decisions.new(lib, step, function(handle)
        if not self.current.apply(self, 0, handle) then
            return refuse_internal(self, "the edits cannot be applied to this request")
        end
        if has_response_headers(handle) then
            ngx.ctx.tokenward_headers = decisions.lines(OK)
        end
        return true
    end, function(handle)
        return self.current.refuse(self.current.refusal(handle))
    end)
end


-- Decides about the current request and changes nothing: a decision, or nil and why there is none, which denies. With `request` it is
-- about that instead: `{ method, target, headers = { { name, value }, ... }, trailers, body }`.
function Gate:check(request, policy)
    local step, err
    if request then
        local begun
        begun, err = steps.begin(self, request, clock.now, handle_of(policy))
        if begun then
            step = begun.handle
            if lib.tokenward_step_decision(step) == nil then
                local done
                done, err = flight.finish(self, step)
                step = done and step or nil
            end
        end
    else
        step, err = decide(self, handle_of(policy))
    end
    if not step then
        return nil, err
    end
    local decision = self:decision_of(step)
    flight.drain_log(self)
    return decision
end


-- A further policy over the same cache and flights: an object of policy fields, or JSON. nil and everything that is wrong with it.
function Gate:policy(fields)
    local json = documents.json(fields, "policy")
    local out, errors = ffi_new("tokenward_policy *[1]"), ffi_new("tokenward_error *[1]")
    local result = lib.tokenward_policy_new(self.handle, json, #json, out, errors)
    if result ~= OK then
        return nil, library.reason(result, errors)
    end
    return setmetatable({ handle = ffi_gc(out[0], lib.tokenward_policy_free), number = next_number() }, policy_mt)
end


-- A step of its own, for flows that are driven by hand; see `resty.tokenward.step`. `now`: gives the time, for tests.
function Gate:begin(request, policy, now)
    return steps.begin(self, request, now or clock.now, handle_of(policy))
end


-- Whether the body is needed to decide about such a request.
function Gate:needs_body(request, policy)
    return steps.needs_body(self, request, handle_of(policy))
end


-- The tag of a step of `begin` whose wait can go on, or nil.
function Gate:next_ready()
    flight.drain(self)
    local tag = self.ready[1]
    if tag then
        table.remove(self.ready, 1)
    end
    return tag
end


-- All workers' counters as Prometheus text, where there is a shared dictionary; else this worker's.
function Gate:metrics()
    return metrics.all(self)
end


local forgotten_out = ffi_new("bool[1]")

-- Forgets what this worker remembers about a token; tells whether there was something.
function Gate:forget(token)
    if type(token) ~= "string" then
        library.misuse("a token is a string")
    end
    local result = lib.tokenward_introspector_forget(self.handle, token, #token, forgotten_out)
    flight.drain(self)
    if result ~= OK then
        return nil, library.reason(result)
    end
    return forgotten_out[0]
end


function Gate:forget_all()
    lib.tokenward_introspector_forget_all(self.handle)
    flight.drain(self)
end


-- Replaces consumers, or the configuration, by those of a document, from the next decision on.
function Gate:replace_consumers(document)
    local result = lib.tokenward_introspector_replace_consumers(self.handle, document.handle)
    self.number = next_number()
    flight.drain_log(self)
    if result ~= OK then
        return nil, library.reason(result)
    end
    return true
end


function Gate:replace_config(document)
    local errors = ffi_new("tokenward_error *[1]")
    local result = lib.tokenward_introspector_replace_config(self.handle, document.handle, errors)
    self.number = next_number()
    flight.drain(self)
    flight.drain_log(self)
    if result ~= OK then
        return nil, library.reason(result, errors)
    end
    self.reply_bytes, self.keepalive = document:reply_bytes(), document:keepalive()
    return true
end


-- In `header_filter_by_lua`, where tokens may be in the query: what a decision wants 2xx answers to carry.
function _M.header_filter()
    local ctx = ngx.ctx
    local lines = ctx.tokenward_headers
    if not lines or ngx.status < 200 or ngx.status > 299 then
        return
    end
    for _, line in ipairs(lines) do
        local name, value = line[1], line[2]
        local before = ngx.header[name]
        if before == nil or name:lower() ~= "cache-control" then
            ngx.header[name] = value
        else
            -- What the upstream says stays, but for what contradicts it.
            local kept = { value }
            for directive in (type(before) == "table" and table.concat(before, ",") or before):gmatch("[^,]+") do
                directive = directive:match("^%s*(.-)%s*$")
                local word = directive:lower():match("^[^=]*")
                if word ~= "public" and word ~= "private" and word ~= "s-maxage" and word ~= "" then
                    kept[#kept + 1] = directive
                end
            end
            ngx.header[name] = table.concat(kept, ", ")
        end
    end
end


return _M
