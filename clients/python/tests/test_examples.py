"""The examples run, against the real relay, and end in order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from .rig import KEY, Case, closed_port, relay

EXAMPLES = Path(__file__).parent.parent / "examples"


class Examples(Case):
    async def test_a_fastapi_application_is_reached_as_long_as_it_runs(self) -> None:
        running = await self.enter(relay())
        app = await asyncio.create_subprocess_exec(
            sys.executable,
            str(EXAMPLES / "fastapi_app.py"),
            env={**os.environ, "ADIT_RELAY": running.url, "ADIT_KEY": KEY, "PORT": str(closed_port())},
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert app.stdout
            url = (await app.stdout.readline()).decode().strip()
            # It is online a moment before it listens.
            while True:
                async with self.viewer.get(url) as answer:
                    if answer.status == 200:
                        self.assertEqual(await answer.json(), {"hello": "127.0.0.1"})
                        break
            async with self.viewer.ws_connect(f"{url}/echo") as ws:
                await ws.send_str("hello")
                self.assertEqual(await ws.receive_str(), "hello")
            app.send_signal(signal.SIGTERM)
            await app.wait()
            async with self.viewer.get(url) as answer:
                self.assertEqual(answer.status, 404)
        finally:
            if app.returncode is None:
                app.kill()
                await app.wait()
