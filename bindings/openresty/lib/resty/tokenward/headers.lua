-- Header lines added to the current request at a third of what ngx.req.set_header costs: by nginx's own list, as its modules do it.
--
-- Where the list lies within a request is for nginx's headers to say, which Lua does not see. It is found once in each worker, by what it
-- must hold: the very lines that the Lua module gives, at the same addresses. It is used only after a line that was added was found
-- again by the Lua module; anything unexpected, and it is never used. That is no promise of nginx's: it is for those alone who ask for it
-- with `direct = true`.

local ffi = require "ffi"
require "resty.core.request"

local C = ffi.C
local ffi_cast, ffi_new, ffi_str, ffi_copy = ffi.cast, ffi.new, ffi.string, ffi.copy
local tonumber, pcall = tonumber, pcall


if not pcall(ffi.typeof, "tokenward_ngx_list_t") then
    ffi.cdef[[
        typedef struct tokenward_ngx_part_s {
            void                        *elts;
            uintptr_t                    nelts;
            struct tokenward_ngx_part_s *next;
        } tokenward_ngx_part_t;

        typedef struct {
            tokenward_ngx_part_t *last;
            tokenward_ngx_part_t  part;
            size_t                size;
            uintptr_t             nalloc;
            void                 *pool;
        } tokenward_ngx_list_t;

        typedef struct {
            uintptr_t      hash;
            size_t         key_len;
            unsigned char *key;
            size_t         value_len;
            unsigned char *value;
            unsigned char *lowcase_key;
            void          *next[1];
        } tokenward_ngx_header_t;

        void *ngx_list_push(tokenward_ngx_list_t *list);
        void *ngx_pnalloc(void *pool, size_t size);
        uintptr_t ngx_hash_strlow(unsigned char *to, unsigned char *from, size_t length);
    ]]
end


local _M = {}

local bytes_t, words_t = ffi.typeof("char *"), ffi.typeof("uintptr_t *")
local list_t, header_t = ffi.typeof("tokenward_ngx_list_t *"), ffi.typeof("tokenward_ngx_header_t *")
local cuchar = ffi.typeof("const unsigned char *")
-- Sizes of a header before nginx 1.23, and since, with a pointer to the next of its name.
local PLAIN, CHAINED = 48, 56
-- A request is larger than this, and has its list within.
local SEARCHED = 100


-- Whether this is the list of those headers.
local function holds(list, elements, count)
    if list.last ~= list.part or list.part.nelts ~= count or list.part.next ~= nil or list.nalloc < count
        or (list.size ~= PLAIN and list.size ~= CHAINED)
    then
        return false
    end
    local at_byte = ffi_cast(bytes_t, list.part.elts)
    for at = 0, count - 1 do
        local header, element = ffi_cast(header_t, at_byte + at * tonumber(list.size)), elements[at]
        if header.key ~= element.key.data or header.key_len ~= element.key.len
            or header.value ~= element.value.data or header.value_len ~= element.value.len
        then
            return false
        end
    end
    return true
end


-- Whether a list has one part, its own.
function _M.is_whole(list)
    return list.last == list.part
end


-- Adds a line; false: there is no memory. Name and value are copied.
local function add(list, is_chained, name, name_len, value, value_len)
    local copy = ffi_cast("unsigned char *", C.ngx_pnalloc(list.pool, name_len * 2 + value_len + 3))
    if copy == nil then
        return false
    end
    local header = ffi_cast(header_t, C.ngx_list_push(list))
    if header == nil then
        return false
    end
    ffi_copy(copy, name, name_len)
    copy[name_len] = 0
    header.key, header.key_len = copy, name_len
    copy = copy + name_len + 1
    ffi_copy(copy, value, value_len)
    copy[value_len] = 0
    header.value, header.value_len = copy, value_len
    copy = copy + value_len + 1
    header.hash = C.ngx_hash_strlow(copy, header.key, name_len)
    header.lowcase_key = copy
    if is_chained then
        header.next[0] = nil
    end
    return true
end
_M.add = add


-- Where the list lies within a request, in bytes, and whether its headers are chained; nil where it is not found. `elements` are the
-- request's `count` headers as the Lua module gives them.
function _M.find(r, elements, count)
    if count == 0 or ffi.sizeof("void *") ~= 8 then
        return nil
    end
    local words = ffi_cast(words_t, r)
    for word = 0, SEARCHED - 1 do
        -- A list with one part begins with the address of that part, which follows.
        if words[word] == ffi_cast("uintptr_t", words + word + 1) then
            local list = ffi_cast(list_t, words + word)
            if words[word + 2] == count and list.part.next == nil and holds(list, elements, count) then
                return word * 8, list.size == CHAINED
            end
        end
    end
    return nil
end


-- Whether a line that is added here is what the Lua module finds then. The line is taken away again.
function _M.is_true(r, offset, is_chained, errmsg)
    local list = ffi_cast(list_t, ffi_cast(bytes_t, r) + offset)
    local name, value = "X-Tokenward-Probe", "\"probe\""
    local truncated = ffi_new("int[1]")
    local before = C.ngx_http_lua_ffi_req_get_headers_count(r, 0, truncated)
    if not add(list, is_chained, ffi_cast(cuchar, name), #name, ffi_cast(cuchar, value), #value) then
        return false
    end
    local count = C.ngx_http_lua_ffi_req_get_headers_count(r, 0, truncated)
    local elements = ffi_new("ngx_http_lua_ffi_table_elt_t[?]", count)
    C.ngx_http_lua_ffi_req_get_headers(r, elements, count, 1)
    local last = elements[count - 1]
    local found = count == before + 1 and ffi_str(last.key.data, last.key.len) == name
        and ffi_str(last.value.data, last.value.len) == value
    local removed = C.ngx_http_lua_ffi_req_set_header(r, name, #name, nil, 0, nil, 0, 1, errmsg) == 0
    return found and removed and C.ngx_http_lua_ffi_req_get_headers_count(r, 0, truncated) == before
end


return _M
