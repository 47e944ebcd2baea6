"""permessage-deflate as the `websockets` package speaks it: client.py URL OPTIONS < MESSAGES

OPTIONS is a JSON list of what its extension takes, for a connection each; MESSAGES is a JSON list of texts, and of numbers for so
many random bytes. Sends all of it, whole and in fragments, and expects it back; prints what was agreed on.
"""

import json
import os
import sys

from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import connect


def talk(url, options, messages):
    extension = ClientPerMessageDeflateFactory(**options)
    with connect(url, extensions=[extension], compression=None, max_size=None, proxy=None, open_timeout=20) as connection:
        for message in messages:
            payload = os.urandom(message) if isinstance(message, int) else message
            third = len(payload) // 3 + 1
            for sent in (payload, [payload[at : at + third] for at in range(0, len(payload), third)] or payload):
                connection.send(sent)
                received = connection.recv(timeout=20)
                assert received == payload, f"{len(payload)} sent, {len(received)} received"
        return [repr(extension) for extension in connection.protocol.extensions]


url, several, messages = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.stdin.read())
print(json.dumps([talk(url, options, messages) for options in several]))
