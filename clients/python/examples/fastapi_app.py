"""A FastAPI application that is reached through a tunnel as long as it runs.

ADIT_RELAY=https://relay.example ADIT_KEY=… PORT=8000 python fastapi_app.py
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, Request, WebSocket

import adit

PORT = int(os.environ.get("PORT", "8000"))


@asynccontextmanager
async def tunnel(app: FastAPI) -> AsyncIterator[None]:
    async with adit.expose(PORT) as opened:
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


if __name__ == "__main__":
    uvicorn.run(app, port=PORT, log_level="warning")
