import pytest

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.manifest import canonical_json
from clearway.contracts.refs import MAX_REFERENCE_BYTES, ModelRef, Ref, RolloutStatus

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize("digest", ["", DIGEST[:-1], DIGEST + "0", DIGEST.upper(), "g" * 64, DIGEST + "\n"])
def test_a_digest_is_64_lowercase_hex_characters(digest: str) -> None:
    with pytest.raises(ValueError, match="64 lowercase hex"):
        Ref(uri="file:///a", digest=digest)


def test_an_address_has_a_scheme() -> None:
    with pytest.raises(ValueError, match="no scheme"):
        Ref(uri="/a/b", digest=DIGEST)


def test_a_reference_with_a_long_address_stays_small() -> None:
    status = RolloutStatus(uri="s3://" + "b" * 63 + "/" + "p" * 400, digest=DIGEST, previous_digest=DIGEST, epoch=10**6)
    assert len(canonical_json(to_jsonable(status))) < MAX_REFERENCE_BYTES


def test_references_of_different_kinds_are_not_equal() -> None:
    assert Ref(uri="file:///a", digest=DIGEST) != ModelRef(uri="file:///a", digest=DIGEST)


def test_a_reference_from_text_is_checked_again() -> None:
    with pytest.raises(ValueError, match="64 lowercase hex"):
        from_jsonable(ModelRef, {"uri": "file:///a", "digest": "short", "schema_version": 1})
