"""A tabular model is judged on labels, which come late: those that came with this batch, for rows served before."""

from clearway.infra.datasets import read_labels
from clearway.monitor.batch_rows import ROWS_PER_PIECE
from clearway.monitor.history import label_batches
from clearway.monitor.kinds import Case, Judged
from clearway.monitor.performance import arrived_for, join_labels, measure_performance
from clearway.monitor.prediction_log import read_predictions


class TabularWatch:
    """A `kinds.Watched`."""

    rows_per_piece = ROWS_PER_PIECE

    def judged(self, case: Case) -> Judged:
        """All models on the labels that came, and the champion's rows among them."""
        spec = case.product.spec
        label = spec.tabular.label
        labels = read_labels(
            case.storage,
            case.layout,
            case.document,
            table=label.table,
            key=spec.features.key,
            column=label.column,
        )
        batches = label_batches(spec.batch, case.batch_id, delay_days=spec.tables[label.table].delay_days)
        predictions = read_predictions(case.storage, case.layout, batches)
        joined = join_labels(labels, predictions)
        performance = measure_performance(
            joined, num_labels=len(labels), num_predictions=len(predictions), as_of=case.document.as_of
        )
        arrived = arrived_for(joined, case.champion.digest if case.champion else None)
        return Judged(performance=performance, surprise=None, arrived=arrived)
