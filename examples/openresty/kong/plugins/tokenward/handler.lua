-- A Kong plugin on Tokenward: `config.config` is a Tokenward configuration in JSON, the consumers are Kong's own.

local tokenward = require "resty.tokenward"

local Tokenward = { VERSION = "0.1.0", PRIORITY = 1700 }

-- One gate for each configuration and worker. Kong gives the same table for as long as the configuration is the same.
local gates = setmetatable({}, { __mode = "k" })


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
    local known, err = consumers()
    if not known then
        return nil, err
    end
    local gate
    gate, err = tokenward.new({ config = conf.config, consumers = known, transport = "http" })
    gates[conf] = gate
    return gate, err
end


-- Consumers that change are known from the next request on: answers stay remembered.
function Tokenward:init_worker()
    kong.worker_events.register(function()
        local known = consumers()
        for conf, gate in pairs(gates) do
            local document = known and tokenward.document({ config = conf.config, consumers = known })
            if document then
                gate:replace_consumers(document)
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
    decision:apply()
    local consumer = decision:consumer()
    kong.client.authenticate(consumer and kong.client.load_consumer(consumer.id) or nil, {
        id = decision:claim_text("client_id") or decision:claim_text("sub"),
    })
end


return Tokenward
