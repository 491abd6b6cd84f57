"""Which versions are written down, with which shares, and what is refused before anything is."""

import dataclasses

import pytest

from clearway.contracts.errors import ConfigError
from clearway.contracts.release_document import Phase, ReleaseDocument, Version
from clearway.deploy.targets import standing as module
from clearway.deploy.targets.standing import stand
from clearway.serve.process import DRAIN_S
from targets_kit import CANDIDATE, CHAMPION, cloud, document, standing, version


def shares(found):
    return {served.digest: served.share_pct for served in found.versions}


def test_a_candidate_is_there_before_its_first_share_and_has_no_share_once_traffic_goes_back():
    assert shares(standing()) == {CHAMPION: 100.0}
    assert shares(standing(0.0)) == {CHAMPION: 100.0, CANDIDATE: 0.0}
    assert shares(standing(12.5)) == {CHAMPION: 87.5, CANDIDATE: 12.5}
    assert shares(standing(0.0, phase=Phase.ABORTING)) == {CHAMPION: 100.0}
    assert shares(standing(0.0, phase=Phase.ROLLING_BACK)) == {CHAMPION: 100.0}


def test_a_champion_that_is_deployed_again_is_written_down_once():
    again = dataclasses.replace(document(50.0), candidate=version(CHAMPION))
    assert shares(stand(again, env=cloud(), team="t", needs=())) == {CHAMPION: 100.0}


def test_a_share_that_a_target_would_round_is_refused():
    assert [weight for _, weight in standing(12.5).whole_shares(1000)] == [875, 125]
    with pytest.raises(ConfigError, match=r"share 12\.5 % .* parts of 100"):
        standing(12.5).whole_shares(100)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"image": ""}, "CONTAINERS__IMAGE not set"),
        ({"image": "clearway-serving:1"}, "another image tomorrow"),
        ({"image": "clearway-serving@sha256:abc"}, "another image tomorrow"),
        ({"cluster": ""}, "CONTAINERS__CLUSTER not set"),
    ],
)
def test_what_is_missing_or_may_change_under_us_is_refused(changes, text):
    with pytest.raises(ConfigError, match=text):
        stand(document(), env=cloud(**changes), team="t", needs=("cluster",))


def test_containers_get_no_package_that_they_could_not_fetch_or_trust():
    with pytest.raises(ConfigError, match="nothing serves"):
        stand(ReleaseDocument(product="seattle_rain"), env=cloud(), team="t", needs=())
    here = ReleaseDocument(product="p", champion=Version(uri="file:///models/1", digest=CHAMPION, release_id="r"))
    with pytest.raises(ConfigError, match="lie in S3"):
        stand(here, env=cloud(), team="t", needs=())
    env = cloud()
    keyless = env.model_copy(update={"aws": env.aws.model_copy(update={"signing_secret": ""})})
    with pytest.raises(ConfigError, match="SIGNING_SECRET is not set"):
        stand(document(), env=keyless, team="t", needs=())


def test_the_time_to_drain_is_the_servers():
    assert module.DRAIN_S == DRAIN_S
