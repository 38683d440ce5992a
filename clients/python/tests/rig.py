"""What the tests stand on: the real relay as a process, a target with a page for each case, and a relay of our own."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import os
import re
import signal
import socket
import tempfile
import unittest
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientSession, ClientTimeout, WSMsgType, web

import adit

DEADLINE = 30.0
KEY = "a-key-for-these-tests-alone"
BIG = 20_000_000


def in_time(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def limited(*args: Any) -> None:
        async with asyncio.timeout(DEADLINE):
            await test(*args)

    return limited


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Case(unittest.IsolatedAsyncioTestCase):
    """Every test has a deadline, a target, and a session of a viewer."""

    def __init_subclass__(cls) -> None:
        for name, test in list(vars(cls).items()):
            if name.startswith("test_"):
                setattr(cls, name, in_time(test))

    async def asyncSetUp(self) -> None:
        self.enter = self.enterAsyncContext
        self.viewer = await self.enter(ClientSession(timeout=ClientTimeout(DEADLINE)))
        self.target = await self.enter(target())


class Relay:
    """The relay that ADIT_BIN names, with its data in a directory that outlives its restarts."""

    def __init__(self, directory: str) -> None:
        self.directory, self.port, self.url = directory, 0, ""
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            os.environ["ADIT_BIN"],
            *["relay", "--listen", f"127.0.0.1:{self.port}", "--admin-listen", "127.0.0.1:0"],
            *["--data-dir", self.directory, "--drain", "10s", "--reconnect-wait", "20s"],
            env={**os.environ, "ADIT_KEYS": f"me:{KEY}"},
            stderr=asyncio.subprocess.PIPE,
        )
        assert self.process.stderr
        async for line in self.process.stderr:
            if found := re.search(rb'relay ready url="(http://127\.0\.0\.1:(\d+))"', line):
                self.url, self.port = found[1].decode(), int(found[2])
                self.rest = asyncio.create_task(self.process.stderr.read())
                return
        raise AssertionError("the relay did not start")

    async def stop(self, number: int = signal.SIGTERM) -> None:
        assert self.process
        if self.process.returncode is None:
            self.process.send_signal(number)
        await self.process.wait()
        await self.rest


@asynccontextmanager
async def relay() -> AsyncIterator[Relay]:
    with tempfile.TemporaryDirectory() as directory:
        running = Relay(directory)
        await running.start()
        try:
            yield running
        finally:
            await running.stop(signal.SIGKILL)


class Target:
    """A service: `/` greets, `/hash` and `/big` move bytes, `/chunks` streams, `/echo` is a WebSocket,
    `/hold` waits for its test."""

    def __init__(self) -> None:
        self.port = 0
        self.reached, self.left, self.release = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def hello(self, request: web.Request) -> web.Response:
        return web.Response(text=f"hello {request.query_string}")

    async def hash(self, request: web.Request) -> web.Response:
        digest = hashlib.sha256()
        async for chunk in request.content.iter_any():
            digest.update(chunk)
        return web.Response(text=digest.hexdigest())

    async def big(self, request: web.Request) -> web.Response:
        return web.Response(body=pattern())

    async def mirror(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        async for chunk in request.content.iter_any():
            await answer.write(chunk)
        return answer

    async def chunks(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        for number in range(100):
            await answer.write(b"%d\n" % number)
        return answer

    async def echo(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                await ws.send_str(message.data)
            else:
                await ws.send_bytes(message.data)
        return ws

    async def hold(self, request: web.Request) -> web.Response:
        self.reached.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.left.set()
            raise
        return web.Response(text="held")


@asynccontextmanager
async def serve(app: web.Application) -> AsyncIterator[int]:
    """Serves it at a free port, which is the value."""
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def target() -> AsyncIterator[Target]:
    service, app = Target(), web.Application(client_max_size=2 * BIG)
    app.router.add_get("/", service.hello)
    for page in (service.hash, service.mirror):
        app.router.add_post(f"/{page.__name__}", page)
    for page in (service.big, service.chunks, service.echo, service.hold):
        app.router.add_get(f"/{page.__name__}", page)
    async with serve(app) as service.port:
        yield service


def pattern() -> bytes:
    """Twenty million bytes in which a lost, doubled or moved piece shows."""
    return b"".join(b"%020d" % number for number in range(BIG // 20))


class Socket(web.WebSocketResponse):
    """A socket of the client, seen from the relay."""

    query: dict[str, str]
    bearer: str | None
    transport: asyncio.Transport

    async def say(self, **message: Any) -> None:
        await self.send_str(json.dumps(message))

    async def hear(self) -> Any:
        return json.loads(await self.receive_str())


class Script:
    """A relay that does and says what a test wants."""

    def __init__(self, level_two: bool) -> None:
        self.level_two, self.url = level_two, ""
        self.creations: list[dict[str, Any]] = []
        self.answers: list[web.Response] = []  # to the next creations
        self.deleted = asyncio.Event()
        self.control: asyncio.Queue[Socket] = asyncio.Queue(64)  # sockets, as they come
        self.data: asyncio.Queue[Socket] = asyncio.Queue(64)
        self.open: list[Socket] = []
        self.over = asyncio.Event()

    async def create(self, request: web.Request) -> web.Response:
        self.creations.append(await request.json())
        if self.answers:
            return self.answers.pop(0)
        name, number = self.creations[-1].get("name", "made-up"), len(self.creations)
        tunnel = {"id": f"an id/{number}&", "slug": name, "public_url": f"{self.url}/t/{name}/", "new": [1]}
        return web.json_response(tunnel, status=201)

    async def delete(self, request: web.Request) -> web.Response:
        self.deleted.set()
        return web.Response(status=204)

    async def socket(self, request: web.Request) -> Socket:
        control = request.path == "/ws/control"
        ws = Socket(protocols=("adit.1",) if control and self.level_two else (), max_msg_size=0, autoclose=False)
        assert isinstance(request.transport, asyncio.Transport)
        ws.query, ws.bearer, ws.transport = dict(request.query), request.headers.get("Authorization"), request.transport
        await ws.prepare(request)
        self.open.append(ws)
        await (self.control if control else self.data).put(ws)
        await self.over.wait()
        return ws

    async def welcome(self, **more: Any) -> Socket:
        """Takes the next control socket, and welcomes it."""
        ws = await self.control.get()
        if self.level_two:
            await ws.say(type="welcome", session=f"session-{len(self.creations)}", **more)
        return ws

    def hang_up(self) -> None:
        for ws in self.open:
            ws.transport.abort()


@asynccontextmanager
async def script(level_two: bool) -> AsyncIterator[Script]:
    told, app = Script(level_two), web.Application()
    app.router.add_post("/v1/tunnels", told.create)
    app.router.add_delete("/v1/tunnels/{id}", told.delete)
    app.router.add_get("/ws/{kind}", told.socket)
    async with serve(app) as port:
        told.url = f"http://127.0.0.1:{port}"
        try:
            yield told
        finally:
            told.over.set()


def expose(port: int | str, to: Relay | Script, **more: Any) -> adit.Tunnel:
    return adit.expose(port, relay=to.url, key=more.pop("key", KEY), **more)
