-- Documents: a configuration and its consumers, read and found valid. One may be read by the master (init_by_lua), so that a bad
-- configuration keeps the server from starting, and used by each worker.

local ffi = require "ffi"
local cjson = require "cjson.safe"
local library = require "resty.tokenward.library"

local ffi_new, ffi_gc, ffi_sizeof = ffi.new, ffi.gc, ffi.sizeof
local text, text_of, view = library.text, library.text_of, library.view
local tonumber, type, setmetatable = tonumber, type, setmetatable


local _M = {}
local mt = { __index = _M }

local KNOWN = {
    config = true, consumers = true, file = true, kong = true, folder = true, select = true, library = true,
}


local encoder = cjson.new()
if encoder.encode_empty_table_as_object then
    encoder.encode_empty_table_as_object(true)
end
if encoder.encode_escape_forward_slash then
    encoder.encode_escape_forward_slash(false)
end

local function json(value, what)
    if type(value) == "string" then
        return value
    end
    if type(value) ~= "table" then
        library.misuse(what .. ": a table or JSON text is needed, not a " .. type(value))
    end
    local made, err = encoder.encode(value)
    if not made then
        library.misuse(what .. ": " .. err)
    end
    return made
end
_M.json = json


local function read_file(path)
    local file, err = io.open(path, "rb")
    if not file then
        return nil, err
    end
    local content
    content, err = file:read("*a")
    file:close()
    if not content then
        return nil, path .. ": " .. err
    end
    return content
end


-- Reads and checks. `options`: `config` (a table or JSON) or `kong` (a declarative file's text) or `file` (a path of either, `#route=NAME`
-- behind it for one of several plugins), `consumers` (an array or JSON), `folder`, `select`, `library`.
function _M.new(options)
    if type(options) ~= "table" then
        library.misuse("a table of options is needed")
    end
    for name in pairs(options) do
        if not KNOWN[name] then
            library.misuse("unknown option `" .. tostring(name) .. "`")
        end
    end
    local given = (options.config and 1 or 0) + (options.kong and 1 or 0) + (options.file and 1 or 0)
    if given ~= 1 then
        library.misuse("one of `config`, `kong` and `file` is needed")
    end

    local lib, err = library.load(options.library)
    if not lib then
        return nil, err
    end

    local folder, select = options.folder, options.select
    local content
    if options.file then
        local path, part = options.file:match("^(.*)#([a-z]+=.*)$")
        path = path or options.file
        select = select or part
        content, err = read_file(path)
        if not content then
            return nil, err
        end
        folder = folder or path:match("^(.*/)[^/]*$") or "."
    else
        content = options.kong or json(options.config, "config")
    end
    local consumers = options.consumers
    if type(consumers) == "table" and next(consumers) == nil then
        consumers = "[]"
    end
    consumers = consumers and json(consumers, "consumers")

    local source = ffi_new("tokenward_source")
    source.struct_size = ffi_sizeof("tokenward_source")
    library.set(source.text, content)
    if consumers then
        library.set(source.consumers, consumers)
    end
    if folder then
        library.set(source.folder, folder)
    end
    if select then
        library.set(source.select, select)
    end
    local out, errors = ffi_new("tokenward_document *[1]"), ffi_new("tokenward_error *[1]")
    local result = lib.tokenward_document_new(source, out, errors)
    if result ~= library.OK then
        return nil, library.reason(result, errors)
    end
    return setmetatable({
        handle = ffi_gc(out[0], lib.tokenward_document_free),
        lib = lib,
        consumer_count = tonumber(lib.tokenward_document_consumer_count(out[0])),
    }, mt)
end


-- What is allowed but probably not meant: an array of texts.
function _M:warnings()
    local found = {}
    local problem = ffi_new("tokenward_problem")
    for at = 0, tonumber(self.lib.tokenward_document_warning_count(self.handle)) - 1 do
        if self.lib.tokenward_document_warning_at(self.handle, at, problem) == library.OK then
            local path, message = text(problem.path), text(problem.message)
            found[#found + 1] = path == "" and message or path .. ": " .. message
        end
    end
    return found
end


-- The endpoint's URL; its query counts as a secret.
function _M:introspection_url()
    return text_of(self.lib.tokenward_document_introspection_url(self.handle, view))
end


-- Path and content of the certificate authorities that vouch for the endpoint; nil: the system's.
function _M:tls_roots()
    local pem = ffi_new("tokenward_str[1]")
    if self.lib.tokenward_document_tls_roots(self.handle, view, pem) ~= library.OK then
        return nil
    end
    return text(view[0]), text(pem[0])
end


-- Seconds.
function _M:timeout()
    return tonumber(self.lib.tokenward_document_timeout_us(self.handle)) / 1e6
end


-- Seconds.
function _M:keepalive()
    return tonumber(self.lib.tokenward_document_keepalive_us(self.handle)) / 1e6
end


-- Bytes.
function _M:reply_bytes()
    return tonumber(self.lib.tokenward_document_reply_bytes(self.handle))
end


function _M:concurrent_introspections()
    return tonumber(self.lib.tokenward_document_concurrent_introspections(self.handle))
end


return _M
