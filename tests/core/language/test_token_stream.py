"""Text to tokens and back, and sequences cut from shards by number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.contracts.errors import DataError
from clearway.language.stream import TokenStream, documents_of
from clearway.language.tokens import MARK, STORED, text_of, tokens_of

TEXTS = st.lists(st.text(max_size=12), min_size=1, max_size=6)


@given(text=st.text())
def test_text_survives_its_tokens(text):
    tokens = tokens_of(text)
    assert tokens[0] == MARK and len(tokens) == 1 + len(text.encode())
    assert text_of(tokens) == text


@given(shards=st.lists(TEXTS, min_size=1, max_size=4), length=st.integers(1, 9), data=st.data())
def test_windows_are_slices_of_all_shards_in_a_row(shards, length, data):
    parts = [np.concatenate([tokens_of(text) for text in texts]) for texts in shards]
    stream, row = TokenStream.of(parts), np.concatenate(parts)
    assert len(stream) == len(row)
    start = data.draw(st.integers(0, len(row) - 1))
    stop = data.draw(st.integers(start + 1, len(row)))
    assert np.array_equal(stream.read(start, stop), row[start:stop])
    if len(row) <= length:
        with pytest.raises(DataError, match="do not fill one sequence"):
            stream.num_windows(length)
        return
    count = stream.num_windows(length)
    windows = stream.windows(np.arange(count), length)
    assert np.array_equal(windows[:, :-1].reshape(-1), row[: count * length])
    assert np.array_equal(windows[:, 1:].reshape(-1), row[1 : count * length + 1])
    assert len(row) - (count * length + 1) < length


def test_shards_are_mapped_from_files(tmp_path):
    for name, text in (("a", "first"), ("b", "second")):
        (tmp_path / name).write_bytes(tokens_of(text).astype(STORED).tobytes())
    stream = TokenStream.open([tmp_path / "a", tmp_path / "b"])
    assert all(isinstance(shard, np.memmap) for shard in stream.shards)
    assert text_of(stream.read(0, len(stream))) == "firstsecond"


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "has 0 bytes"), (b"abc", "has 3 bytes"), (b"\x41\x00", "begins with 65")]
)
def test_a_file_that_is_no_shard_is_refused(tmp_path, content, words):
    (tmp_path / "shard").write_bytes(content)
    with pytest.raises(DataError, match=words):
        TokenStream.open([tmp_path / "shard"])


def test_positions_begin_again_with_every_document():
    positions, documents = documents_of(np.array([[65, 66, MARK, 67, MARK], [MARK, 65, 66, 67, 68]]))
    assert positions.tolist() == [[0, 1, 0, 1, 0], [0, 1, 2, 3, 4]]
    assert documents.tolist() == [[0, 0, 1, 1, 2], [1, 1, 1, 1, 1]]
