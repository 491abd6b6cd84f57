"""Training and tuning accept a dataset only with the proof that exactly these bytes passed validation."""

import json

from clearway.contracts.errors import IntegrityError
from clearway.contracts.refs import DatasetRef
from clearway.contracts.verdict import Verdict
from clearway.infra.storage import Storage


def check_receipt(storage: Storage, receipt_uri: str, dataset: DatasetRef) -> None:
    """Raises: IntegrityError unless the receipt says that this very dataset passed."""
    try:
        receipt = json.loads(storage.read(receipt_uri))
    except FileNotFoundError as error:
        raise IntegrityError(
            f"dataset {dataset.digest} has no validation receipt at {receipt_uri}; run the validate stage first"
        ) from error
    except ValueError as error:
        raise IntegrityError(f"receipt {receipt_uri} is not JSON; run the validate stage again") from error
    named = receipt.get("dataset_digest") if isinstance(receipt, dict) else None
    if named != dataset.digest:
        raise IntegrityError(
            f"receipt {receipt_uri} is for dataset {named}, not {dataset.digest}; validate the dataset to be used"
        )
    if receipt.get("verdict") != Verdict.PASS.value:
        raise IntegrityError(
            f"receipt {receipt_uri} says {receipt.get('verdict')!r}, only 'pass' may be trained on; see its report"
        )
