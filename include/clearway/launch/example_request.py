"""A request that works: one real row of the serving model, kept as a file so that a curl line stays short."""

import json
from dataclasses import dataclass
from typing import Any

import httpx

from clearway.contracts.errors import Unavailable
from clearway.contracts.release_document import Version
from clearway.infra.endpoint import open_endpoint
from clearway.infra.environment import Environment

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """The line to copy, and what came back when it was tried."""

    curl: str
    answer: dict[str, Any]


def try_example(env: Environment, product: str, champion: Version) -> Example:
    """Write the request, send it, return both. Raises: Unavailable if the endpoint does not answer it."""
    endpoint, file = open_endpoint(env, product=product), env.home / "example-request.json"
    rows = endpoint.examples(champion.digest)[:1]
    body = json.dumps({"instances": rows})
    file.write_text(body, encoding="utf-8")
    if env.endpoint.kind == "sagemaker":  # no address that everybody may call: requests are signed
        scores, digest = endpoint.predict(rows)
        name = env.sagemaker.of(product).endpoint
        line = f"aws sagemaker-runtime invoke-endpoint --endpoint-name {name} --content-type application/json"
        answer = {"predictions": scores, "model_digest": digest}
        return Example(curl=f"{line} --body fileb://{file} /dev/stdout", answer=answer)
    url = f"{env.endpoint.url_of(product)}/invocations"
    try:
        found = httpx.post(url, content=body, headers={"content-type": "application/json"}, timeout=TIMEOUT_S)
        found.raise_for_status()
    except httpx.HTTPError as error:
        raise Unavailable(f"the endpoint at {url} did not answer a known row: {error}") from error
    curl = f"curl -s {url} -H 'content-type: application/json' -d @{file}"
    return Example(curl=curl, answer=found.json())
