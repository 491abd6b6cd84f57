"""Callers that never stop asking a real model server, a watcher of its traffic table, and all that they saw."""

import asyncio
import contextlib
import itertools
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from clearway.infra.environment import Environment
from serving_kit import PRODUCT, ROW, client_of, expected_score

NUM_CONNECTIONS = 4
LOOK_EVERY_S = 0.05
TIMEOUT_S = 60.0
# Half of the callers ask this, whose score is above 0.95: what `failing_onnx` has no answer for.
FAR = ROW | {"hour": 23.0, "distance": 4000.0}
ASKED = (ROW, FAR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One request and what came of it; times are of the monotonic clock. `why`: "" for a right answer."""

    asked_s: float
    answered_s: float
    digest: str
    why: str


class Crowd:
    """Requests due at fixed times, whatever the server does, each with a sticky key of its own.

    Args:
        biases: digest → bias of every version that may answer; grows while they ask.
        outcomes: digest → what callers report to have become of its answers, 0 to 1; nothing is reported where empty.
    """

    def __init__(self, env: Environment, *, rate_per_s: float) -> None:
        self.biases: dict[str, float] = {}
        self.outcomes: dict[str, float] = {}
        self.answers: list[Answer] = []
        self.tables: list[dict[str, float]] = []
        self._port, self._rate_per_s = int(env.endpoint.url.rpartition(":")[2]), rate_per_s
        self._client, self._stop, self._numbers = client_of(env), threading.Event(), itertools.count()
        self._due_s = 0.0

    @contextlib.contextmanager
    def asking(self) -> Iterator["Crowd"]:
        """For the length of a block; a caller that died is an error at its end."""
        died: list[BaseException] = []

        def keep(work: Any) -> None:
            try:
                work()
            except BaseException as error:  # told to the test below
                died.append(error)
                raise

        threads = [threading.Thread(target=keep, args=(work,)) for work in (self._ask, self._watch)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(TIMEOUT_S)
        assert not died, died

    def wait_for(self, num: int) -> None:
        """Until so many requests more are asked and answered."""
        begin_s, first, deadline_s = time.monotonic(), len(self.answers), time.monotonic() + TIMEOUT_S
        while sum(answer.asked_s > begin_s for answer in self.answers[first:]) < num:
            assert time.monotonic() < deadline_s, "callers are not answered"
            time.sleep(0.005)

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            self.tables.append(self._client.state().weights_pct)

    def _ask(self) -> None:
        asyncio.run(self._all())

    async def _all(self) -> None:
        self._due_s = time.monotonic()
        await asyncio.gather(*(self._one() for _ in range(NUM_CONNECTIONS)))

    async def _one(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while not self._stop.is_set():
            due_s = self._due_s = max(self._due_s + 1 / self._rate_per_s, time.monotonic() - 1.0)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            number, asked_s = next(self._numbers), time.monotonic()
            row = ASKED[number % len(ASKED)]
            headers = f"x-clearway-sticky-key: caller-{number}\r\n"
            status, said = await _exchange(reader, writer, "/invocations", {"instances": [row]}, headers)
            digest = str(said.get("model_digest", ""))
            why = self._wrong(status, said, digest, row)
            answer = Answer(asked_s=asked_s, answered_s=time.monotonic(), digest=digest, why=why)
            self.answers.append(answer)
            if digest in self.outcomes:
                outcome = {"key": f"caller-{number}", "model_digest": digest, "value": self.outcomes[digest]}
                await _exchange(reader, writer, "/outcomes", {"outcomes": [outcome]}, "")
        writer.close()
        await writer.wait_closed()

    def _wrong(self, status: int, said: dict[str, Any], digest: str, row: dict[str, Any]) -> str:
        if status != 200:
            return str(said["error"]["code"])
        if digest not in self.biases:
            return f"answered by {digest}, which nobody released"
        wanted = expected_score(self.biases[digest], row)
        return "" if abs(said["predictions"][0] - wanted) < 1e-5 else f"{digest} says {said}, right is {wanted}"


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, body: dict[str, Any], headers: str
) -> tuple[int, dict[str, Any]]:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: {PRODUCT}\r\ncontent-type: application/json\r\n{headers}"
    writer.write(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
    answer = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length"))
    return int(answer.split(b" ", 2)[1]), json.loads(await reader.readexactly(int(length.split(b":")[1])))
