-- libtokenward: found, loaded once, and compared with the declarations; and what it says when something is wrong.

local ffi = require "ffi"
local cdefs = require "resty.tokenward.cdefs"

local ffi_new = ffi.new
local ffi_str = ffi.string
local band, rshift = require("bit").band, require("bit").rshift
local concat = table.concat
local tonumber, tostring = tonumber, tostring
local pcall = pcall


local _M = {
    -- Results that are looked for. The others are failures, whatever their number.
    OK = 0,
    ABSENT = 1,
    INVALID_ARGUMENT = 3,
    INVALID_CONFIG = 5,
    SYSTEM = 6,
}


local lib, lib_path


local function version(number)
    return rshift(number, 16) .. "." .. band(number, 0xffff)
end


-- Where `ffi.load` may find it: below package.cpath, then where the system looks.
local function candidates()
    local found = {}
    for template in package.cpath:gmatch("[^;]+") do
        local folder = template:match("^(.*/)[^/]*%?[^/]*$")
        if folder then
            found[#found + 1] = folder .. "libtokenward.so"
            found[#found + 1] = folder .. "libtokenward.so.1"
        end
    end
    found[#found + 1] = "libtokenward.so.1"
    return found
end


local function exists(path)
    local file = io.open(path, "rb")
    if file then
        file:close()
    end
    return file ~= nil
end


-- The library: of `path`, or the first that is found. A process has one; another path afterwards is an error.
function _M.load(path)
    if lib then
        if path and path ~= lib_path then
            return nil, "libtokenward is loaded already, from " .. lib_path
        end
        return lib
    end

    local tried = {}
    for _, candidate in ipairs(path and { path } or candidates()) do
        if candidate:find("/", 1, true) and not exists(candidate) then
            tried[#tried + 1] = candidate .. ": no such file"
        else
            local ok, loaded = pcall(ffi.load, candidate)
            if ok then
                local theirs, ours = tonumber(loaded.tokenward_abi_version()), cdefs.TOKENWARD_ABI_VERSION
                if loaded.tokenward_abi_check(ours) ~= _M.OK then
                    return nil, candidate .. " has the ABI " .. version(theirs) .. ", and this resty.tokenward needs "
                        .. version(ours) .. " or a later minor version of it"
                end
                lib, lib_path = loaded, candidate
                return lib
            end
            tried[#tried + 1] = tostring(loaded)
        end
    end
    return nil, "libtokenward is not found: " .. concat(tried, "; ")
end


-- The library that is loaded.
function _M.loaded()
    return lib
end


-- A `tokenward_str` as a Lua string.
local function text(view)
    return ffi_str(view.data, view.len)
end
_M.text = text


-- What a text-giving function gives, or nil where there is none.
local view = ffi_new("tokenward_str[1]")

function _M.text_of(result)
    if result == _M.OK then
        return text(view[0])
    end
    return nil
end
_M.view = view


-- Why a call failed: everything that its error says.
function _M.reason(result, errors)
    local said = ffi_str(lib.tokenward_result_name(result))
    local err = errors and errors[0]
    if err == nil then
        return said
    end
    if lib.tokenward_error_message(err, view) == _M.OK then
        said = text(view[0])
    end
    lib.tokenward_error_free(err)
    errors[0] = nil
    return said
end


-- Text of others for a line of the log: one line, and no longer than is read.
function _M.loggable(said)
    said = tostring(said):gsub("[%c\127-\255]", "?")
    return #said > 500 and said:sub(1, 500) .. "..." or said
end


-- Misuse is an error of who called the library, however deep it is found.
function _M.misuse(message)
    local level = 2
    local info = debug.getinfo(level, "S")
    while info and (info.what == "C" or info.source:find("resty/tokenward", 1, true)) do
        level = level + 1
        info = debug.getinfo(level, "S")
    end
    error(message, info and level or 2)
end


-- Sets a `tokenward_str`. Whoever calls keeps the string alive.
function _M.set(field, value)
    field.data, field.len = value, #value
end


return _M
