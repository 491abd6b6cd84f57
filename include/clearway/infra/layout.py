"""Where each thing of a product lies below the store root. Addresses only; nothing is read or written here."""

from dataclasses import dataclass

from clearway.infra.storage import join

STORY = "story.html"  # the page of a backtest


@dataclass(frozen=True, slots=True)
class Layout:
    """Addresses of one product, e.g. `Layout(env.store_root, "flights")`."""

    root: str
    product: str

    def _at(self, *parts: str) -> str:
        return join(self.root, self.product, *parts)

    def batch(self, batch_id: str) -> str:
        """Snapshots of one landed batch."""
        return self._at("batches", batch_id)

    def ledger_entry(self, batch_id: str) -> str:
        """The ledger's line for a batch, created once."""
        return self._at("ledger", f"{batch_id}.json")

    def quarantine(self, batch_id: str) -> str:
        """Folder of refused deliveries of a batch."""
        return self._at("quarantine", batch_id)

    def raw_window(self, digest: str) -> str:
        """List of the batches of one window."""
        return self._at("raw", f"{digest}.json")

    def features(self, batch_id: str) -> str:
        """Snapshots of one batch's features."""
        return self._at("features", batch_id)

    def dataset(self, digest: str) -> str:
        """Description of one dataset."""
        return self._at("datasets", f"{digest}.json")

    def receipt(self, dataset_digest: str) -> str:
        """Proof that a dataset was validated."""
        return self._at("receipts", f"{dataset_digest}.json")

    def model(self, digest: str) -> str:
        """A model package."""
        return self._at("models", digest)

    def release(self, release_id: str, *parts: str) -> str:
        """What one release leaves behind: reports, evaluation, approval, checkpoints."""
        return self._at("releases", release_id, *parts)

    def rollout_record(self, release_id: str) -> str:
        """What a release's rollout was judged by, kept when it ended."""
        return self.release(release_id, "rollout.json")

    def history(self, name: str) -> str:
        """How one release or rollback order ended; "" for the folder of all of them."""
        return self._at("history", name)

    def scored(self, *parts: str) -> str:
        """Batches scored beside the endpoint."""
        return self._at("scored", *parts)

    def costs(self, *parts: str) -> str:
        """The ledger of what jobs cost."""
        return self._at("costs", *parts)

    def predictions(self, batch_id: str) -> str:
        """Folder of prediction-log files for rows of one batch."""
        return self._at("predictions", batch_id)

    def monitor(self, batch_id: str, *parts: str) -> str:
        """Drift and performance reports of one batch."""
        return self._at("monitor", batch_id, *parts)

    def backtest(self, file: str) -> str:
        """What retraining policies would have done with the product's past; STORY is the page about it."""
        return self._at("backtest", file)

    def decision(self, evidence_digest: str) -> str:
        """A retraining decision."""
        return self._at("decisions", f"{evidence_digest}.json")

    def refusal(self, request_digest: str) -> str:
        """Why a request for a retraining was not granted, created once."""
        return self._at("refusals", f"{request_digest}.json")

    def claim(self, evidence_digest: str) -> str:
        """Which release took a retraining decision, created once."""
        return self._at("decisions", f"{evidence_digest}.claim.json")
