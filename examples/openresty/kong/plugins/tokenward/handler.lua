-- A Kong plugin on Tokenward: `config.config` is a Tokenward configuration in JSON, the consumers are Kong's own.
local tokenward = require "resty.tokenward"

local Tokenward = { VERSION = "0.1.0", PRIORITY = 1700 }
-- One gate for each configuration and worker. Kong gives the same table for as long as the configuration is the same.
local gates = setmetatable({}, { __mode = "k" })
local changes = 0

-- The configuration with Kong's consumers. Reading them yields: they are read again if they change meanwhile.
local function document_of(conf)
    local before, found
    repeat
        before, found = changes, {}
        for one, err in kong.db.consumers:each(1000) do
            if err then return nil, err end
            found[#found + 1] = { id = one.id, username = one.username, custom_id = one.custom_id, tags = one.tags }
        end
    until before == changes
    return tokenward.document({ config = conf.config, consumers = found })
end

local function gate_of(conf)
    if gates[conf] then return gates[conf] end
    local document, err = document_of(conf)
    -- Another request may have been faster.
    if document and not gates[conf] then
        gates[conf], err = tokenward.new({ document = document, transport = "http" })
    end
    return gates[conf], err
end

-- Consumers that change are known from the next request on; answers stay remembered.
function Tokenward:init_worker()
    kong.worker_events.register(function()
        changes = changes + 1
        local known = {}
        for conf, gate in pairs(gates) do known[#known + 1] = { conf, gate } end
        for _, one in ipairs(known) do
            local document, err = document_of(one[1])
            if not document or not one[2]:replace_consumers(document) then
                -- Old consumers are not to be let in: the next request makes a new gate, or is refused.
                kong.log.err("tokenward: ", err or "the consumers are not replaced")
                gates[one[1]] = nil
            end
        end
    end, "crud", "consumers")
end

local function fail(err)
    kong.log.err("tokenward: ", err)
    return kong.response.exit(500, { message = "An unexpected error occurred" })
end

function Tokenward:access(conf)
    local decision
    local gate, err = gate_of(conf)
    if gate then decision, err = gate:check() end
    if not decision then return fail(err) end
    if not decision.allow then
        local headers, lines, body = {}, decision:refusal()
        for _, line in ipairs(lines) do headers[line[1]] = line[2] end
        return kong.response.exit(decision.status, body, headers)
    end
    local consumer = decision:consumer()
    if consumer then
        consumer, err = kong.client.load_consumer(consumer.id)
        if not consumer then return fail(err or "the consumer is gone") end
    end
    decision:apply()
    kong.client.authenticate(consumer, { id = decision:claim_text("client_id") or decision:claim_text("sub") })
end

return Tokenward
