-- Header lines added to the current request by nginx's own list, as its modules do it: for a tenth of what ngx.req.set_header costs.
--
-- Where the list lies within a request is for nginx's headers to say, which Lua does not see. It is looked for once in each worker, by
-- what it must hold, and nothing is taken on trust: every field that is written later was read before where nginx itself had written it,
-- and was what it has to be (`find`). What is added first is a line for trial, which the Lua module has to find (`is_true`). Anything
-- unexpected, and the list is never touched.

local ffi = require "ffi"
local bit = require "bit"
require "resty.core.request"

local C = ffi.C
local ffi_cast, ffi_new, ffi_str, ffi_copy, ffi_fill = ffi.cast, ffi.new, ffi.string, ffi.copy, ffi.fill
local band, bor, bxor, rshift = bit.band, bit.bor, bit.bxor, bit.rshift
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
local uchars_t, cuchar = ffi.typeof("unsigned char *"), ffi.typeof("const unsigned char *")
-- Sizes of a header before nginx 1.23, and since, with a pointer to the next of its name. nginx writes its own into each list.
local PLAIN, CHAINED = 48, 56
-- A request is larger than this, in words, and has its headers within.
local SEARCHED = 100
-- More than any pool of a request has in one block; and how many are looked at.
local POOL_BLOCK, BLOCKS = 2^24, 16

-- Those whose lists and headers were looked at.
local OLDEST, LATEST, CHAINED_SINCE = 1018000, 1029999, 1023000


-- What a header has to be in this nginx; nil for one that is not known.
function _M.size_of(version)
    if type(version) ~= "number" or version < OLDEST or version > LATEST or ffi.sizeof("void *") ~= 8 or not ffi.abi("le") then
        return nil
    end
    return version < CHAINED_SINCE and PLAIN or CHAINED
end


-- 1 for a header that may be `Authorization`, by its length and first two letters, else 0: without a branch, since it is asked about every
-- header. There is something behind a name of one letter.
local function may_be_authorization(name, length)
    return rshift(bor(bxor(length, 13), bxor(bor(name[0], 0x20), 0x61), bxor(bor(name[1], 0x20), 0x75)) - 1, 31)
end
_M.may_be_authorization = may_be_authorization


local function is_within(pointer, from, length)
    local at = ffi_cast("uintptr_t", pointer)
    from = ffi_cast("uintptr_t", from)
    return at >= from and at - from < length
end


-- Whether a header is one of nginx's, field by field.
local function is_header(header, element, size, elements, count)
    local length = element.key.len
    if header.key ~= element.key.data or header.key_len ~= length
        or header.value ~= element.value.data or header.value_len ~= element.value.len
        or header.lowcase_key == nil or length == 0
    then
        return false
    end
    local lowcase = ffi_new("unsigned char[?]", length)
    if C.ngx_hash_strlow(lowcase, header.key, length) ~= header.hash
        or ffi_str(lowcase, length) ~= ffi_str(header.lowcase_key, length)
    then
        return false
    end
    return size == PLAIN or header.next[0] == nil or is_within(header.next[0], elements, count * size)
end


-- Whether memory is of a pool. It begins with its first block; each begins with where it is free, where it ends, and the next.
local function is_of_pool(pool, memory, length)
    local block = pool
    for _ = 1, BLOCKS do
        local from, free, upto = ffi_cast("uintptr_t", block), block[0], block[1]
        if not (from < free and free <= upto and upto - from < POOL_BLOCK) then
            return false
        end
        local at = ffi_cast("uintptr_t", memory)
        if from < at and at + length <= free then
            return true
        end
        block = ffi_cast(words_t, block[2])
        if block == nil then
            return false
        end
    end
    return false
end


-- Whether this is the list of those headers. `words`: where it lies; the two words before it are the request's pool and its buffer.
local function holds(words, elements, count, size)
    local list = ffi_cast(list_t, words)
    local pool = ffi_cast(words_t, list.pool)
    if list.last ~= list.part or list.part.next ~= nil or list.part.nelts ~= count or list.nalloc < count or list.nalloc > 4096
        or list.size ~= size or pool == nil or words[-2] ~= ffi_cast("uintptr_t", pool)
    then
        return false
    end
    if not is_of_pool(pool, list.part.elts, list.nalloc * size) then
        return false
    end
    local at_byte = ffi_cast(bytes_t, list.part.elts)
    for at = 0, count - 1 do
        if not is_header(ffi_cast(header_t, at_byte + at * size), elements[at], size, list.part.elts, count) then
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
local function add(list, size, name, name_len, value, value_len)
    local copy = ffi_cast(uchars_t, C.ngx_pnalloc(list.pool, name_len * 2 + value_len + 3))
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
    if size == CHAINED then
        header.next[0] = nil
    end
    return true
end
_M.add = add


-- Where the list lies within a request, and where nginx's own pointer to its `Authorization`, in bytes; nil where they are not found, and
-- for a request that does not show them: it has one such line. `elements` are the request's `count` headers as the Lua module gives
-- them.
function _M.find(r, elements, count, size)
    local credential
    for at = 0, count - 1 do
        if may_be_authorization(elements[at].key.data, elements[at].key.len) == 1 then
            if credential then
                return nil
            end
            credential = at
        end
    end
    if not credential or ffi_str(elements[credential].key.data, 13):lower() ~= "authorization" then
        return nil
    end
    local words, found = ffi_cast(words_t, r), nil
    for word = 2, SEARCHED - 8 do
        -- A list with one part begins with the address of that part, which follows.
        if words[word] == ffi_cast("uintptr_t", words + word + 1) and words[word + 2] == count
            and holds(words + word, elements, count, size)
        then
            if found then
                return nil
            end
            found = word
        end
    end
    if not found then
        return nil
    end
    local header = words[found + 1] + credential * size
    local pointer
    for word = found + 7, SEARCHED - 1 do
        if words[word] == header then
            if pointer then
                return nil
            end
            pointer = word
        end
    end
    if not pointer then
        return nil
    end
    return found * 8, pointer * 8
end


-- Whether a line that is added here is what the Lua module finds then. The line is taken away again.
function _M.is_true(r, offset, size, errmsg)
    local list = ffi_cast(list_t, ffi_cast(bytes_t, r) + offset)
    local name, value = "X-Tokenward-Probe", "\"probe\""
    local truncated = ffi_new("int[1]")
    local before = C.ngx_http_lua_ffi_req_get_headers_count(r, 0, truncated)
    if not add(list, size, ffi_cast(cuchar, name), #name, ffi_cast(cuchar, value), #value) then
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


-- Names of lines that are set, for good: those that configurations can name. Lines point to them while requests last.
local names = {}

local function name_of(line)
    local name = ffi_str(line.name.data, line.name.len)
    local known = names[name]
    if not known then
        local text, lowcase = ffi_new("unsigned char[?]", #name + 1, name), ffi_new("unsigned char[?]", #name + 1)
        known = { text = text, lowcase = lowcase, length = #name, hash = C.ngx_hash_strlow(lowcase, text, #name) }
        names[name] = known
    end
    return known
end


-- Lines that were made for the answers of hits lately, under the number that decisions of one answer share: at most SLOTS of them, of at
-- most LONGEST bytes each. Numbers come one after the other.
local SLOTS, LONGEST = 1024, 8192
local kept, seen = {}, {}
for slot = 0, SLOTS - 1 do
    kept[slot], seen[slot] = false, 0
end


-- What was made for a number, or false.
function _M.kept(number)
    local slot = band(number, SLOTS - 1)
    local lines = kept[slot]
    if lines and lines.number == number then
        return lines
    end
    return false
end


-- Makes lines of `count` of C's for the next request with this number, if it came before. Their values are one text, which each request
-- copies, and each line's value is where in it, until then.
function _M.keep(number, size, set, count)
    local slot = band(number, SLOTS - 1)
    if number == 0 or seen[slot] ~= number then
        seen[slot] = number
        return
    end
    local bytes = 0
    for at = 0, count - 1 do
        bytes = bytes + tonumber(set[at].value.len) + 1
    end
    if count == 0 or bytes + count * size > LONGEST then
        return
    end
    local rows, text = ffi_new("char[?]", count * size), ffi_new("unsigned char[?]", bytes)
    ffi_fill(rows, count * size)
    local at_byte = 0
    for at = 0, count - 1 do
        local header, name, value = ffi_cast(header_t, rows + at * size), name_of(set[at]), set[at].value
        local length = tonumber(value.len)
        header.hash, header.key_len, header.key = name.hash, name.length, name.text
        header.lowcase_key, header.value_len = name.lowcase, length
        header.value = ffi_cast(uchars_t, at_byte)
        ffi_copy(text + at_byte, value.data, length)
        text[at_byte + length] = 0
        at_byte = at_byte + length + 1
    end
    kept[slot] = { number = number, count = count, rows = rows, text = text, bytes = bytes }
end


return _M
