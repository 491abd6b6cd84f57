"""What the gateway and a candidate's process say to each other: MessagePack frames, each behind its length.

Plain data only; nothing that arrives is ever executed or unpickled. Rows travel as they came: encoding them for the
model happens in the child, so that a candidate's cost, and its encoder's faults, stay with it. Turning a row of 89
columns into a frame takes 1.4 us here, encoding it 12.5 us there.
"""

from typing import Any

import msgspec

Row = dict[str, int | float | str | None]

_LENGTH_BYTES = 4
# A request holds at most 1 MiB of JSON; a length far beyond that is no frame of ours.
MAX_FRAME_BYTES = 64 << 20


class Ready(msgspec.Struct, array_like=True, frozen=True):
    """The child's first word: it serves, or why it cannot. `is_damaged`: the package does not verify."""

    error: str = ""
    is_damaged: bool = False


class Ask(msgspec.Struct, array_like=True, frozen=True):
    """Rows to score."""

    number: int
    rows: list[Row]


class Answer(msgspec.Struct, array_like=True, frozen=True):
    """Scores, or the code and words of why there are none; codes as in the server's refusals, and CRASHED."""

    number: int
    scores: list[float] = []
    code: str = ""
    message: str = ""


CRASHED = "crashed"

_encode = msgspec.msgpack.Encoder().encode
decode_ask = msgspec.msgpack.Decoder(Ask).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode
decode_ready = msgspec.msgpack.Decoder(Ready).decode


class BadFrame(Exception):
    """What came is no frame."""


def framed(message: Ready | Ask | Answer) -> bytes:
    """The bytes to send. Raises: OverflowError for a number that no float64 holds."""
    try:
        payload = _encode(message)
    except OverflowError:  # an integer beyond 64 bits, which the model takes as a float64 anyway
        assert isinstance(message, Ask)
        rows = [{k: float(v) if isinstance(v, int) else v for k, v in row.items()} for row in message.rows]
        payload = _encode(Ask(message.number, rows))
    return len(payload).to_bytes(_LENGTH_BYTES, "big") + payload


class Frames:
    """Puts frames together again from the pieces in which they arrive."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, piece: bytes) -> list[bytes]:
        """Payloads that are whole now. Raises: BadFrame."""
        self._data += piece
        whole, begin, data = [], 0, self._data
        while len(data) - begin >= _LENGTH_BYTES:
            size = int.from_bytes(data[begin : begin + _LENGTH_BYTES], "big")
            if size > MAX_FRAME_BYTES:
                raise BadFrame(f"a frame says it has {size} bytes; allowed: {MAX_FRAME_BYTES}")
            end = begin + _LENGTH_BYTES + size
            if len(data) < end:
                break
            whole.append(bytes(data[begin + _LENGTH_BYTES : end]))
            begin = end
        del data[:begin]
        return whole


def read_frame(sock: Any) -> bytes:
    """The next payload of a blocking socket, which must carry one frame at a time.

    Raises: EOFError when the other side is gone, TimeoutError, OSError, BadFrame.
    """
    frames = Frames()
    while True:
        piece = sock.recv(1 << 18)
        if not piece:
            raise EOFError
        if whole := frames.feed(piece):
            return whole[0]
