"""Reference pages name every field there is, and no other."""

import re
import types
from collections.abc import Iterator
from typing import Any, get_args

import pydantic
import pytest

from clearway.infra.environment import PREFIX, Environment, project_root
from clearway.product import Product

ROOT = project_root()
PRODUCT_PAGE = (ROOT / "docs" / "reference" / "product.md").read_text(encoding="utf-8")
SETTINGS_PAGE = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")


def parts_in(annotation: Any) -> Iterator[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    elif not isinstance(annotation, types.GenericAlias) or get_args(annotation):
        for inner in get_args(annotation):
            yield from parts_in(inner)


def fields_of(part: type[pydantic.BaseModel]) -> Iterator[tuple[str, str]]:
    """(section, field) for every field, however deep."""
    for name, info in part.model_fields.items():
        written = info.alias or name
        inner = list(parts_in(info.annotation))
        if not inner:
            yield part.__name__, written
        for below in inner:
            yield from fields_of(below)


@pytest.mark.parametrize(("section", "field"), sorted(set(fields_of(Product))))
def test_every_field_of_a_product_is_explained(section: str, field: str) -> None:
    assert re.search(rf"`(?:[a-z_<>.]+\.)?{re.escape(field)}`", PRODUCT_PAGE), f"{section}.{field}"


def test_every_setting_is_explained_and_no_other() -> None:
    exists = {"HOME", "PRODUCTS"} | {
        f"{section.upper()}__{field.upper()}"
        for section, info in Environment.model_fields.items()
        for part in parts_in(info.annotation)
        for field, about in part.model_fields.items()
        if field != "kind" or len(get_args(about.annotation)) > 1
    }
    explained = set(re.findall(rf"^\| `{PREFIX}([A-Z_]+)`", SETTINGS_PAGE, re.MULTILINE))
    assert explained == exists


def test_every_local_link_leads_somewhere() -> None:
    broken = []
    for page in [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "include").rglob("*.md"),
        *(ROOT / "tests").glob("*.md"),
    ]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)} → {target}")
    assert broken == []


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    pages = [page for page in sorted(folder.glob("*.md")) if page.name != "README.md"]
    assert [page.name for page in pages if f"({page.name})" not in index] == []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert all(f"\n## {part}\n" in text for part in ("Context", "Decision", "Consequences")), page.name
        assert "\nStatus: " in text, page.name


def test_every_room_is_on_the_floors() -> None:
    rooms = {p.name for p in (ROOT / "include" / "clearway").iterdir() if (p / "__init__.py").is_file()}
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert [room for room in sorted(rooms) if not re.search(rf"\b{room}\b", text)] == []
