"""`python -m clearway.serve --product flights --port 8890`: the model server of one product."""

import argparse
import logging
import os
import re
import signal
import sys
import threading

from clearway.contracts.errors import ClearwayError
from clearway.infra.environment import Environment
from clearway.serve.process import JsonFormatter, serve

_PRODUCT = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 after a drained stop, 2 if it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m clearway.serve", description="Serve one product's models.")
    parser.add_argument("--product", required=True, type=_product)
    parser.add_argument("--host", default="127.0.0.1", help="address to bind; loopback unless told otherwise")
    parser.add_argument("--port", type=int, default=8890)
    parser.add_argument("--until-eof", action="store_true", help="stop once standard input ends: with its starter")
    chosen = parser.parse_args(arguments)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    if chosen.until_eof:
        threading.Thread(target=_stop_at_eof, daemon=True).start()
    try:
        serve(Environment.load(), product=chosen.product, host=chosen.host, port=chosen.port)
    except ClearwayError as error:
        logging.getLogger("clearway.serve").critical("model server cannot start: %s", error)
        return 2
    return 0


def _stop_at_eof() -> None:
    """The other end of the pipe is gone, however its process ended; kill -9 leaves nothing behind."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _product(text: str) -> str:
    if not _PRODUCT.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no product name; allowed: lowercase letters, digits, '_'")
    return text


if __name__ == "__main__":
    sys.exit(main())
