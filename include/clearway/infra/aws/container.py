"""What a container that serves one model (`clearway.serve.sagemaker`) is told, wherever it runs."""

import json
from collections.abc import Sequence

from clearway.contracts.errors import ConfigError
from clearway.infra.environment import PREFIX, Environment

OFFLINE_VARIABLE = f"{PREFIX}SAGEMAKER__IS_OFFLINE"
DIGEST_VARIABLE = f"{PREFIX}SAGEMAKER__MODEL_DIGEST"
URI_VARIABLE = f"{PREFIX}SAGEMAKER__MODEL_URI"
SHADOW_VARIABLE = f"{PREFIX}SAGEMAKER__IS_SHADOW"
COLUMNS_VARIABLE = f"{PREFIX}SAGEMAKER__SHADOW_COLUMNS"
MAX_VALUE = 1024  # characters of a variable, by SageMaker's service model


def variables_of(env: Environment, *, home: str) -> dict[str, str]:
    """What it needs to know besides its model. `home`: the folder it may write. Names of secrets, never secrets."""
    given = {
        "CLEARWAY_ENV": env.name,
        f"{PREFIX}STORAGE__KIND": env.storage.kind,
        f"{PREFIX}STORAGE__ROOT": env.store_root,
        f"{PREFIX}HOME": home,
        f"{PREFIX}AWS__SIGNING_SECRET": env.aws.signing_secret,
        f"{PREFIX}SERVING__SLOW_S": str(env.serving.slow_s),
    }
    return {name: value for name, value in given.items() if value}


def model_variables(uri: str, digest: str) -> dict[str, str]:
    """Which model it serves; it starts with no other."""
    return {URI_VARIABLE: uri, DIGEST_VARIABLE: digest}


def shadow_variables(columns: Sequence[str]) -> dict[str, str]:
    """That it gets copies of requests, and whose values name their slices. Raises: ConfigError for too many columns."""
    given = json.dumps(list(columns))
    if len(given) > MAX_VALUE:
        raise ConfigError(
            f"the names of {len(columns)} columns of rollout.shadow.slices have {len(given)} characters; SageMaker "
            f"takes {MAX_VALUE} at most, name fewer"
        )
    return {SHADOW_VARIABLE: "true", COLUMNS_VARIABLE: given}
