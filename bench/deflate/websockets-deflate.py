"""websockets on Python's asyncio, compressing at lodger's default level: websockets-deflate.py none|both"""

import asyncio
import contextlib
import sys

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

none = sys.argv[1] == "none"
deflate = ServerPerMessageDeflateFactory(none, none, 15, 15, {"level": 3, "memLevel": 8})


async def echo(connection):
    with contextlib.suppress(ConnectionClosed):
        async for message in connection:
            await connection.send(message)


async def main():
    async with serve(echo, "127.0.0.1", 0, compression=None, extensions=[deflate], ping_interval=None) as server:
        print("127.0.0.1:%d" % server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


asyncio.run(main())
