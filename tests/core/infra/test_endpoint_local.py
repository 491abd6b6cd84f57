"""The client of the local model server, against a server that breaks off."""

import gc
import socket
import struct
import sys
from threading import Thread

import pytest

from clearway.contracts.errors import Unavailable
from clearway.infra.endpoint.local import LocalEndpoint

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\n"
RESET = struct.pack("ii", 1, 0)


def break_off(listener):
    """Answer one request by its head, and reset the line."""
    line, _ = listener.accept()
    with line:
        line.recv(65_536)
        line.sendall(HEAD)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def test_an_answer_that_breaks_off_leaves_no_socket_open(tmp_path, monkeypatch):
    token = tmp_path / "token"
    token.write_text("a-token", encoding="ascii")
    left_open = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Thread(target=break_off, args=(listener,))
        server.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        endpoint = LocalEndpoint(url, product="flights", token_file=token, timeout_s=60)
        with pytest.raises(Unavailable, match="does not answer") as caught:
            endpoint.state()
        server.join()
    monkeypatch.setattr(sys, "unraisablehook", left_open.append)
    caught.value.itself = caught.value  # a circle, as of an error that somebody keeps: the collector ends it
    del caught
    gc.collect()
    assert not left_open
