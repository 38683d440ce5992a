"""A FastAPI application that is reached through a tunnel as long as it runs.

ADIT_RELAY=https://relay.example ADIT_KEY=… uvicorn fastapi_app:app --port 8000
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, WebSocket

import adit


@asynccontextmanager
async def tunnel(app: FastAPI) -> AsyncIterator[None]:
    async with adit.expose(8000) as opened:
        print(opened.url, flush=True)
        yield


app = FastAPI(lifespan=tunnel)


@app.get("/")
async def hello(request: Request) -> dict[str, str]:
    return {"hello": request.headers.get("x-forwarded-for", "nobody")}


@app.websocket("/echo")
async def echo(ws: WebSocket) -> None:
    await ws.accept()
    async for text in ws.iter_text():
        await ws.send_text(text)
