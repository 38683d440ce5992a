"""Lets viewers reach a service on this machine through an Adit relay.

    async with adit.expose(3000) as tunnel:
        print(tunnel.url)
        await tunnel.wait()

The numbers in parentheses are sections of protocol.md, the page that describes the wire.
Read from the top: what a program uses, then one control session, then the bytes of one connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import inspect
import json
import logging
import math
import os
import random
import socket
import ssl
import struct
import urllib.error
import urllib.request
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from email.message import Message
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

__all__ = ["AditError", "Key", "NotAuthorised", "RelayUnreachable", "Tunnel", "TunnelEnded", "expose"]
__version__ = "0.1.0"

log = logging.getLogger("adit")

Key = str | Callable[[], str | Awaitable[str]]
"""A key or token, or a function that is asked for one at each connection and before a token ends."""

LEVEL_TWO = Subprotocol("adit.1")
CONTROL = "/ws/control"
CHUNK = 64 * 1024  # bytes that are read of the target at one go
MESSAGE = 1024 * 1024  # the largest message that is taken; the relay's own have 64 KiB (7)
ANSWER = 1024 * 1024  # the most that is read of an answer to a REST call
CLAIM = 10.0  # seconds from an announcement to its data socket, where `welcome` does not say (7)
WAITING = 256  # announcements that may wait at the same time, likewise
PING_EVERY, PONG_WAIT = 25.0, 20.0  # seconds (3); by these a relay that vanished is noticed within 45
HANDSHAKE = 15.0  # seconds for a REST call, and for the handshake of a control socket
GOODBYE = 5.0  # seconds for the other side to hang up, once all is said
DELIVERY = 3600.0  # seconds for the last bytes of a stream to get to a slow viewer; the relay's own limit (7)
LONGEST_WAIT = 30.0  # seconds between two attempts to come back (5)
FINAL = {"expired", "deleted", "replaced"}  # reasons after which a client stops for good (8.1)
KNOWN = FINAL | {"revoked", "token_expired", "stale", "protocol_error", "message_too_big", "restart"}


class AditError(Exception):
    """The tunnel cannot be served; the text says what to do. `code` is the relay's word for it (2.3), or empty."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class NotAuthorised(AditError):
    """The relay refuses the key. Trying again will not help."""


class RelayUnreachable(AditError):
    """The relay cannot be reached, or says that it cannot serve now. `after` is how many seconds it asks to wait."""

    def __init__(self, message: str, code: str = "", after: float = 0.0) -> None:
        super().__init__(message, code)
        self.after = after


class TunnelEnded(AditError):
    """The relay has ended the tunnel: it expired, was deleted, or another client has taken it over."""


class Tunnel:
    """A way for viewers to a service of this machine, served while its `async with` block runs.

    target: a port of this machine, or `"HOST:PORT"`
    relay: its URL; without it that of the variable ADIT_RELAY
    key: a key or token, or a function (also an async one) that gives a fresh one; without it ADIT_KEY
    name: the name in the URL; without it the relay makes one up, which stays as long as this tunnel is open
    ttl: lifetime such as `"1h30m"`; without it there is no end
    options: further fields of a creation (2.1), such as `{"policy": {"allow": "10.0.0.0/8"}}`
    grace: seconds that running requests have to finish when the tunnel is closed
    ssl_context: how the relay's certificate is verified; without it as the system does, see also SSL_CERT_FILE

    Raises ValueError if an argument or a variable is missing or makes no sense.
    """

    url: str
    """Where viewers go. It does not change, whatever happens to the relay or the network."""
    name: str
    """The name in the URL."""

    def __init__(
        self,
        target: int | str,
        *,
        relay: str | None = None,
        key: Key | None = None,
        name: str | None = None,
        ttl: str | None = None,
        options: Mapping[str, Any] | None = None,
        grace: float = 10.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._host, self._port = _parse_target(target)
        self._relay = (relay or os.environ.get("ADIT_RELAY", "")).rstrip("/")
        parts = urlsplit(self._relay)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("the relay's URL is missing or wrong: give relay='https://…', or set ADIT_RELAY")
        self._key: Key = key or os.environ.get("ADIT_KEY", "")
        if not self._key:
            raise ValueError("there is no key: give key='…', or set ADIT_KEY; `adit key create NAME` makes one")
        self._fields = {**(options or {}), "local_port": self._port, "source": f"adit-python/{__version__}"}
        self._fields.update({field: value for field, value in [("name", name), ("ttl", ttl)] if value})
        self._grace = grace
        # Shared, as each new one would read the system's certificates anew.
        self._ssl = (ssl_context or ssl.create_default_context()) if parts.scheme == "https" else None
        self._opener = urllib.request.build_opener(_NoRedirects, urllib.request.HTTPSHandler(context=self._ssl))
        self._bearer = ""  # the key or token that data sockets and REST calls carry
        self._id = ""
        self._tasks: set[asyncio.Task[None]] = set()  # streams, and control sessions
        self._sessions: set[_Session] = set()

    async def __aenter__(self) -> Tunnel:
        """Returns when viewers can come. Raises AditError if they never will, also where the relay does not answer."""
        self._online = asyncio.Event()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._over.add_done_callback(lambda over: over.exception())  # not everybody asks by wait()
        self._over.add_done_callback(lambda _: self._online.set())
        self._runner = asyncio.create_task(self._run())
        try:
            await self._online.wait()
            if self._over.done():
                self._over.result()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def wait(self) -> None:
        """Returns when the tunnel was closed by `close`. Raises AditError if it ended in any other way."""
        await asyncio.shield(self._over)

    async def close(self) -> None:
        """Ends the tunnel in order: no new viewers; what runs may finish; then the relay forgets the tunnel."""
        self._runner.cancel()
        ended = self._over.done()
        if not ended:
            self._over.set_result(None)
        await asyncio.gather(*(session.ws.close() for session in self._sessions))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._grace)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(self._runner, *self._tasks, return_exceptions=True)
        if self._id and not ended:
            with contextlib.suppress(AditError):  # it is a courtesy: an unused tunnel does no harm
                await self._rest("DELETE", f"/v1/tunnels/{quote(self._id, safe='')}?unless_connected=true")
        self._id = ""

    async def renew(self, key: Key | None = None) -> None:
        """Gives the relay a fresh token of the same owner. No stream is touched; a refusal is logged."""
        self._key = key or self._key
        bearer = await self._ask_key()
        for session in list(self._sessions):
            await session.offer(bearer)

    # Coming back (5)

    async def _run(self) -> None:
        try:
            await self._keep_online()
        except Exception as error:
            self._end(error)

    def _end(self, error: Exception) -> None:
        if not self._over.done():
            if self._online.is_set():
                log.error("the tunnel has ended: %s", error)
            self._over.set_exception(error)
            self._runner.cancel()

    async def _keep_online(self) -> None:
        loop = asyncio.get_running_loop()
        delay, longest, successor_of = 0.0, 0.5, ""
        while True:
            await asyncio.sleep(delay)
            try:
                session = await self._connect(successor_of)
            except RelayUnreachable as error:
                if not self._online.is_set() and not error.after:
                    raise
                longest = min(2 * longest, LONGEST_WAIT)
                delay = max(random.uniform(longest / 4, longest), error.after)
                log.warning("%s; trying again in %.1f s", error, delay)
                continue
            self._online.set()
            began = loop.time()
            self._sessions.add(session)
            self._spawn(session.serve())
            await session.turned.wait()
            if session.reconnect_in is not None:  # it drains, and goes on beside its successor (8.1, 8.5)
                delay, successor_of = session.reconnect_in, session.id
                log.info("the relay is about to restart; what runs goes on")
            else:
                # Whoever stays shorter than we have waited is a relay that fails all the time: wait longer.
                longest = 1.0 if loop.time() - began > longest else min(2 * longest, LONGEST_WAIT)
                delay, successor_of = random.uniform(longest / 4, longest), ""
                log.warning("the connection to the relay was lost (%s); trying again in %.1f s", session.end, delay)

    async def _connect(self, successor_of: str) -> _Session:
        """Creates the tunnel, or the same again, and opens its control socket."""
        self._bearer = await self._ask_key()
        tunnel = await self._rest("POST", "/v1/tunnels", self._fields)
        texts = [tunnel.get(field) if isinstance(tunnel, dict) else None for field in ("id", "slug", "public_url")]
        if not all(isinstance(text, str) and text for text in texts):
            raise AditError(f"{self._relay} does not answer like an Adit relay: is the URL right?")
        self._id, self.name, self.url = (_plain(text) for text in texts)
        self._fields |= {"name": self.name, "resume": True}  # from now on no other will do
        wanted = self._fields.get("proto", "http")
        if tunnel.get("proto", "http") != wanted:
            await self._rest("DELETE", f"/v1/tunnels/{quote(self._id, safe='')}")
            raise AditError(f"this relay has no tunnels for {wanted}")
        if self._fields.get("policy") and "policy" not in tunnel:
            raise AditError("this relay knows no policies, and would let everybody in: expose nothing there with one")
        if wanted == "tcp" and isinstance(tunnel.get("remote_port"), int):
            self._fields["remote_port"] = tunnel["remote_port"]
        query = {"tunnel_id": self._id, **({"successor_of": successor_of} if successor_of else {})}
        try:
            ws = await self._dial(CONTROL, query, HANDSHAKE)
        except InvalidStatus as error:
            answer = error.response
            raise self._refusal(answer.status_code, _lower(answer.headers), bytes(answer.body or b"")) from None
        except (OSError, WebSocketException) as error:
            raise RelayUnreachable(f"cannot open a WebSocket to {self._relay}: {error or 'timed out'}") from error
        return _Session(self, ws)

    async def _ask_key(self) -> str:
        try:
            key = self._key() if callable(self._key) else self._key
            key = (await key if inspect.isawaitable(key) else key).strip()
        except Exception as error:  # it may ask a server, which may be as far away as the relay: we shall ask again
            raise RelayUnreachable(f"the function that gives the key has failed: {error!r}") from error
        if not key or not key.isascii() or not key.isprintable():
            raise NotAuthorised("the key is empty, or has characters that no key has")
        return key

    async def _rest(self, method: str, path: str, body: object = None) -> Any:
        """One REST call (2). Returns the parsed answer; raises AditError for any but a success."""
        request = urllib.request.Request(self._relay + path, method=method)
        request.add_header("Authorization", f"Bearer {self._bearer}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")

        def call() -> tuple[int, Mapping[str, str], bytes]:
            try:
                with self._opener.open(request, timeout=HANDSHAKE) as answer:
                    return answer.status, _lower(answer.headers), answer.read(ANSWER)
            except urllib.error.HTTPError as refused:
                with refused:
                    return refused.code, _lower(refused.headers), refused.read(ANSWER)

        try:
            status, headers, text = await asyncio.to_thread(call)
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", error)
            hint = "is it running, and the URL right?"
            if isinstance(cause, ssl.SSLCertVerificationError):
                hint = "an authority of your own is named by ssl_context, or SSL_CERT_FILE"
            raise RelayUnreachable(f"cannot reach the relay {self._relay}: {cause}: {hint}") from error
        if status >= 300:
            raise self._refusal(status, headers, text)
        return _parse(text) if text else None

    def _refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> AditError:
        answer = _parse(body)
        said = answer if isinstance(answer, dict) else {}
        code = _plain(said.get("code", ""))
        text = _plain(said.get("error", "")) or http.client.responses.get(status, "")
        if status in (401, 403):
            return NotAuthorised(f"the relay refuses this key ({status}): {text}", code)
        if 300 <= status < 400:
            to = _plain(headers.get("location", "elsewhere"))
            return AditError(f"the relay's URL is wrong: {self._relay} leads to {to}", code)
        # A name that is not free, or a wish that is wrong, stays so. A 404 may be a proxy whose relay restarts.
        if status in (408, 429) or status >= 500 or (status == 404 and self._online.is_set()):
            after = _number(headers.get("retry-after"), 1.0, 0.1, LONGEST_WAIT)
            return RelayUnreachable(f"the relay cannot serve now ({status}): {text}", code, after)
        return AditError(f"the relay refuses the tunnel ({status}): {text}", code)

    async def _dial(self, path: str, query: dict[str, str], deadline: float, key: bool = True) -> ClientConnection:
        ws = await _Connect(
            f"ws{self._relay[4:]}{path}?{urlencode(query, quote_via=quote)}",
            additional_headers={"Authorization": f"Bearer {self._bearer}"} if key else None,
            subprotocols=[LEVEL_TWO] if path == CONTROL else None,
            user_agent_header=f"adit-python/{__version__}",
            compression=None,
            open_timeout=deadline,
            close_timeout=GOODBYE if path == CONTROL else DELIVERY,
            create_connection=_Connection,
            ping_interval=None,  # the control session pings by itself; of data sockets the relay takes care
            max_size=MESSAGE,
            ssl=self._ssl,
        )
        _watch(ws.transport.get_extra_info("socket"))
        return ws

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Session:
    """One control socket (3, 8): hears what the relay says, and claims what it announces."""

    def __init__(self, tunnel: Tunnel, ws: ClientConnection) -> None:
        self.tunnel, self.ws = tunnel, ws
        self.level_two = ws.subprotocol == LEVEL_TWO
        self.id = ""
        self.tunnel_id = tunnel._id
        self.turned = asyncio.Event()  # a new session is to be opened: this one ended, or drains
        self.reconnect_in: float | None = None  # seconds, once the relay drains
        self.end = ""  # why it ended, for people
        self.closed: dict[str, Any] = {}  # the message of that name
        self.claim, self.waiting, self.standby_most = CLAIM, WAITING, 8
        self.ping_every, self.pong_wait = PING_EVERY, PONG_WAIT
        self.pending: dict[str, asyncio.Task[None]] = {}  # announced, and not claimed yet
        self.asked = asyncio.Event()  # set by the next `standby`
        self.standby: dict[str, asyncio.Task[None]] = {}  # sockets that wait for a viewer
        self.want = 0
        self.renewal: asyncio.Task[None] | None = None
        self.offered: list[str] = []  # tokens that the relay has not answered yet

    async def serve(self) -> None:
        """Returns when the control socket has ended. What it has begun goes on (4.1)."""
        self.pinger = asyncio.create_task(self._ping())
        try:
            while True:
                await self._hear(await self.ws.recv())
        except ConnectionClosed as end:
            self._ended(end)
        finally:
            self.ws.transport.abort()
            self.tunnel._sessions.discard(self)
            self.want = 0
            for task in (self.pinger, *self.standby.values()):
                task.cancel()
            self.turned.set()

    def _ended(self, end: ConnectionClosed) -> None:
        reason, code = self.closed.get("reason"), end.rcvd.code if end.rcvd else None
        said = _plain(self.closed.get("message", "")) or _plain(end.rcvd.reason if end.rcvd else "")
        self.end = said or (f"close code {code}" if code else "no word of the relay")
        if reason == "succeeded" and self.turned.is_set():
            return
        if reason in FINAL or (code == 1000 and reason not in KNOWN):
            self.tunnel._end(TunnelEnded(f"the relay has ended it: {self.end}", reason if reason in FINAL else ""))

    async def _ping(self) -> None:
        """Notices a relay that is silent, and drops the connection to it."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(self.ping_every)
                try:
                    async with asyncio.timeout(self.pong_wait):
                        await (await self.ws.ping())
                except TimeoutError:
                    self.closed = {"message": "it gives no sign of life"}
                    self.ws.transport.abort()

    async def _hear(self, text: str | bytes) -> None:
        message = _parse(text)
        if not isinstance(message, dict):
            return
        kind, id = message.get("type"), message.get("id")
        if kind == "connection" and isinstance(id, str) and id and id not in self.pending:
            if len(self.pending) < self.waiting:
                self.pending[id] = self.tunnel._spawn(self._claim(id))
            else:
                await self._reject(id, "busy", "too many connections wait at the same time")
        if not self.level_two:
            return
        if kind == "welcome":
            self._welcome(message)
        elif kind == "cancel" and isinstance(id, str) and id in self.pending:
            self.pending.pop(id).cancel()
        elif kind == "standby":
            self.want = int(_number(message.get("want"), 0, 0, self.standby_most))
            self.asked.set()
            self.asked = asyncio.Event()
            self._fill()
        elif kind == "drain":
            self.reconnect_in = _number(message.get("reconnect_ms"), 0, 0, 60_000) / 1000
            self.turned.set()
        elif kind == "expiring":
            self._expiring(message)
        elif kind == "auth" and self.offered:
            fresh = self.offered.pop(0)
            if message.get("accepted") is True:
                self.tunnel._bearer = fresh
            else:
                log.warning("the relay refuses the fresh token: %s", _plain(message.get("error", "")))
        elif kind == "error":
            log.warning("the relay could not read a message: %s", _plain(message.get("message", "")))
        elif kind == "closed":
            self.closed = message

    def _welcome(self, message: dict[str, Any]) -> None:
        limits = message.get("limits")
        limits = limits if isinstance(limits, dict) else {}
        self.id = _plain(message.get("session", ""))
        self.claim = _number(message.get("claim_ms"), CLAIM * 1000, 1000, 600_000) / 1000
        self.waiting = int(_number(limits.get("waiting"), WAITING, 1, 65_536))
        self.standby_most = int(_number(limits.get("standby"), 8, 0, 64))
        self.ping_every = _number(message.get("ping_interval_ms"), math.inf, 100, PING_EVERY * 1000) / 1000
        self.pong_wait = _number(message.get("pong_timeout_ms"), math.inf, 100, PONG_WAIT * 1000) / 1000
        self.pinger.cancel()
        self.pinger = asyncio.create_task(self._ping())

    def _expiring(self, message: dict[str, Any]) -> None:
        what, at = _plain(message.get("what", "")), _plain(message.get("at", ""))
        if what == "token" and callable(self.tunnel._key):
            if not self.renewal or self.renewal.done():
                self.renewal = self.tunnel._spawn(self._renew())
        elif what == "token":
            log.warning("the token ends at %s: call renew(), or give a function as the key", at)
        else:
            log.warning("the %s ends at %s", what, at)

    async def _renew(self) -> None:
        try:
            await self.tunnel.renew()
        except AditError as error:
            log.warning("there is no fresh token: %s", error)

    async def offer(self, bearer: str) -> None:
        """Sends a fresh token (8.2). At base level it counts from the next connection on."""
        if self.level_two and len(self.offered) < 16:
            self.offered.append(bearer)
            await self._say({"type": "auth", "token": bearer})

    async def _say(self, message: dict[str, str]) -> None:
        with contextlib.suppress(ConnectionClosed):
            await self.ws.send(json.dumps(message))

    async def _reject(self, id: str, reason: str, message: str) -> None:
        if self.level_two:
            await self._say({"type": "reject", "id": id, "reason": reason, "message": message[:1000]})

    async def _claim(self, id: str) -> None:
        """Connects an announced viewer and the target: the target first, as then a refusal needs no data socket."""
        target: socket.socket | None = None
        ws: ClientConnection | None = None
        refusal = ""
        try:
            async with asyncio.timeout(self.claim):
                target, refusal = await self._open_target(id)
                while not ws and (target or not self.level_two):
                    try:
                        ws = await self._dial_data({"id": id})
                    except InvalidStatus:
                        raise
                    except (OSError, WebSocketException) as error:  # only a success uses up the id
                        log.debug("a data socket could not be opened, trying again: %s", error)
                        await asyncio.sleep(0.25)
        except InvalidStatus as error:
            log.debug("a data socket was refused, mostly as the viewer did not wait: %s", error)
        except (OSError, WebSocketException) as error:
            log.warning("cannot open a data socket: %s", error or "timed out")
            await self._reject(id, "busy", "the client cannot reach the relay")
        finally:
            self.pending.pop(id, None)
            if not ws:
                _cut(target)
        if ws and target:
            await _splice(ws, target, self.level_two)
        elif ws:
            await self._answer_502(ws, refusal)

    async def _open_target(self, id: str) -> tuple[socket.socket | None, str]:
        """The connection, or why there is none: then the relay was told, if it takes a `reject`."""
        host, port = self.tunnel._host, self.tunnel._port
        try:
            return await _open(host, port, min(self.claim / 2, 5.0)), ""
        except OSError as error:
            word, cause = _why(error)
            refusal = f"cannot reach {host}:{port}: {cause}"
            log.warning("%s", refusal)
            await self._reject(id, word, refusal)
            return None, refusal

    async def _answer_502(self, ws: ClientConnection, refusal: str) -> None:
        """Answers the viewer in the place of the target (4), at base level."""
        fields, text = self.tunnel._fields, f"{refusal}\n".encode()
        readable = fields.get("proto", "http") == "http" and fields.get("target_proto", "http1") == "http1"
        head = f"HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {len(text)}\r\n"
        with contextlib.suppress(ConnectionClosed):
            if readable:
                await ws.send(head.encode() + b"connection: close\r\n\r\n" + text)
            await ws.close(1000 if readable else 1011)

    async def _dial_data(self, query: dict[str, str]) -> ClientConnection:
        return await self.tunnel._dial("/ws/data", query, self.claim, key=self.level_two)

    # Standby sockets (8.4)

    def _fill(self) -> None:
        while self.id and len(self.standby) < self.want:
            id = str(uuid.uuid4())
            self.standby[id] = self.tunnel._spawn(self._stand_by(id))

    async def _stand_by(self, id: str) -> None:
        """Holds one socket, and serves the viewer that it is assigned to."""
        ws: ClientConnection | None = None
        assigned = False
        try:
            ws = await self._dial_data({"tunnel_id": self.tunnel_id, "id": id, "session": self.id})
            first = _parse(await ws.recv())
            assigned = isinstance(first, dict) and first.get("type") == "connection" and first.get("id") == id
        except (OSError, WebSocketException) as error:
            log.debug("a standby socket has ended: %s", error)
            if isinstance(error, InvalidStatus):  # the relay has enough of them, until it says that it wants some
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.asked.wait(), LONGEST_WAIT)
        finally:
            if ws and not assigned:
                ws.transport.abort()
        if not assigned:
            await asyncio.sleep(1)  # its place stays taken meanwhile, or we would open sockets without a pause
        self.standby.pop(id, None)
        self._fill()
        if not ws or not assigned:
            return
        target, _ = await self._open_target(id)
        if target:
            await _splice(ws, target, half_close=True)
            return
        with contextlib.suppress(TimeoutError):  # it is the relay's to close (8.2)
            async with asyncio.timeout(self.claim):
                await ws.wait_closed()
        ws.transport.abort()


async def _splice(ws: ClientConnection, target: socket.socket, half_close: bool) -> None:
    """Copies both ways until both sides have said all, or one has broken off (4, 8.3).

    Each direction holds one chunk, and reads the next when that was taken: nothing piles up behind a slow reader.
    The target is a plain socket, as a stream of asyncio forgets what was received when it cannot be written to.
    """
    loop = asyncio.get_running_loop()
    deaf = False  # the target takes no more, though we have more for it
    said = asyncio.Event()  # nothing more will go to the target

    async def to_target() -> bool:
        """Until the relay closes. Whether it has said all before."""
        nonlocal deaf
        within = False
        try:
            while True:
                within, empty = False, True
                async for piece in ws.recv_streaming(decode=False):
                    within, empty = True, empty and not piece
                    if piece and not said.is_set():
                        try:
                            await loop.sock_sendall(target, piece)
                        except OSError:
                            deaf = True
                            said.set()  # what it has answered is still read, and what the relay still says, dropped
                if empty and half_close and not said.is_set():
                    said.set()
                    with contextlib.suppress(OSError):
                        target.shutdown(socket.SHUT_WR)
        except ConnectionClosed as end:
            return not within and _in_order(ws, end, half_close)

    async def to_relay() -> int:
        """Until the target has said all. The close code that says how that went."""
        try:
            while piece := await loop.sock_recv(target, CHUNK):
                await ws.send(piece)
        except OSError:
            return 1011
        if half_close and not deaf:
            await ws.send(b"")
            await said.wait()
        return 1011 if deaf else 1000

    up, down = asyncio.create_task(to_target()), asyncio.create_task(to_relay())
    in_order = False
    try:
        await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        if up.done() or down.exception():
            in_order = await up
        else:
            await ws.close(down.result())
            in_order = down.result() == 1000
    finally:
        up.cancel()
        down.cancel()
        await asyncio.gather(up, down, return_exceptions=True)
        ws.transport.abort()
        if in_order:
            target.close()
        else:
            _cut(target)


def _in_order(ws: ClientConnection, end: ConnectionClosed, level_two: bool) -> bool:
    """Whether what came before this end of a data socket is complete (4, 8.3)."""
    if end.rcvd is not None:
        return end.rcvd.code in (1000, 1005) or (end.rcvd.code == 1001 and not level_two)
    # What the parser says of an end within a frame is another text, and a reset is an OSError.
    between = str(ws.protocol.parser_exc) == "unexpected end of stream" and not isinstance(end.__cause__, OSError)
    return between and not level_two


async def _open(host: str, port: int, deadline: float) -> socket.socket:
    loop = asyncio.get_running_loop()
    refused = OSError("no address")
    async with asyncio.timeout(deadline):
        for family, kind, proto, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            target = socket.socket(family, kind, proto)
            try:
                target.setblocking(False)
                await loop.sock_connect(target, address)
                target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return target
            except OSError as error:
                target.close()
                refused = error
            except BaseException:
                target.close()
                raise
    raise refused


def _cut(target: socket.socket | None) -> None:
    """Ends the connection with a reset, so that the target does not take what it got for complete."""
    if target:
        with contextlib.suppress(OSError):
            target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        target.close()


def _watch(sock: socket.socket) -> None:
    """Lets the system notice a relay that vanished: on data sockets nothing else would while they are silent."""
    wanted = [("SO_KEEPALIVE", 1), ("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)]
    for option, value in wanted:
        if hasattr(socket, option):
            level = socket.SOL_SOCKET if option.startswith("SO_") else socket.IPPROTO_TCP
            with contextlib.suppress(OSError):
                sock.setsockopt(level, getattr(socket, option), value)


class _Connect(connect):
    """Follows no redirect: the key is for the relay alone (2)."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


class _Connection(ClientConnection):
    """Waits no longer than it should for a relay that has sent its close frame, or nonsense, to hang up."""

    hanging_up: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.hanging_up and (self.protocol.close_rcvd or self.protocol.parser_exc):
            self.hanging_up = self.loop.call_later(GOODBYE, self.transport.abort)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The same for REST."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _parse_target(target: int | str) -> tuple[str, int]:
    host, _, port = str(target).rpartition(":")
    if port.isdecimal() and 0 < int(port) < 65536 and "/" not in host:
        return host.strip("[]") or "localhost", int(port)
    raise ValueError(f"{target!r} is no target: give a port such as 3000, or 'HOST:PORT'")


def _parse(text: str | bytes) -> Any:
    """What a JSON text means, None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _lower(headers: Message | Headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _number(value: object, otherwise: float, low: float, high: float) -> float:
    """A number that the relay has sent, or another where it has sent none, within what makes sense to us."""
    try:
        number = float(value) if isinstance(value, int | float | str) else otherwise
    except (ValueError, OverflowError):
        number = otherwise
    return min(max(otherwise if math.isnan(number) else number, low), high)


def _plain(text: object) -> str:
    """A text of the relay as it may reach a terminal: none of it moves the cursor."""
    return "".join(c if c.isprintable() else "?" for c in text[:1000]) if isinstance(text, str) else ""


def _why(error: OSError) -> tuple[str, str]:
    """A word for programs and one for people."""
    if isinstance(error, TimeoutError):
        return "timed_out", "timed out"
    if isinstance(error, socket.gaierror):
        return "host_not_found", "there is no such host"
    word = "refused" if isinstance(error, ConnectionRefusedError) else "unreachable"
    return word, os.strerror(error.errno) if error.errno else str(error)


expose = Tunnel
