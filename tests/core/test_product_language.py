"""product.yaml of a language model: what it must say, and what it must not."""

from pathlib import Path

import pytest

from clearway.contracts.errors import ConfigError
from clearway.product import Product
from clearway.product_yaml import load_product, parse_product
from clearway.tabular.training_set import settings_of

FOLDER = Path(__file__).parents[1] / "products" / "api_docs"
TEXT = (FOLDER / "product.yaml").read_text(encoding="utf-8")
PATH = Path("include/products/api_docs/product.yaml")


def parsed(old: str, new: str) -> Product:
    assert TEXT.count(old) == 1
    return parse_product(TEXT.replace(old, new).encode(), path=PATH)


def test_a_language_product_has_a_text_and_no_label():
    spec = load_product(FOLDER).spec
    assert (spec.model.kind, spec.features.text, spec.label) == ("language", "text", None)
    assert (spec.language.text, spec.language.gates.block) == ("text", "service")
    assert spec.features.columns == ("num_bytes", "share_capital", "share_digit", "service", "protocol", "kind")


def test_a_stage_of_tabular_models_refuses_it_by_name():
    with pytest.raises(ConfigError, match="product 'api_docs' has a language model, and this step is for tabular ones"):
        settings_of(load_product(FOLDER), {})


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "model:\n  kind: language",
            "model:\n  kind: linguistic",
            "model is {\"kind\": \"linguistic\"}; allowed: 'tabular', 'language'",
        ),
        ("model:\n  kind: language", "model:\n  kind: language\n  num_bins: 4", "model.num_bins is no known field"),
        (
            "model:\n  kind: language",
            "model:\n  kind: language\n  dim: 0",
            "model.dim is 0; allowed: greater than or equal to 8",
        ),
        ("model:\n  kind: language", "model:\n  num_bins: 4", "label is missing; add it"),
        (
            "model:\n  kind: language",
            "model:\n  kind: tabular",
            "gates: is of a language model, the model section says",
        ),
        ("  text: text\n", "", "features.text is None and model.kind is 'language'"),
        ("  text: text\n", "  text: service\n", "columns ['service'] are listed twice"),
        (
            "model:\n",
            "label: {table: documents, column: text}\nmodel:\n",
            "label: is of a tabular model, the model section says kind: language",
        ),
        (
            "gates:\n  kind: language",
            "gates: {auc_floor: 0.6, auc_ceiling: 0.9}\nx:\n  kind: language",
            "gates: is of a tabular model, the model section says kind: language",
        ),
        ("  bits_min: 0.3", "  bits_min: 3.5", "bits_min 3.5 must be less than bits_max 3.0"),
        ("  block: service", "  block: text", "gates.block is 'text', which is no categorical feature"),
        (
            "release:\n",
            "rollout: {strategy: [shadow, canary], shadow: {slices: {kind: [service]}}}\nrelease:\n",
            "rollout.shadow.slices.kind is in no request; it has text",
        ),
        (
            "  min_rows: 15\n",
            "  triggers: [[drift], [loss, volume]]\n",
            "monitor.triggers.1 needs loss, which a language model never shows; leave it out",
        ),
        (
            "  min_rows: 15\n",
            "  counted_by: spark\n",
            "monitor.counted_by is 'spark', which counts no tokens; allowed for a language model: pieces",
        ),
        (
            "release:\n",
            "tune: {num_trials: 3, space: {max_text_bytes: {low: 1, high: 9000}}}\nrelease:\n",
            "tune.space names 'max_text_bytes', which is no number of model; allowed: ['batch_size', 'context_length'",
        ),
        (
            "release:\n",
            "tune: {num_trials: 3, space: {dim: {low: 48, high: 208, step: 32}}}\nrelease:\n",
            "tune.space.dim goes from 48.0 in steps of 32 and model.dim is 128",
        ),
        (
            "release:\n",
            "tune: {num_trials: 3, space: {dim: {low: 64, high: 200, step: 32}}}\nrelease:\n",
            "step 32 does not lead from low 64.0 to high 200.0",
        ),
    ],
)
def test_a_mistake_is_told_where_it_is(old: str, new: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(old, new)
    assert expected in str(caught.value)


def test_a_tabular_product_reads_no_text(flights):
    text = (flights.folder / "product.yaml").read_text(encoding="utf-8")
    wrong = text.replace("features:\n", "features:\n  text: remarks\n", 1)
    with pytest.raises(ConfigError, match=r"features\.text is 'remarks' and model.kind is 'tabular'"):
        parse_product(wrong.encode(), path=PATH)


def test_a_tabular_product_waits_for_no_text(flights):
    text = (flights.folder / "product.yaml").read_text(encoding="utf-8")
    assert "triggers:" in text
    wrong = text.replace("triggers: [", "triggers: [[surprise], ", 1)
    with pytest.raises(ConfigError, match=r"needs surprise, which a tabular model never shows"):
        parse_product(wrong.encode(), path=PATH)
