"""WebSocket servers of Python's websockets, for tests of lodger's client.

Its argument is a JSON list: for each server, the parameters of `deflate`, where it is to compress, and `certificate` and
`key`, where it is to speak TLS. It answers with a JSON list of the ports. What a server does with a connection is in the request's path.
"""
import asyncio, json, ssl, sys, urllib.parse

import websockets
from websockets.asyncio.server import serve
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Response
from websockets.datastructures import Headers


async def handle(connection):
    target = urllib.parse.urlsplit(connection.request.path)
    query = dict(urllib.parse.parse_qsl(target.query, keep_blank_values=True))
    if target.path == "/seen":
        fields = {}
        for name, value in connection.request.headers.raw_items():
            fields.setdefault(name.lower(), []).append(value)
        await connection.send(json.dumps(fields))
    elif target.path == "/close":
        await connection.close(int(query["code"]), query["reason"])
    elif target.path == "/fragments":
        await connection.send(["frag", "", "men", "ted: grüß ", "dich"])
        await connection.send([bytes([n]) * 1000 for n in range(64)])
    elif target.path == "/pings":
        for payload in ("", "one", "x" * 125):
            await (await connection.ping(payload))
        await connection.send("all answered")
    elif target.path == "/gone":
        connection.transport.abort()
    elif target.path == "/told":
        await connection.wait_closed()
        print(json.dumps([connection.close_code, connection.close_reason]), flush=True)
        return
    async for message in connection:
        await connection.send(message)


def decide(connection, request):
    path = urllib.parse.urlsplit(request.path).path
    if path == "/private":
        fields = Headers([("WWW-Authenticate", 'Basic realm="peers"'), ("Content-Length", "7")])
        return Response(401, "Unauthorized", fields, b"not you")
    if path == "/moved":
        return Response(302, "Found", Headers([("Location", "/seen"), ("Content-Length", "0")]), b"")
    return None


def choose(connection, offered):
    return next((name for name in ("second", "first") if name in offered), None)


async def start(server):
    context = None
    if server.get("certificate"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server["certificate"], server["key"])
    extensions = None
    if "deflate" in server:
        extensions = [ServerPerMessageDeflateFactory(**server["deflate"])]
    running = await serve(
        handle, "127.0.0.1", 0, compression=None, extensions=extensions, ssl=context, process_request=decide,
        select_subprotocol=choose, max_size=None,
    )
    return running.sockets[0].getsockname()[1]


async def main():
    ports = [await start(server) for server in json.loads(sys.argv[1])]
    print(json.dumps({"version": websockets.__version__, "ports": ports}), flush=True)
    # The test ends it; should that die, its pipe does.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
