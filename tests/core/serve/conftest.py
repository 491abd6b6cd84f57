"""What the attacks on the model server share."""

import pytest

from clearway.infra.environment import Environment
from serving_kit import InProcessEndpoint, make_package


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """A server with one version and all traffic on it."""
    home = tmp_path_factory.mktemp("home")
    env = Environment.load({"CLEARWAY__HOME": str(home), "CLEARWAY__STORAGE__ROOT": (home / "store").as_uri()})
    endpoint, ref = InProcessEndpoint(env), make_package(env, 0.3)
    endpoint.load(uri=ref.uri, digest=ref.digest, epoch=1)
    endpoint.set_weights({ref.digest: 100.0}, epoch=1)
    yield endpoint.server
    endpoint.close()
