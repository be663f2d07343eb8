return {
    name = "tokenward",
    fields = {
        { config = { type = "record", fields = {
            { config = { type = "string", required = true, encrypted = true } },
        } } },
    },
}
