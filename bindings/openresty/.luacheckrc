-- Standard: what ngx_lua gives. A global that is written is an error; `kong` is what Kong gives a plugin.
std = "ngx_lua"
max_line_length = 140
files["**/cdefs.lua"] = { max_line_length = false }
-- Strings that C points into are kept there, and not read again.
files["**/current.lua"] = { ignore = { "241/alive" } }
files["**/decision.lua"] = { ignore = { "241/alive" } }
files["**/kong/**"] = { read_globals = { "kong" }, ignore = { "212/self" } }
files["**/tests/openresty/api.lua"] = { ignore = { "431", "432" } }
