"""How long the serving pages take with 1,000 releases stored: p50 and p95 over 30 loads on loopback.

    python tests/benchmarks/bench_pages.py

"What serves now" for two stores: one product whose 1,000 releases all went through its document, and 50 products (20
to a page) with 20 releases each, the most a document keeps; a canary is under way in the first. Then the first, a
middle and the last of the pages of past releases, and one past release that was mirrored, a canary, and watched. Pages
are asked for over HTTP from the plugin's own application with Airflow's auth manager; nothing is cached but titles. The
endpoint is down, which the first page has to find out as well. CPU is that of server and client together: neighbours on
the same cores stretch the rest.
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx

import pages_kit
from clearway.contracts import release_document as documents
from clearway.contracts.release_document import ReleaseDocument, Version
from clearway.infra.environment import Environment, project_root
from clearway.infra.release_store import open_release_store

NUM_LOADS, NUM_RELEASES = 30, 1_000


def main() -> None:
    """Measure and say."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"CLEARWAY__HOME": folder, "CLEARWAY__PRODUCTS": f"{folder}/products"}
        os.environ |= {"CLEARWAY__ENDPOINT__URL": "http://127.0.0.1:9", "CLEARWAY__STORAGE__ROOT": f"file://{folder}/s"}
        with pages_kit.running_pages() as base:
            for num_products in (1, 50):
                prepare(Path(folder) / "products", num_products)
                measure(f"{num_products} products", f"{base}/serving")
            keep_releases()
            past = f"{base}/releases/flights_release"
            for number in (1, 25, 50):
                measure(f"past releases, page {number} of 50", f"{past}?page={number}")
            measure("one past release", f"{past}/release-500")


def measure(name: str, url: str) -> None:
    """Load and say."""
    cpu_s = time.process_time()
    times_ms = sorted(load(url) for _ in range(NUM_LOADS))
    cpu_ms = (time.process_time() - cpu_s) / NUM_LOADS * 1e3
    p95 = statistics.quantiles(times_ms, n=20)[-1]
    size_kb = len(httpx.get(url).content) / 1e3
    print(  # noqa: T201 - what a benchmark is for
        f"{name:>30}, {NUM_RELEASES} releases stored: p50 {statistics.median(times_ms):.0f} ms, p95 {p95:.0f} ms, "
        f"CPU {cpu_ms:.0f} ms, {size_kb:.0f} kB"
    )


def keep_releases() -> None:
    """A product whose releases all ended, each with a record in storage."""
    env, rollout = Environment.load(), pages_kit.past_rollout(("shadow", "canary", "watch"), at_s=1.7e9)
    shutil.copytree(project_root() / "include" / "products" / "flights", env.products / "flights")
    for number in range(NUM_RELEASES):
        pages_kit.keep(env, pages_kit.ended(number, at_s=1.7e9 + 3_600 * number), rollout)


def load(url: str) -> float:
    """One load over a new connection, milliseconds."""
    start = time.perf_counter()
    httpx.get(url).raise_for_status()
    return (time.perf_counter() - start) * 1e3


def prepare(products: Path, num_products: int) -> None:
    """Products that all look like the demonstration's, and their releases, one after the other through the document."""
    shutil.rmtree(products, ignore_errors=True)
    store, flights = open_release_store(Environment.load()), project_root() / "include" / "products" / "flights"
    for number in range(num_products):
        name = f"product_{num_products}_{number}"
        shutil.copytree(flights, products / name)
        document, version = ReleaseDocument(product=name), 0
        for release in range(NUM_RELEASES // num_products):
            document = released(document, release)
            version = store.swap(document, expected_version=version)
        if number == 0:
            store.swap(pages_kit.canary(document, reason="few requests"), expected_version=version)


def released(document: ReleaseDocument, number: int) -> ReleaseDocument:
    """One release from lease to promotion."""
    candidate = Version(uri=f"file:///{number}", digest=f"{number:064x}", release_id=f"release-{number}")
    document = documents.take_lease(document, holder=candidate.release_id, now_s=number, ttl_s=1)
    document = documents.begin_deploy(document, candidate, epoch=document.epoch)
    reason = "golden: answers differ from the recorded ones by 1e-08, allowed 1e-05; 5 of 5 live answers carry it"
    return documents.promote(document, epoch=document.epoch, now_s=1.7e9 + number, reason=reason)


if __name__ == "__main__":
    main()
