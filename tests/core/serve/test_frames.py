"""Frames between the gateway and a candidate: whole however they arrive, and nothing but plain data."""

import pytest

from clearway.serve.frames import MAX_FRAME_BYTES, Answer, Ask, BadFrame, Frames, decode_answer, decode_ask, framed

ROWS = [{"a": 1.5, "b": None, "c": "x\u2028", "d": 7}]


@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_frames_are_whole_however_they_arrive(size):
    sent = [Ask(1, ROWS), Ask(2, ROWS * 50), Ask(3, [])]
    data, frames = b"".join(map(framed, sent)), Frames()
    got = [decode_ask(one) for i in range(0, len(data), size) for one in frames.feed(data[i : i + size])]
    assert got == sent


def test_an_answer_keeps_every_bit_of_a_score():
    answer = Answer(5, scores=[0.1, 1 / 3, 5e-324], code="", message="")
    assert decode_answer(Frames().feed(framed(answer))[0]) == answer


def test_an_integer_beyond_64_bits_goes_as_the_float_it_becomes_anyway():
    (payload,) = Frames().feed(framed(Ask(1, [{"a": 10**25, "b": "x"}])))
    assert decode_ask(payload).rows == [{"a": 1e25, "b": "x"}]
    with pytest.raises(OverflowError):
        framed(Ask(1, [{"a": 10**400}]))


def test_a_length_that_no_frame_has_is_refused():
    with pytest.raises(BadFrame, match=str(MAX_FRAME_BYTES)):
        Frames().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
