"""The client against a relay that says what no real one would say at the time of a test, or ever."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from aiohttp import WSMsgType, web

import adit

from .rig import KEY, Case, Socket, expose, script

ID = "an id?&=%/+ ü"


async def listen(case: Case) -> tuple[int, asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]:
    """A target of plain bytes, whose connections a test takes from a queue."""
    came: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue(8)

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await came.put((reader, writer))

    server = await case.enter(await asyncio.start_server(take, "127.0.0.1", 0))
    return server.sockets[0].getsockname()[1], came


class Scripted(Case):
    level_two = True

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.script = await self.enter(script(self.level_two))

    async def opened(self, port: int, **more: Any) -> tuple[Socket, adit.Tunnel]:
        """A tunnel that is online, and its control socket."""
        tunnel = await self.enter(expose(port, self.script, **more))
        self.addCleanup(self.script.hang_up)  # so that the tunnel need not wait for us to read
        return await self.script.welcome(), tunnel


class BaseLevel(Scripted):
    level_two = False

    async def test_a_connection_is_claimed_without_a_key_and_its_id_escaped(self) -> None:
        ws, _ = await self.opened(self.target.port)
        await ws.say(type="connection", id=ID, more={"unknown": 1})
        data = await self.script.data.get()
        self.assertEqual((data.query, data.bearer), ({"id": ID}, None))
        await data.send_str("GET / HTTP/1.1\r\n")
        await data.send_bytes(b"")  # means nothing at this level
        await data.send_bytes(b"host: x\r\nconnection: close\r\n\r\n")
        answer = b"".join([message.data async for message in data])
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)
        self.assertEqual(data.close_code, 1000)

    async def test_a_target_that_refuses_is_answered_for(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            ws, _ = await self.opened(taken.getsockname()[1])
            await ws.say(type="connection", id="1")
            data = await self.script.data.get()
            answer = b"".join([message.data async for message in data])
            self.assertTrue(answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\n"), answer)

    async def test_the_first_end_closes_both_directions(self) -> None:
        port, came = await listen(self)
        ws, _ = await self.opened(port)
        await ws.say(type="connection", id="1")
        data = await self.script.data.get()
        reader, writer = await came.get()
        await data.send_bytes(b"all of it")
        data.transport.close()  # without a close frame, between two messages: a normal end
        self.assertEqual(await reader.read(), b"all of it")
        writer.close()

    async def test_an_end_within_a_message_resets_the_target(self) -> None:
        port, came = await listen(self)
        ws, _ = await self.opened(port)
        for end in (b"\x82\x05abc", b"\x02\x03abc", b"\x82\x03abc\x88\x02\x03\xf3"):  # a frame, a message, 1011
            await ws.say(type="connection", id="1")
            data = await self.script.data.get()
            reader, writer = await came.get()
            data.transport.write(end)
            data.transport.close()
            with self.assertRaises(ConnectionResetError):
                await reader.read()
            writer.close()

    async def test_messages_of_level_two_mean_nothing(self) -> None:
        ws, tunnel = await self.opened(self.target.port)
        await ws.say(type="drain", reconnect_ms=0)
        await ws.say(type="closed", reason="deleted")
        await ws.close(code=1012)
        await self.script.control.get()
        self.assertEqual([c.get("name") for c in self.script.creations], [None, tunnel.name])


class LevelTwo(Scripted):
    async def test_each_direction_ends_by_itself(self) -> None:
        port, came = await listen(self)
        ws, _ = await self.opened(port)
        for first in ("target", "relay"):
            await ws.say(type="connection", id="1")
            data = await self.script.data.get()
            self.assertEqual(data.bearer, f"Bearer {KEY}")
            reader, writer = await came.get()
            if first == "target":
                writer.write_eof()
                self.assertEqual(await data.receive_bytes(), b"")
                await data.send_bytes(b"more")
                self.assertEqual(await reader.readexactly(4), b"more")
                await data.send_bytes(b"")
                self.assertEqual(await reader.read(), b"")
            else:
                await data.send_bytes(b"")
                self.assertEqual(await reader.read(), b"")
                writer.write(b"more")
                self.assertEqual(await data.receive_bytes(), b"more")
                writer.write_eof()
                self.assertEqual(await data.receive_bytes(), b"")
            self.assertEqual((await data.receive()).type, WSMsgType.CLOSE)
            self.assertEqual(data.close_code, 1000)
            writer.close()

    async def test_an_empty_last_fragment_ends_nothing(self) -> None:
        port, came = await listen(self)
        ws, _ = await self.opened(port)
        await ws.say(type="connection", id="1")
        data = await self.script.data.get()
        reader, writer = await came.get()
        data.transport.write(b"\x02\x03abc" + b"\x80\x00" + b"\x82\x03def")
        self.assertEqual(await reader.readexactly(6), b"abcdef")
        data.transport.write(b"\x02\x00" + b"\x80\x00")  # this one has a total length of zero
        self.assertEqual(await reader.read(), b"")
        writer.close()

    async def test_a_target_that_breaks_off_is_1011_and_what_it_said_before_arrives(self) -> None:
        port, came = await listen(self)
        ws, _ = await self.opened(port)
        await ws.say(type="connection", id="1")
        data = await self.script.data.get()
        _, writer = await came.get()
        writer.write(b"half an answer")
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.assertEqual(await data.receive_bytes(), b"half an answer")
        writer.transport.abort()
        self.assertEqual((await data.receive()).type, WSMsgType.CLOSE)
        self.assertEqual(data.close_code, 1011)

    async def test_a_socket_that_ends_without_a_word_resets_the_target(self) -> None:
        port, came = await listen(self)
        ws, _ = await self.opened(port)
        await ws.say(type="connection", id="1")
        data = await self.script.data.get()
        reader, writer = await came.get()
        await data.send_bytes(b"part")
        data.transport.close()
        with self.assertRaises(ConnectionResetError):
            await reader.read()
        writer.close()

    async def test_a_slow_reader_holds_the_other_side_back(self) -> None:
        port, came = await listen(self)
        ws, _ = await self.opened(port)
        await ws.say(type="connection", id="1")
        data = await self.script.data.get()
        reader, writer = await came.get()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        sent, piece = 0, bytes(65536)
        with self.assertRaises(TimeoutError):
            while sent < 200_000_000:
                async with asyncio.timeout(1):
                    await data.send_bytes(piece)
                sent += len(piece)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        self.assertEqual(len(await reader.readexactly(sent)), sent)
        writer.close()

    async def test_a_refusal_is_told_before_any_data_socket(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            ws, _ = await self.opened(port)
            await ws.say(type="connection", id=ID, proto="http", remote_addr="203.0.113.7:1")
            said = await ws.hear()
            self.assertEqual((said["type"], said["id"], said["reason"]), ("reject", ID, "refused"))
            self.assertEqual(said["message"], f"cannot reach localhost:{port}: Connection refused")
            self.assertTrue(self.script.data.empty())

    async def test_a_cancelled_connection_is_not_taken_up(self) -> None:
        ws, _ = await self.opened(self.target.port)
        for number in range(300):  # more than may wait at the same time
            await ws.say(type="connection", id=f"gone {number}")
            await ws.say(type="cancel", id=f"gone {number}")
        await ws.say(type="cancel", id="unknown")
        await ws.say(type="connection", id="here")
        while (data := await self.script.data.get()).query["id"] != "here":
            data.transport.abort()  # it was begun before the word came

    async def test_standby_sockets_are_held_assigned_and_replaced(self) -> None:
        ws, _ = await self.opened(self.target.port)
        await ws.say(type="standby", want=2)
        held = [await self.script.data.get(), await self.script.data.get()]
        data = held[0]
        self.assertEqual((data.query["tunnel_id"], data.query["session"]), ("an id/1&", "session-1"))
        await data.say(type="connection", id=data.query["id"], proto="http")
        await data.send_bytes(b"GET /?x HTTP/1.1\r\nhost: x\r\n\r\n")
        self.assertTrue((await data.receive_bytes()).startswith(b"HTTP/1.1 200 OK"))
        third = await self.script.data.get()  # in the place of the one that is in use
        self.assertNotIn(third.query["id"], [one.query["id"] for one in held])
        await held[1].close()  # dismissed, and still wanted
        fourth = await self.script.data.get()
        await fourth.send_str("nonsense")
        await self.script.data.get()

    async def test_a_drained_session_goes_on_beside_its_successor(self) -> None:
        older, tunnel = await self.opened(self.target.port)
        await older.say(type="drain", deadline_ms=30000, reconnect_ms=1)
        newer = await self.script.welcome()
        self.assertEqual(newer.query["successor_of"], "session-1")
        self.assertEqual(self.script.creations[1]["name"], tunnel.name)
        for ws in (older, newer):
            await ws.say(type="connection", id="1")
            await self.script.data.get()
        await older.say(type="closed", reason="succeeded")
        await older.close()
        await newer.say(type="connection", id="2")
        await self.script.data.get()

    async def test_a_fresh_token_is_given_when_the_old_one_ends(self) -> None:
        tokens = ["third", "second", "first"]
        ws, _ = await self.opened(self.target.port, key=tokens.pop)
        for fresh, accepted, used in [("second", True, "second"), ("third", False, "second")]:
            await ws.say(type="expiring", what="token", at="2026-11-21T06:24:59Z", in_ms=60000)
            self.assertEqual(await ws.hear(), {"type": "auth", "token": fresh})
            await ws.say(type="auth", accepted=accepted, error="it has expired")
            await ws.say(type="connection", id="1")
            data = await self.script.data.get()
            self.assertEqual(data.bearer, f"Bearer {used}")

    async def test_a_client_comes_back_after_any_end_but_1000(self) -> None:
        for reason, code in [("restart", 1012), (None, 1001), ("token_expired", 1008), ("newer", 1011)]:
            ws, _ = await self.opened(self.target.port)
            if reason:
                await ws.say(type="closed", reason=reason, message="so it is")
            await ws.close(code=code)
            await self.script.welcome()

    async def test_a_tunnel_that_is_over_is_over_for_good(self) -> None:
        for reason in ("expired", "deleted", "replaced", "a-new-one"):
            ws, tunnel = await self.opened(self.target.port)
            await ws.say(type="closed", reason=reason, message="so it is\x1b[2J")
            await ws.close(code=1000)
            with self.assertRaisesRegex(adit.TunnelEnded, r"so it is\?\[2J"):
                await tunnel.wait()
        self.assertEqual(len(self.script.creations), 4)

    async def test_what_cannot_be_read_is_ignored(self) -> None:
        ws, _ = await self.opened(self.target.port)
        bad = ["", "nothing", "[" * 30_000, "[]", "null", '{"type":[]}', '{"type":"connection"}', '{"type":"news"}']
        bad += ['{"type":"connection","id":{}}', '{"type":"standby","want":-1e999}', '{"type":"cancel","id":[]}']
        bad += ['{"type":"welcome","limits":7,"claim_ms":"NaN"}', '{"type":"auth","accepted":1}', "9" * 5000]
        for text in bad:
            await ws.send_str(text)
        await ws.send_bytes(b"\xff\xff")
        await ws.say(type="connection", id="1")
        await self.script.data.get()

    async def test_a_message_that_is_too_large_is_not_held(self) -> None:
        ws, _ = await self.opened(self.target.port)
        await ws.send_str("x" * 2_000_000)
        self.assertEqual((await ws.receive()).type, WSMsgType.CLOSE)
        await self.script.welcome()

    async def test_a_silent_relay_is_left(self) -> None:
        ws, tunnel = await self.opened(self.target.port)
        # Nobody reads of this socket, so no ping is answered.
        await ws.say(type="welcome", session="1", ping_interval_ms=100, pong_timeout_ms=200)
        await self.script.welcome()
        self.assertEqual(self.script.creations[1]["name"], tunnel.name)

    async def test_a_relay_that_is_busy_is_asked_again_and_one_that_says_no_is_not(self) -> None:
        self.script.answers = [
            web.json_response({"error": "later", "code": "draining"}, status=503, headers={"retry-after": "0"}),
            web.json_response({"error": "taken", "code": "name_taken"}, status=409),
        ]
        with self.assertRaises(adit.AditError) as refused:
            await self.enter(expose(self.target.port, self.script, name="mine"))
        self.assertEqual((refused.exception.code, len(self.script.creations)), ("name_taken", 2))

    async def test_a_key_is_not_taken_elsewhere(self) -> None:
        for status in (301, 307, 308):
            self.script.answers = [web.Response(status=status, headers={"location": f"{self.script.url}/v1/tunnels?"})]
            with self.assertRaisesRegex(adit.AditError, "leads to http://"):
                await self.enter(expose(self.target.port, self.script))
        self.assertEqual(len(self.script.creations), 3)

    async def test_a_policy_that_the_relay_does_not_know_is_not_done_without(self) -> None:
        with self.assertRaisesRegex(adit.AditError, "policies"):
            await self.enter(expose(self.target.port, self.script, options={"policy": {"allow": "10.0.0.0/8"}}))


class Arguments(Case):
    async def test_what_is_missing_or_wrong_is_named(self) -> None:
        wrong: list[tuple[int | str, str, str, str]] = [
            (0, "http://relay.example", "k", "target"),
            ("host:", "http://relay.example", "k", "target"),
            (1, "relay.example", "k", "ADIT_RELAY"),
            (1, "http://relay.example", "", "ADIT_KEY"),
        ]
        for target, relay, key, named in wrong:
            with self.assertRaisesRegex(ValueError, named):
                adit.expose(target, relay=relay, key=key)
