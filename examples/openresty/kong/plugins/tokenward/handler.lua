-- A Kong plugin on Tokenward: `config.config` is a Tokenward configuration in JSON, the consumers are Kong's own.

local tokenward = require "resty.tokenward"

local Tokenward = { VERSION = "0.1.0", PRIORITY = 1700 }

-- One gate for each configuration and worker. Kong gives the same table for as long as the configuration is the same.
local gates = setmetatable({}, { __mode = "k" })
-- How often the consumers changed: reading them yields, and they may change meanwhile.
local changes = 0


local function consumers()
    local found = {}
    for consumer, err in kong.db.consumers:each(1000) do
        if err then
            return nil, err
        end
        found[#found + 1] = {
            id = consumer.id, username = consumer.username, custom_id = consumer.custom_id, tags = consumer.tags,
        }
    end
    return found
end


local function gate_of(conf)
    if gates[conf] then
        return gates[conf]
    end
    local before, known, err
    repeat
        before = changes
        known, err = consumers()
    until before == changes or not known
    if not known then
        return nil, err
    end
    -- Another request may have been faster.
    if not gates[conf] then
        gates[conf], err = tokenward.new({ config = conf.config, consumers = known, transport = "http" })
    end
    return gates[conf], err
end


-- Consumers that change are known from the next request on: answers stay remembered.
function Tokenward:init_worker()
    kong.worker_events.register(function()
        changes = changes + 1
        local before, known, err = changes, consumers()
        if known and before ~= changes then
            return                                   -- A later event reads them again.
        end
        for conf, gate in pairs(gates) do
            local document, replaced
            if known then
                document, err = tokenward.document({ config = conf.config, consumers = known })
            end
            if document then
                replaced, err = gate:replace_consumers(document)
            end
            if not replaced then
                -- Old consumers are not to be let in: the next request makes a new gate, or is refused.
                kong.log.err("tokenward: ", err)
                gates[conf] = nil
            end
        end
    end, "crud", "consumers")
end


function Tokenward:access(conf)
    local gate, err = gate_of(conf)
    local decision
    if gate then
        decision, err = gate:check()
    end
    if not decision then
        kong.log.err("tokenward: ", err)
        return kong.response.exit(500, { message = "An unexpected error occurred" })
    end
    if not decision.allow then
        local headers, lines, body = {}, decision:refusal()
        for _, line in ipairs(lines) do
            headers[line[1]] = line[2]
        end
        return kong.response.exit(decision.status, body, headers)
    end
    local consumer = decision:consumer()
    if consumer then
        consumer, err = kong.client.load_consumer(consumer.id)
        if not consumer then
            kong.log.err("tokenward: ", err or "the consumer is gone")
            return kong.response.exit(500, { message = "An unexpected error occurred" })
        end
    end
    decision:apply()
    kong.client.authenticate(consumer, {
        id = decision:claim_text("client_id") or decision:claim_text("sub"),
    })
end


return Tokenward
