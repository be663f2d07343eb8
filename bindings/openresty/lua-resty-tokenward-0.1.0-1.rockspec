package = "lua-resty-tokenward"
version = "0.1.0-1"
source = {
   -- `luarocks make` takes what lies in this folder. Whoever publishes a rock names the repository that it comes from.
   url = ".",
}
description = {
   summary = "OAuth 2.0 token introspection for OpenResty, with a cache, single flight, consumers and header edits",
   detailed = [[
The Lua side of Tokenward. It needs libtokenward.so (`make -C ffi install`), OpenResty or nginx with the Lua module, lua-resty-core and
lua-cjson. lua-resty-http is used where it is installed.]],
   license = "MIT OR Apache-2.0",
}
dependencies = {
   "lua >= 5.1, < 5.2",
}
build = {
   type = "builtin",
   modules = {
      ["resty.tokenward"] = "lib/resty/tokenward.lua",
      ["resty.tokenward.capture"] = "lib/resty/tokenward/capture.lua",
      ["resty.tokenward.cdefs"] = "lib/resty/tokenward/cdefs.lua",
      ["resty.tokenward.clock"] = "lib/resty/tokenward/clock.lua",
      ["resty.tokenward.current"] = "lib/resty/tokenward/current.lua",
      ["resty.tokenward.decision"] = "lib/resty/tokenward/decision.lua",
      ["resty.tokenward.document"] = "lib/resty/tokenward/document.lua",
      ["resty.tokenward.flight"] = "lib/resty/tokenward/flight.lua",
      ["resty.tokenward.headers"] = "lib/resty/tokenward/headers.lua",
      ["resty.tokenward.library"] = "lib/resty/tokenward/library.lua",
      ["resty.tokenward.metrics"] = "lib/resty/tokenward/metrics.lua",
      ["resty.tokenward.passed"] = "lib/resty/tokenward/passed.lua",
      ["resty.tokenward.step"] = "lib/resty/tokenward/step.lua",
      ["resty.tokenward.transport"] = "lib/resty/tokenward/transport.lua",
   },
}
