"""Asking over HTTP as a test does: patiently, since a busy machine answers late and a test asserts what, not when."""

from functools import partial

import httpx

PATIENCE_S = 120.0

get = partial(httpx.get, timeout=PATIENCE_S)
post = partial(httpx.post, timeout=PATIENCE_S)
