-- The gate of this server: its document is read by the master, and each worker makes its own gate of it.

local tokenward = require "resty.tokenward"


local _M = {}

local settings, document, gate


-- In init_by_lua: a configuration that is refused keeps the server from starting.
function _M.read(given)
    settings = given
    local err
    document, err = tokenward.document({ file = given.file, library = given.library })
    if not document then
        error("\n" .. err, 0)
    end
end


-- In init_worker_by_lua.
function _M.start()
    gate = assert(tokenward.new({
        document = document,
        metrics = "tokenward",
        target_variable = "tokenward_target",
        transport = "socket",
        address = settings.address,
        context = settings.context,
    }))
end


-- In access_by_lua.
function _M.access()
    return gate:access()
end


function _M.metrics()
    ngx.header["Content-Type"] = "text/plain; version=0.0.4"
    ngx.print(assert(gate:metrics()))
end


return _M
