"""Tests the origin protocol with Python's websockets: greeting, login, relay, push, sizes, pings, closes."""

import json
import socket
import sys

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

websocket_port, text_port = sys.argv[1:]
url = f"ws://127.0.0.1:{websocket_port}/any/path?with=query"


def login(uid):
    client = connect(url, open_timeout=30, max_size=4 << 20, compression="deflate", subprotocols=["chat"])
    assert client.subprotocol is None and not client.protocol.extensions
    assert client.recv(timeout=30) == "HeartBeat"
    client.send(json.dumps({"id": uid}))
    assert client.recv(timeout=30) == "Link_successful"
    return client


def push(line):
    with socket.create_connection(("127.0.0.1", int(text_port)), timeout=30) as sender:
        sender.sendall(line.encode() + b"\n")
        return sender.makefile().readline()


with login("anna") as anna, login("bob") as bob:
    for msg, delivered in [("hi", "hi"), ("", ""), ("é😀", "é😀"), (5, "5"), ({"a": [1, None]}, '{"a":[1,null]}')]:
        anna.send(json.dumps({"id": "bob", "msg": msg}))
        assert anna.recv(timeout=30) == "Already_Linked"
        assert bob.recv(timeout=30) == delivered

    anna.send(json.dumps({"id": "bob", "msg": "binary"}).encode())
    assert anna.recv(timeout=30) == "Already_Linked"
    assert bob.recv(timeout=30) == "binary"

    long = "x" * 1_000_000
    anna.send(['{"id":"bob",', '"msg":"', long, '"}'])
    assert anna.recv(timeout=30) == "Already_Linked"
    assert bob.recv(timeout=30) == long

    assert anna.ping("there?").wait(30)
    line = '{"uid": "bob", "from": "outside"}'
    assert push(line) == "ok\n"
    assert bob.recv(timeout=30) == line
    assert push('{"uid": "carol"}') == "fail\n"

assert anna.protocol.close_code == 1000 and bob.protocol.close_code == 1000

for first, code in [("hello", 4400), ('{"id": []}', 4400), ("x" * (2 << 20), 1009)]:
    with connect(url, open_timeout=30) as client:
        assert client.recv(timeout=30) == "HeartBeat"
        try:
            client.send(first)
            client.recv(timeout=30)
        except ConnectionClosed as closed:
            assert closed.rcvd.code == code and closed.rcvd.reason, closed
        else:
            raise AssertionError(f"{first[:20]} was accepted")
