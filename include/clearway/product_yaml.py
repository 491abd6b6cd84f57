"""product.yaml to a LoadedProduct: strict text, closed schema, errors that say where, what and what is allowed."""

import difflib
import json
import re
import types
import typing
from pathlib import Path
from typing import Any, get_args, get_origin

import pydantic

from clearway.contracts.errors import ConfigError
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.product import LoadedProduct, Product
from clearway.product_checks import mistakes_of
from clearway.product_part import Part
from clearway.strict_yaml import Text, Where, parse_yaml

FILE = "product.yaml"
# Enough to correct a file in one go without filling the screen.
MAX_ERRORS_SHOWN = 20


def load_product(folder: Path) -> LoadedProduct:
    """Read and check `folder`/product.yaml.

    The digest covers product.yaml and every .py file beside it, since both decide what the stages compute.
    Raises: ConfigError with one line per mistake: file, line, field, value, what was allowed.
    """
    path = folder / FILE
    if not path.is_file():
        raise ConfigError(f"folder {folder} has no {FILE}; create it, see the products beside it for an example")
    data = path.read_bytes()
    spec = parse_product(data, path=path)
    if spec.name != folder.name:
        raise ConfigError(f"{path}: name is {spec.name!r} but its folder is {folder.name!r}; make them the same")
    return LoadedProduct(spec=spec, folder=folder, digest=_digest(folder))


def parse_product(data: bytes, *, path: Path) -> Product:
    """Check the bytes of a product.yaml; `path` only names it in errors. Raises: ConfigError."""
    text = parse_yaml(data, path=path)
    if not isinstance(text.value, dict):
        found = type(text.value).__name__ if text.value is not None else "nothing"
        raise ConfigError(f"{path}:1: holds {found}; allowed: a mapping with the keys {_keys(Product)}")
    try:
        # As JSON, strictly: "48" is no number and true is no 1, while lists become tuples and text becomes instants.
        spec = Product.model_validate_json(json.dumps(text.value), strict=True)
    except pydantic.ValidationError as error:
        raise ConfigError(_explain(text, error)) from error
    mistakes = [
        f"{path}:{text.line_of(where)}: {'.'.join(map(str, where))} {said}" for where, said in mistakes_of(spec)
    ]
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return spec


def list_products(folder: Path) -> tuple[str, ...]:
    """Names of the products below `folder`, sorted."""
    return tuple(sorted(found.parent.name for found in folder.glob(f"*/{FILE}")))


def find_product(products: Path, name: str) -> LoadedProduct:
    """The product `name` below the folder `products`. Raises: ConfigError listing the names there are."""
    check_name(products, name)
    return load_product(products / name)


def check_name(products: Path, name: str) -> None:
    """Whether there is a product of this name, whatever its file says. Raises: ConfigError listing the names."""
    known = list_products(products)
    if name not in known:
        raise ConfigError(
            f"product {name!r} is not in {products}; allowed: {list(known)}; create {name}/{FILE} or correct the name"
        )


def json_schema() -> dict[str, Any]:
    """JSON Schema of product.yaml, for editors."""
    schema = Product.model_json_schema(by_alias=True)
    schema["properties"]["name"]["description"] = "Name of the product's folder."
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _digest(folder: Path) -> str:
    files = sorted([folder / FILE, *folder.glob("*.py")])
    return sha256_of(canonical_json([[f.name, sha256_of(f.read_bytes())] for f in files]))


def _explain(text: Text, error: pydantic.ValidationError) -> str:
    mistakes = error.errors(include_url=False)
    lines = [_explain_one(text, mistake) for mistake in mistakes[:MAX_ERRORS_SHOWN]]
    more = len(mistakes) - len(lines)
    return "\n".join([*lines, f"… and {more} more"] if more else lines)


def _explain_one(text: Text, mistake: Any) -> str:
    where = _written(mistake["loc"])
    name = ".".join(str(part) for part in where) or "the product"
    prefix = f"{text.path}:{text.line_of(where)}: {name}"
    context = mistake.get("ctx", {})
    match mistake["type"]:
        case "missing":
            return f"{prefix} is missing; add it"
        case "extra_forbidden":
            return f"{prefix} is no known field; {_nearest(mistake['loc'])}"
        case "value_error":
            return f"{prefix}: {context['error']}"
        case "literal_error" | "enum" | "union_tag_invalid":
            allowed = context.get("expected", context.get("expected_tags"))
            return f"{prefix} is {_shown(text, where)}; allowed: {allowed}"
        case _:
            return f"{prefix} is {_shown(text, where)}; allowed: {_claim(mistake['msg'])}"


def _written(loc: Where) -> Where:
    """pydantic's location as a person wrote it: without the tag of a union and the mark of a bad key."""
    where: Where = ()
    found: Any = Product
    for piece in loc:
        if piece == "[key]":
            continue
        if not _is_choice(found):
            where = (*where, piece)
        found = _inside(found, piece)
    return where


def _shown(text: Text, where: Where) -> str:
    value = text.value
    for part in where:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return "absent"
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 80 else f"{shown[:77]}…"  # noqa: PLR2004 - one terminal line


def _claim(message: str) -> str:
    """What pydantic says should be, in YAML's words: `Input should be a valid tuple` → `a valid list`."""
    claim = re.sub(r"^(Input|String|Tuple|Dictionary|List) should (be )?", "", message).replace(" after validation", "")
    return re.sub("tuple|array", "list", re.sub("dictionary|object", "mapping", claim))


def _nearest(loc: Where) -> str:
    allowed = _keys(_part_at(loc[:-1]))
    close = difflib.get_close_matches(str(loc[-1]), allowed, n=1)
    return f"did you mean {close[0]!r}? allowed: {allowed}" if close else f"remove it; allowed: {allowed}"


def _keys(part: type[Part]) -> list[str]:
    return sorted(info.alias or name for name, info in part.model_fields.items())


def _part_at(loc: Where) -> type[Part]:
    """The schema part a pydantic location leads to."""
    found: Any = Product
    for piece in loc:
        found = _inside(found, piece)
    return typing.cast(type[Part], _parts_of(found)[0])


def _is_choice(annotation: Any) -> bool:
    """Whether one of several things may stand here: parts, told apart by their `kind`, or a word and a list of them."""
    return len(_parts_of(annotation)) > 1


def _parts_of(annotation: Any) -> list[Any]:
    """What may stand here, without None and without pydantic's tags."""
    if get_origin(annotation) is typing.Annotated:
        return _parts_of(get_args(annotation)[0])
    if isinstance(annotation, types.UnionType) or get_origin(annotation) is typing.Union:
        return [part for inner in get_args(annotation) for part in _parts_of(inner)]
    return [] if annotation is type(None) else [annotation]


def _is_tagged(part: Any, tag: str | int) -> bool:
    if isinstance(part, type) and issubclass(part, Part):
        return tag in get_args(part.model_fields["kind"].annotation)
    return str(tag).startswith("tuple") is (get_origin(part) is tuple)


def _inside(annotation: Any, piece: str | int) -> Any:
    """What the schema has below `annotation` at one piece of a location; None where it has nothing."""
    if _is_choice(annotation):  # the piece is the tag: a `kind`, or pydantic's name for a list
        return next(p for p in _parts_of(annotation) if _is_tagged(p, piece))
    annotation = next(iter(_parts_of(annotation)), None)
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return next((i.annotation for n, i in annotation.model_fields.items() if piece == (i.alias or n)), None)
    if get_origin(annotation) is dict:
        return get_args(annotation)[1]
    return get_args(annotation)[0] if get_origin(annotation) is tuple else None
