"""A model that is trained learns, and what it says of a text is its probability."""

import math

import numpy as np
import pytest
import torch

from clearway.contracts.errors import DataError
from clearway.engine.task import Context, Task
from clearway.language.initial import build
from clearway.language.score import continuation, next_byte, surprises
from clearway.language.shape import LanguageShape
from clearway.language.stream import TokenStream
from clearway.language.task import LanguageTask
from clearway.language.tokens import MARK, tokens_of

SHAPE = LanguageShape(
    vocab_size=257, context_length=32, num_layers=2, dim=32, num_heads=4, num_kv_heads=2, hidden_dim=64
)
TEXTS = ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog", "the mat and the log"]
HERE = Context(step=0, micro=0, seed=0, device=torch.device("cpu"))


def a_task() -> Task:
    row = np.concatenate([tokens_of(text) for text in TEXTS] * 8 + [np.array([MARK], np.uint16)])
    return LanguageTask(shape=SHAPE, stream=TokenStream.of([row]), seed=5)


@pytest.fixture(scope="module")
def trained():
    task = a_task()
    model = task.build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    index = torch.arange(task.num_samples)
    losses = []
    for _ in range(120):
        total, count = task.loss(model, task.batch(index), HERE)
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
        losses.append(float(total.detach()) / count)
    return model.eval(), losses


def test_a_fresh_model_knows_nothing_and_training_changes_that(trained):
    _, losses = trained
    assert losses[0] == pytest.approx(math.log(257), rel=0.05)
    # Only where to go after "the " or "a " is open: a few bits per document.
    assert losses[-1] < 0.35


def test_a_loss_is_the_sum_over_all_terms_of_its_samples():
    task = a_task()
    model = task.build()
    index = torch.tensor([0, 3, 1])
    total, count = task.loss(model, task.batch(index), HERE)
    apart = [task.loss(model, task.batch(index[i : i + 1]), HERE) for i in range(3)]
    assert count == 3 * task.terms_per_sample == sum(number for _, number in apart)
    torch.testing.assert_close(total, torch.stack([part for part, _ in apart]).sum())


def test_decay_leaves_scales_and_tables_alone():
    task = a_task()
    names = {name for name, _ in task.build().named_parameters() if not task.is_decayed(name)}
    assert names == {"embedding.weight", "norm.weight"} | {
        f"layers.{i}.{part}_norm.weight" for i in (0, 1) for part in ("attention", "feed")
    }
    assert set(task.tensor_plan(task.build())) <= {name for name, _ in task.build().named_modules()}


def test_bits_are_those_of_each_byte_given_the_ones_before(trained):
    model, _ = trained
    text = "the dog sat on a log"
    tokens = np.append(tokens_of(text), MARK)
    bits = -sum(math.log2(next_byte(model, tokens[:i])[tokens[i]]) for i in range(1, len(tokens)))
    (found,) = surprises(model, [text], batch_size=4)
    assert found.bits == pytest.approx(bits, rel=1e-5)
    assert found.num_bytes == 20 and found.bits_per_byte == found.bits / 20


def test_bits_do_not_depend_on_the_company_a_text_is_scored_in(trained):
    model, _ = trained
    texts = [*TEXTS, "x", "a much longer text that does not fit the context of this small model " * 2]
    together = surprises(model, texts, batch_size=3)
    alone = [surprises(model, [text], batch_size=1)[0] for text in texts]
    assert [found.bits for found in together] == pytest.approx([found.bits for found in alone], rel=1e-5)
    assert [found.num_bytes for found in together] == [len(text) for text in texts]


def test_known_text_is_less_surprising_and_goes_on_as_known(trained):
    model, _ = trained
    known, strange = surprises(model, [TEXTS[0], "zq#9 %%k"], batch_size=2)
    assert known.bits_per_byte < 1 < strange.bits_per_byte
    assert continuation(model, "the cat sat on the ", max_bytes=3) in {"mat", "log"}
    assert continuation(model, "the cat sat on the mat", max_bytes=9) == ""  # it ends there


def test_an_empty_text_and_a_broken_model_are_refused(trained):
    model, _ = trained
    with pytest.raises(DataError, match="text 1 is empty"):
        surprises(model, ["a", ""], batch_size=2)
    broken = build(SHAPE, seed=0)
    with torch.no_grad():
        broken.norm.weight.fill_(float("nan"))
    with pytest.raises(DataError, match="text 0 has a probability that is no number"):
        surprises(broken, ["abc"], batch_size=2)
