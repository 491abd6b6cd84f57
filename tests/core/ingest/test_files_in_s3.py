"""Deliveries that other systems put into a bucket."""

import pytest

from aws_kit import make_bucket
from clearway.infra.storage import join, open_storage
from clearway.ingest.sources import NotDelivered
from clearway.ingest.sources.files import open_source

pytestmark = pytest.mark.slow
BATCH = "2024-01-01"


def test_a_batch_is_read_from_below_a_prefix(aws, shop):
    shop.deliver_well(1)
    root = f"s3://{make_bucket()}/deliveries"
    storage, product = open_storage(root), shop.product
    source = product.spec.source.model_copy(update={"uri": root})
    moved = product.model_copy(update={"spec": product.spec.model_copy(update={"source": source})})
    with pytest.raises(NotDelivered, match=f"{root}/.* is not there"):
        open_source(moved).read(BATCH)
    for path in (product.folder / "inbox").glob("*.csv"):
        storage.write(join(root, path.name), path.read_bytes())
    here, there = open_source(product), open_source(moved)
    assert there.read(BATCH) == here.read(BATCH)
    assert there.fingerprint(BATCH) == here.fingerprint(BATCH)
