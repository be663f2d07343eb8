"""FastAPI: routes that want scopes, shown on the OpenAPI page at /docs.

    TOKENWARD_CONFIG=tokenward.json uvicorn fastapi_app:app
"""

import os
from typing import Annotated

from fastapi import Depends, FastAPI

from tokenward import Allow, Introspector
from tokenward.fastapi import install, require

app = FastAPI()
install(app, Introspector(os.environ.get("TOKENWARD_CONFIG", "tokenward.json")))


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/orders")
async def orders(caller: Annotated[Allow, Depends(require("api:read"))]) -> dict[str, str | None]:
    consumer = caller.identity.consumer
    return {"consumer": consumer.username if consumer else None, "subject": caller.claims.get("sub")}


@app.delete("/orders")
async def delete_orders(caller: Annotated[Allow, Depends(require("api:write"))]) -> dict[str, str]:
    return {"deleted_by": str(caller.claims.get("sub"))}
