"""`python -m adit --relay URL --key KEY --port N`: one tunnel, until Ctrl-C. The URL alone goes to stdout."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

import adit


def main() -> int:
    """Returns the exit code: 0 done, 1 failed, 2 wrong usage, 69 relay unreachable, 77 not authorised."""
    env = os.environ.get
    parser = argparse.ArgumentParser(prog="adit-python", description=__doc__)
    parser.add_argument("--relay", default=env("ADIT_RELAY"), metavar="URL", help="[env: ADIT_RELAY]")
    parser.add_argument("--key", default=env("ADIT_KEY"), help="key or token [env: ADIT_KEY]")
    parser.add_argument("--key-file", type=Path, help="file with the key or token, read again whenever one is needed")
    parser.add_argument(
        "--port", default=env("ADIT_TARGET"), metavar="TARGET", help="port or HOST:PORT [env: ADIT_TARGET]"
    )
    parser.add_argument("--name", help="the name in the URL")
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("adit").setLevel(logging.INFO)
    key = args.key_file.read_text if args.key_file else args.key
    try:
        tunnel = adit.expose(args.port or "", relay=args.relay, key=key, name=args.name)
    except ValueError as error:
        parser.error(str(error))
    try:
        asyncio.run(serve(tunnel))
    except (adit.AditError, OSError) as error:
        print(f"adit-python: {error}", file=sys.stderr)
        return 77 if isinstance(error, adit.NotAuthorised) else 69 if isinstance(error, adit.RelayUnreachable) else 1
    return 0


async def serve(tunnel: adit.Tunnel) -> None:
    """Returns after SIGINT or SIGTERM, when all is said. Raises AditError if the tunnel ends before."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # on Windows, where Ctrl-C cancels us
            loop.add_signal_handler(number, stop.set)
    async with tunnel:
        print(tunnel.url, flush=True)
        stopped, ended = asyncio.create_task(stop.wait()), asyncio.create_task(tunnel.wait())
        await asyncio.wait({stopped, ended}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if ended.done():
            ended.result()
        ended.cancel()


if __name__ == "__main__":
    sys.exit(main())
