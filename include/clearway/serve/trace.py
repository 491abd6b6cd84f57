"""W3C trace context: the trace a caller's request belongs to, if it names one as the standard says."""

import os
import re

_PARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{0,200})?")
_FIRST_VERSION = b"00"
_FIRST_LENGTH = 55


def traced(header: bytes) -> bytes:
    """The caller's `traceparent` if it is valid, else a new one: a broken one must not join foreign traces."""
    found = _PARENT.fullmatch(header)
    if found is not None and (not header.startswith(_FIRST_VERSION) or len(header) == _FIRST_LENGTH):
        return header[:_FIRST_LENGTH]
    return b"00-%s-%s-01" % (os.urandom(16).hex().encode(), os.urandom(8).hex().encode())


def trace_id(header: bytes) -> str:
    """The 32 digits that all parts of one trace share; empty for none."""
    return header[3:35].decode("ascii")
