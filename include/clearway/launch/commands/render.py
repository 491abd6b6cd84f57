"""Write down who serves which share for ECS, Kubernetes or KServe; changes nothing anywhere.

Render again after each step of a rollout, and apply what was written; docs/aws.md says how.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

from clearway.infra.environment import Environment
from clearway.infra.release_store import open_release_store
from clearway.launch.arguments import add_product_argument
from clearway.product_yaml import find_product


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """For what, which product, where to."""
    parser.add_argument("target", choices=["ecs", "kubernetes", "kserve"])
    add_product_argument(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the files; made if absent")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The files, and who they give which share. Raises: ConfigError for what a target cannot express."""
    from clearway.deploy.targets import ecs, kserve, kubernetes  # noqa: PLC0415  (only this command needs them)
    from clearway.deploy.targets.standing import stand  # noqa: PLC0415

    env = Environment.load()
    spec = find_product(env.products, args.product).spec
    document, _ = open_release_store(env).read(spec.name)
    needs = {"ecs": ecs.NEEDS, "kubernetes": kubernetes.NEEDS, "kserve": kserve.NEEDS}[args.target]
    standing = stand(document, env=env, team=spec.owners[0], needs=needs)
    if args.target == "ecs":
        texts = {f"{standing.name}-ecs.json": json.dumps(ecs.template(standing, env=env), indent=2) + "\n"}
    elif args.target == "kubernetes":
        texts = {
            f"{standing.name}-objects.yaml": _yaml(kubernetes.objects(standing)),
            f"{standing.name}-route.yaml": _yaml([kubernetes.route(standing)]),
        }
    else:
        texts = {f"{standing.name}-kserve.yaml": _yaml(kserve.objects(standing))}
    args.out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (args.out / name).write_text(text, encoding="utf-8")
    shares = {version.digest: version.share_pct for version in standing.versions}
    return {"files": [str(args.out / name) for name in texts], "shares_pct": shares}


def render(result: dict[str, Any]) -> str:
    """For people."""
    shares = (f"{digest[:12]}: {share:g} %" for digest, share in result["shares_pct"].items())
    return "\n".join([*result["files"], *shares])


def _yaml(documents: list[dict[str, Any]]) -> str:
    return yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=120)
