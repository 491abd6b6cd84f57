"""A request that works: one real row of the serving model, kept as a file so that a curl line stays short."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from clearway.contracts.errors import Unavailable
from clearway.contracts.release_document import Version
from clearway.infra.endpoint import open_endpoint
from clearway.infra.environment import Environment
from clearway.infra.storage import open_storage

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """The line to copy, and what came back when it was tried."""

    curl: str
    answer: dict[str, Any]


def try_example(env: Environment, product: str, champion: Version) -> Example:
    """Write the request, send it, return both. Raises: Unavailable if the endpoint does not answer it."""
    from clearway.packaging.package import open_package  # noqa: PLC0415  (cryptography)

    storage = open_storage(env.store_root)
    package = open_package(storage, champion.uri, champion.digest, key_folder=env.home / "keys")
    body = json.dumps({"instances": [package.golden["rows"][0]]})
    file = env.home / "example-request.json"
    file.write_text(body, encoding="utf-8")
    if env.endpoint.kind == "sagemaker":
        return _at_sagemaker(env, product, file, package.golden["rows"][0])
    url = f"{env.endpoint.url_of(product)}/invocations"
    try:
        answer = httpx.post(url, content=body, headers={"content-type": "application/json"}, timeout=TIMEOUT_S)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise Unavailable(f"the endpoint at {url} did not answer a known row: {error}") from error
    curl = f"curl -s {url} -H 'content-type: application/json' -d @{file}"
    return Example(curl=curl, answer=answer.json())


def _at_sagemaker(env: Environment, product: str, file: Path, row: dict[str, Any]) -> Example:
    """Its address is no URL that everybody may call: requests are signed."""
    scores, digest = open_endpoint(env, product=product).predict([row])
    name = env.sagemaker.of(product).endpoint
    line = f"aws sagemaker-runtime invoke-endpoint --endpoint-name {name} --content-type application/json"
    return Example(
        curl=f"{line} --body fileb://{file} /dev/stdout", answer={"predictions": scores, "model_digest": digest}
    )
