"""A request that works: one real row of the serving model, kept as a file so that a curl line stays short."""

import json
from dataclasses import dataclass
from typing import Any

import httpx

from clearway.contracts.errors import Unavailable
from clearway.contracts.release_document import Version
from clearway.infra.environment import Environment
from clearway.infra.storage import open_storage

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """The line to copy, and what came back when it was tried."""

    curl: str
    answer: dict[str, Any]


def try_example(env: Environment, champion: Version) -> Example:
    """Write the request, send it, return both. Raises: Unavailable if the endpoint does not answer it."""
    from clearway.packaging.package import open_package  # noqa: PLC0415  (cryptography)

    storage = open_storage(env.store_root)
    package = open_package(storage, champion.uri, champion.digest, key_folder=env.home / "keys")
    body = json.dumps({"instances": [package.golden["rows"][0]]})
    file = env.home / "example-request.json"
    file.write_text(body, encoding="utf-8")
    url = f"{env.endpoint.url}/invocations"
    try:
        answer = httpx.post(url, content=body, headers={"content-type": "application/json"}, timeout=TIMEOUT_S)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise Unavailable(f"the endpoint at {env.endpoint.url} did not answer a known row: {error}") from error
    curl = f"curl -s {url} -H 'content-type: application/json' -d @{file}"
    return Example(curl=curl, answer=answer.json())
