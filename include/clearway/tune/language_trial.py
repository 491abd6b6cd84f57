"""A language model in a study: trained by the code of the train stage, judged by bits per byte of newer texts."""

import math
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from clearway.contracts.errors import ConfigError, DataError
from clearway.contracts.refs import DatasetRef
from clearway.engine.order import num_steps_per_epoch
from clearway.engine.world import CPU, World
from clearway.infra.datasets import DAY
from clearway.infra.environment import Environment
from clearway.infra.storage import Storage
from clearway.language.documents import are_new, read_documents
from clearway.language.fit import fit, plan_of, shape_of
from clearway.language.model import LanguageModel
from clearway.language.score import surprises
from clearway.language.scorer import BATCH_PIECES
from clearway.language.stream import TokenStream
from clearway.language.tokens import tokens_of
from clearway.product import LoadedProduct
from clearway.product_language import Language
from clearway.tabular.fit import has_fast_bfloat16
from clearway.tune.kinds import Judged, Report, Settings, Words
from clearway.tune.objective import in_percent

if TYPE_CHECKING:
    from clearway.language.shape import LanguageShape

# Of `flops_per_token`: two operations per multiply-add, forward and twice that backward.
FLOPS_PER_MULTIPLY_ADD = 6


class LanguageTrial:
    """A `tune.kinds.Searchable`."""

    words = Words(loss="bits per byte", unit="bits", metric="bits_per_byte", priced="a byte")

    def rows(self, storage: Storage, dataset: DatasetRef, *, product: LoadedProduct, env: Environment) -> pa.Table:
        train = read_documents(storage, dataset, product=product, env=env).train
        return train.select([DAY, product.spec.language.text])

    def judged(
        self, older: pa.Table, newer: pa.Table, *, product: LoadedProduct, settings: Settings, report: Report
    ) -> Judged:
        assert isinstance(settings, Language), "settings are of the product's kind"
        shape, column = _shape_of(settings), product.spec.language.text
        learned, asked = older[column].to_pylist(), newer[column].to_pylist()
        judging = [text for text, is_new in zip(asked, are_new(asked, known=learned), strict=True) if is_new]
        if not judging:
            raise DataError(f"all {len(asked)} texts to judge on stand in the older ones word for word; use more text")
        stream = TokenStream.of([np.concatenate([tokens_of(text) for text in learned])])
        num_windows = stream.num_windows(shape.context_length)
        num_steps = num_steps_per_epoch(num_windows, settings.batch_size) * settings.num_epochs
        world = World()
        trained = fit(
            stream,
            settings,
            plan=plan_of(world, is_bfloat16=has_fast_bfloat16(CPU)),
            world=world,
            keeping=None,
            should_stop=lambda: False,
            on_report=in_percent(report, num_steps=num_steps, unit=math.log(2)),
        )
        assert isinstance(trained.model, LanguageModel), "one device trains the network itself"
        found = surprises(trained.model, judging, batch_size=BATCH_PIECES)
        loss = math.fsum(text.bits for text in found) / sum(text.num_bytes for text in found)
        return Judged(loss=loss, multiply_adds=round(shape.flops_per_token / FLOPS_PER_MULTIPLY_ADD))


def _shape_of(settings: Language) -> "LanguageShape":
    """A point of the space whose sizes do not fit together is refused like one that cannot be trained."""
    try:
        return shape_of(settings)
    except ConfigError as error:
        raise DataError(str(error)) from error
