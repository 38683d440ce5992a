"""The client against the real relay, which ADIT_BIN names."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import signal
import socket
import struct
import sys
from urllib.parse import urlsplit

import adit

from .rig import KEY, Case, closed_port, expose, pattern, relay


class WithARelay(Case):
    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.relay = await self.enter(relay())

    async def text(self, url: str) -> str:
        async with self.viewer.get(url) as answer:
            self.assertEqual(answer.status, 200)
            return await answer.text()

    async def test_a_viewer_gets_what_the_target_says(self) -> None:
        async with expose(self.target.port, self.relay, name="mine") as tunnel:
            self.assertEqual((tunnel.url.rstrip("/"), tunnel.name), (f"{self.relay.url}/t/mine", "mine"))
            self.assertEqual(await self.text(f"{tunnel.url}/?a=b"), "hello a=b")
            self.assertEqual(await self.text(f"{tunnel.url}/?again"), "hello again")

    async def test_twenty_megabytes_go_both_ways_unchanged(self) -> None:
        async with expose(self.target.port, self.relay) as tunnel:
            async with self.viewer.post(f"{tunnel.url}/hash", data=io.BytesIO(pattern())) as answer:
                self.assertEqual(await answer.text(), hashlib.sha256(pattern()).hexdigest())
            async with self.viewer.get(f"{tunnel.url}/big") as answer:
                self.assertEqual(await answer.read(), pattern())
            async with self.viewer.post(f"{tunnel.url}/mirror", data=io.BytesIO(pattern())) as answer:
                self.assertEqual(await answer.read(), pattern())

    async def test_chunks_pass(self) -> None:
        async with expose(self.target.port, self.relay) as tunnel:
            self.assertEqual(await self.text(f"{tunnel.url}/chunks"), "".join(f"{n}\n" for n in range(100)))

    async def test_a_websocket_passes(self) -> None:
        async with (
            expose(self.target.port, self.relay) as tunnel,
            self.viewer.ws_connect(f"{tunnel.url}/echo") as ws,
        ):
            await ws.send_str("hello")
            self.assertEqual(await ws.receive_str(), "hello")
            await ws.send_bytes(pattern()[:1_000_000])
            self.assertEqual(await ws.receive_bytes(), pattern()[:1_000_000])

    async def test_fifty_viewers_come_at_once(self) -> None:
        async with expose(self.target.port, self.relay) as tunnel:
            answers = await asyncio.gather(*(self.text(f"{tunnel.url}/?{n}") for n in range(50)))
            self.assertEqual(answers, [f"hello {n}" for n in range(50)])

    async def test_a_target_that_refuses_is_a_502_that_names_it(self) -> None:
        port = closed_port()
        async with expose(port, self.relay) as tunnel:
            for _ in range(3):  # of announced and of standby sockets
                async with self.viewer.get(f"{tunnel.url}/") as answer:
                    self.assertEqual(answer.status, 502)
                    self.assertIn(f"localhost:{port}", await answer.text())

    async def test_a_viewer_that_leaves_is_told_to_the_target(self) -> None:
        async with expose(self.target.port, self.relay) as tunnel:
            _, writer = await asyncio.open_connection("127.0.0.1", self.relay.port)
            writer.write(f"GET /t/{tunnel.name}/hold HTTP/1.1\r\nHost: here\r\n\r\n".encode())
            await self.target.reached.wait()
            # A reset, as an end without one could mean that the viewer still waits for its answer.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            await self.target.left.wait()

    async def test_a_response_that_lasts_until_the_close_passes_whole(self) -> None:
        async def until_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + pattern()[:3_000_000])
            writer.write_eof()
            self.assertEqual(await reader.read(), b"")  # the other direction goes on until the relay ends it
            writer.close()

        server = await self.enter(await asyncio.start_server(until_close, "127.0.0.1", 0))
        port = server.sockets[0].getsockname()[1]
        async with expose(port, self.relay) as tunnel, self.viewer.get(f"{tunnel.url}/") as answer:
            self.assertEqual(await answer.read(), pattern()[:3_000_000])

    async def test_the_url_stays_when_the_relay_is_killed_and_starts_again(self) -> None:
        async with expose(self.target.port, self.relay) as tunnel:
            before = tunnel.url
            await self.relay.stop(signal.SIGKILL)
            await self.relay.start()
            self.assertEqual(await self.text(f"{tunnel.url}/?back"), "hello back")
            self.assertEqual(tunnel.url, before)

    async def test_what_runs_is_finished_when_the_relay_drains_and_then_served_again(self) -> None:
        async with expose(self.target.port, self.relay) as tunnel:
            running = asyncio.create_task(self.text(f"{tunnel.url}/hold"))
            await self.target.reached.wait()
            stopping = asyncio.create_task(self.relay.stop())
            self.target.release.set()
            self.assertEqual(await running, "held")
            await stopping
            await self.relay.start()
            self.assertEqual(await self.text(f"{tunnel.url}/?back"), "hello back")

    async def test_a_wrong_key_is_told_at_once(self) -> None:
        with self.assertRaisesRegex(adit.NotAuthorised, "401"):
            async with expose(self.target.port, self.relay, key="not-the-key-of-this-relay"):
                self.fail("it is online")

    async def test_a_name_of_another_key_is_told_and_no_other_taken(self) -> None:
        with self.assertRaises(adit.AditError) as refused:
            async with expose(self.target.port, self.relay, name="a--b"):
                self.fail("it is online")
        self.assertEqual(refused.exception.code, "invalid_name")

    async def test_a_deleted_tunnel_ends_for_good(self) -> None:
        async with expose(self.target.port, self.relay, name="mine") as tunnel:
            headers = {"Authorization": f"Bearer {KEY}"}
            async with self.viewer.get(f"{self.relay.url}/v1/tunnels", headers=headers) as answer:
                [only] = await answer.json()
            async with self.viewer.delete(f"{self.relay.url}/v1/tunnels/{only['id']}", headers=headers) as answer:
                self.assertEqual(answer.status, 204)
            with self.assertRaises(adit.TunnelEnded) as ended:
                await tunnel.wait()
            self.assertEqual(ended.exception.code, "deleted")

    async def test_a_newer_client_takes_the_name_over(self) -> None:
        older = await self.enter(expose(self.target.port, self.relay, name="mine"))
        newer = await self.enter(expose(self.target.port, self.relay, name="mine"))
        with self.assertRaises(adit.TunnelEnded) as ended:
            await older.wait()
        self.assertEqual(ended.exception.code, "replaced")
        self.assertEqual(await self.text(f"{newer.url}/"), "hello ")

    async def test_closing_finishes_what_runs_and_takes_the_tunnel_away(self) -> None:
        async with expose(self.target.port, self.relay) as tunnel:
            running = asyncio.create_task(self.text(f"{tunnel.url}/hold"))
            await self.target.reached.wait()
            closing = asyncio.create_task(tunnel.close())
            await tunnel.wait()
            self.target.release.set()
            self.assertEqual(await running, "held")
            await closing
            async with self.viewer.get(f"{tunnel.url}/") as answer:
                self.assertEqual(answer.status, 404)

    async def test_the_program_prints_the_url_alone_and_ends_in_order(self) -> None:
        env = {**os.environ, "ADIT_RELAY": self.relay.url, "ADIT_KEY": KEY, "ADIT_TARGET": str(self.target.port)}
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "adit", "--name", "mine", env=env, stdout=asyncio.subprocess.PIPE
        )
        assert program.stdout
        url = (await program.stdout.readline()).decode().strip()
        self.assertEqual(urlsplit(url).path.rstrip("/"), "/t/mine")
        self.assertEqual(await self.text(f"{url}/"), "hello ")
        program.terminate()
        self.assertEqual((await program.stdout.read(), await program.wait()), (b"", 0))

    async def test_the_program_says_by_its_exit_code_what_was_wrong(self) -> None:
        for relay_url, key, code in [(self.relay.url, "wrong", 77), (f"http://127.0.0.1:{closed_port()}", KEY, 69)]:
            program = await asyncio.create_subprocess_exec(
                *[sys.executable, "-m", "adit", "--relay", relay_url, "--key", key, "--port", "3000"],
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            said = await program.communicate()
            self.assertEqual((said[0], program.returncode), (b"", code))
            self.assertNotIn(b"Traceback", said[1])
