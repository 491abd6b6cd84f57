"""Check a product's folder, or print the JSON schema of product.yaml for editors.

`check` reads product.yaml strictly and looks for what it names: Python functions, without running any of them, files of
a package, devices, and rules of Great Expectations.
"""

import argparse
import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clearway.contracts.errors import ClearwayError, ConfigError, MissingExtra
from clearway.devices.fits import check_fits
from clearway.infra.environment import Environment
from clearway.ingest.sources.package import open_source
from clearway.preprocess.plan import rows_table
from clearway.product import LoadedProduct
from clearway.product_source import PackageSource
from clearway.product_yaml import FILE, find_product, json_schema, list_products, load_product
from clearway.strict_yaml import read_yaml


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`check [NAME or FOLDER …]`, `schema`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="check|schema")
    check = actions.add_parser("check", help="read product.yaml and look for the functions it names")
    check.add_argument("products", nargs="*", help="names or folders; all products of this project if left out")
    schema = actions.add_parser("schema", help="JSON schema of product.yaml")
    for action in (check, schema):  # accepted before and after the action alike
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The schema, or a summary per product. Raises: ConfigError with every mistake of the first wrong product."""
    if args.action == "schema":
        return {"schema": json_schema()}
    env = Environment.load()
    folder = env.products
    wanted = args.products or list_products(folder)
    if not wanted:
        raise ConfigError(f"{folder} holds no product; create <name>/product.yaml there")
    return {"products": [_check(folder, name, env) for name in wanted]}


def render(result: dict[str, Any]) -> str:
    """For people; the schema as it is stored in a file."""
    if "schema" in result:
        return schema_text()
    return "\n".join(
        f"{p['name']}: ok; {p['num_tables']} tables, {p['num_features']} features, a batch every {p['batch']}, "
        f"risk tier {p['risk_tier']}, digest {p['digest'][:12]}"
        for p in result["products"]
    )


def schema_text() -> str:
    """The schema as it lies in docs/reference/product.schema.json."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _check(products: Path, name: str, env: Environment) -> dict[str, Any]:
    is_folder = (Path(name) / "product.yaml").is_file()
    product = load_product(Path(name).resolve()) if is_folder else find_product(products, name)
    problems = [problem for path in product.spec.functions for problem in _missing(product, path)]
    problems += _unusable(product, env)
    if problems:
        raise ConfigError("\n".join(problems))
    spec = product.spec
    return {
        "name": spec.name,
        "num_tables": len(spec.tables),
        "num_features": len(spec.features.columns),
        "batch": spec.batch.every,
        "risk_tier": spec.risk_tier,
        "digest": product.digest,
    }


def _unusable(product: LoadedProduct, env: Environment) -> Iterator[str]:
    """What product.yaml names outside its folder: devices, files of a package, rules of Great Expectations."""
    from clearway.validate.suite import build_expectation  # noqa: PLC0415 - Great Expectations, 3 CPU seconds

    spec, text = product.spec, read_yaml(product.folder / FILE)

    def told(error: ClearwayError, *where: str | int) -> str:
        return f"{text.path}:{text.line_of(where)}: {error}"

    try:
        rows_table(spec)
    except ConfigError as error:
        yield told(error, "features", "time")
    try:
        check_fits(spec.resources, env.devices.classes)
    except ConfigError as error:
        yield told(error, "resources")
    if isinstance(spec.source, PackageSource):
        try:
            open_source(product).check_files()
        except (ConfigError, MissingExtra) as error:
            yield told(error, "source")
    for index, expectation in enumerate(spec.validate_.expectations):
        try:
            build_expectation(expectation)
        except ConfigError as error:
            yield told(error, "validate", "expectations", index)


def _missing(product: LoadedProduct, path: str) -> Iterator[str]:
    file, _, function = path.partition(":")
    location = product.folder / file
    if not location.is_file():
        yield f"{path!r}: {location} does not exist; create it or correct product.yaml"
        return
    try:
        tree = ast.parse(location.read_text(encoding="utf-8"), filename=str(location))
    except SyntaxError as error:
        yield f"{location}:{error.lineno}: is no Python: {error.msg}; correct the line"
        return
    found = sorted(node.name for node in tree.body if isinstance(node, ast.FunctionDef))
    if function not in found:
        yield f"{path!r}: {location} has no function {function!r}; functions there: {found}"
