"""The model package: a few files, a manifest of their digests, a signature. Nothing in it is ever unpickled.

Which files depends on the kind of model, which `schema.json` names: all kinds have weights, encoder, schema, reference,
golden rows and facts; the network itself is an ONNX graph of a tabular model, and the sizes of a language model.

A package lies at an address made of its own digest, so writing it twice writes the same bytes, and a crash half way
leaves a folder without a manifest, which nobody opens and the next attempt completes. All content is in memory before
the first write; that is why no attempt folder is needed.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearway.contracts.errors import IntegrityError
from clearway.contracts.manifest import FileEntry, Manifest, canonical_json, sha256_of
from clearway.contracts.refs import ModelRef
from clearway.infra.faults import fault
from clearway.infra.layout import Layout
from clearway.infra.storage import Storage, join
from clearway.packaging.encoder import TABULAR, Encoder
from clearway.packaging.scorer import RowEncoder
from clearway.packaging.signing import sign, verify
from clearway.packaging.text import LANGUAGE, TextEncoder

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
MODEL, SHAPE, WEIGHTS, ENCODER = "model.onnx", "shape.json", "weights.safetensors", "encoder.json"
SCHEMA, REFERENCE, GOLDEN, FACTS = "schema.json", "reference.json", "golden.json", "facts.json"
# By kind: the file that holds the network, and what reads the encoder.
NETWORK = {TABULAR: MODEL, LANGUAGE: SHAPE}
_ENCODERS: dict[str, Callable[[bytes], RowEncoder]] = {TABULAR: Encoder.from_json, LANGUAGE: TextEncoder.from_json}
FILES_OF = {
    kind: tuple(sorted((network, WEIGHTS, ENCODER, SCHEMA, REFERENCE, GOLDEN, FACTS)))
    for kind, network in NETWORK.items()
}
FILES = FILES_OF[TABULAR]
_KNOWN_FILES = frozenset().union(*FILES_OF.values())
MAX_GOLDEN_ROWS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageContents:
    """What goes into a package.

    Args:
        model: the network. Tabular: ONNX; inputs `numeric` float32 [B, N] and `categorical` int64 [B, C], output
            `score` float32 [B]. Language: the sizes as JSON (clearway.language.shape).
        weights: its parameters as safetensors.
        encoder: turns rows into what the network takes; its kind is the package's.
        schema: columns with their types, allowed categories, label; `kind` is added.
        reference: distributions of the training period, for drift (clearway.measures.distance).
        golden: {"rows": at most 32 row dicts, "scores": their scores}, re-computed wherever the package is loaded.
        facts: where the model came from: dataset digest, seeds, parameters, commit, holdout start.
    """

    model: bytes
    weights: bytes
    encoder: RowEncoder
    schema: dict[str, Any]
    reference: dict[str, Any]
    golden: dict[str, Any]
    facts: dict[str, Any]

    def __post_init__(self) -> None:
        num_rows, num_scores = len(self.golden["rows"]), len(self.golden["scores"])
        if not 1 <= num_rows <= MAX_GOLDEN_ROWS or num_rows != num_scores:
            raise ValueError(
                f"golden has {num_rows} rows and {num_scores} scores; allowed: 1 to {MAX_GOLDEN_ROWS} of each"
            )

    def files(self) -> dict[str, bytes]:
        """File name → bytes."""
        return {
            NETWORK[self.encoder.kind]: self.model,
            WEIGHTS: self.weights,
            ENCODER: self.encoder.to_json(),
            SCHEMA: canonical_json({**self.schema, "kind": self.encoder.kind}),
            REFERENCE: canonical_json(self.reference),
            GOLDEN: canonical_json(self.golden),
            FACTS: canonical_json(self.facts),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A verified package; everything is served from the bytes that were verified."""

    uri: str
    digest: str
    encoder: RowEncoder
    schema: dict[str, Any]
    reference: dict[str, Any]
    golden: dict[str, Any]
    facts: dict[str, Any]
    files: Mapping[str, bytes]

    @property
    def kind(self) -> str:
        """Which kind of model it is, as product.yaml names it."""
        return self.encoder.kind

    def read(self, name: str) -> bytes:
        """Bytes of one file, by its name in the package (KeyError for any other)."""
        return self.files[name]


def write_package(storage: Storage, layout: Layout, contents: PackageContents, *, key_folder: Path) -> ModelRef:
    """Store and sign; the same contents again give the same reference, and heal a damaged or unfinished copy."""
    files = contents.files()
    manifest = _manifest_of(files)
    ref = ModelRef(uri=layout.model(manifest.digest), digest=manifest.digest)
    if storage.exists(join(ref.uri, MANIFEST)) and _is_intact(storage, ref, key_folder):
        return ref
    for name, data in files.items():
        storage.write(join(ref.uri, name), data)
    fault("package.before_manifest")
    storage.write(join(ref.uri, SIGNATURE), sign(manifest.to_json(), key_folder=key_folder))
    storage.write(join(ref.uri, MANIFEST), manifest.to_json())
    return ref


def open_package(storage: Storage, ref_uri: str, digest: str, *, key_folder: Path) -> Package:
    """Verify the signature and every byte, then hand out what was verified.

    Raises: IntegrityError naming the first file that is absent or differs, before anything is parsed or loaded.
    """
    files = _verified_files(storage, ref_uri, digest, key_folder)
    parsed = {name: json.loads(files[name]) for name in (SCHEMA, REFERENCE, GOLDEN, FACTS)}
    kind = parsed[SCHEMA].get("kind", TABULAR)  # packages of the time before there were kinds say nothing
    if FILES_OF.get(kind) != tuple(files):
        raise IntegrityError(
            f"package {ref_uri} says it is {kind!r} and holds {list(files)}; it was made by other code"
        )
    return Package(
        uri=ref_uri,
        digest=digest,
        encoder=_ENCODERS[kind](files[ENCODER]),
        schema=parsed[SCHEMA],
        reference=parsed[REFERENCE],
        golden=parsed[GOLDEN],
        facts=parsed[FACTS],
        files=files,
    )


def copy_package(storage: Storage, uri: str, digest: str, *, target: Storage, folder: str) -> None:
    """Copy a package's bytes, the manifest last, without which a copy does not count. They are verified when opened.

    Raises: IntegrityError for a manifest of another digest, or a file that is not there.
    """
    manifest_bytes = _read(storage, uri, MANIFEST)
    _check_digest(manifest_bytes, uri, digest)
    named = {entry.name for entry in Manifest.from_json(manifest_bytes).files}
    for name in (*sorted(named & _KNOWN_FILES), SIGNATURE):
        target.write(join(folder, name), _read(storage, uri, name))
    target.write(join(folder, MANIFEST), manifest_bytes)


def _check_digest(manifest_bytes: bytes, uri: str, digest: str) -> None:
    found = sha256_of(manifest_bytes)
    if found != digest:
        raise IntegrityError(f"manifest of {uri} has digest {found}, expected {digest}; it was changed, train again")


def _manifest_of(files: Mapping[str, bytes]) -> Manifest:
    entries = (
        FileEntry(name=name, num_rows=0, num_bytes=len(data), sha256=sha256_of(data))
        for name, data in sorted(files.items())
    )
    return Manifest(files=tuple(entries), facts={"kind": "model package", "layout": 1})


def _is_intact(storage: Storage, ref: ModelRef, key_folder: Path) -> bool:
    try:
        _verified_files(storage, ref.uri, ref.digest, key_folder)
    except IntegrityError:
        return False
    return True


def _verified_files(storage: Storage, uri: str, digest: str, key_folder: Path) -> dict[str, bytes]:
    manifest_bytes = _read(storage, uri, MANIFEST)
    _check_digest(manifest_bytes, uri, digest)
    verify(manifest_bytes, _read(storage, uri, SIGNATURE), key_folder=key_folder)
    manifest = Manifest.from_json(manifest_bytes)
    names = tuple(entry.name for entry in manifest.files)
    if names not in FILES_OF.values():
        raise IntegrityError(
            f"package {uri} lists files {list(names)}, allowed: {list(FILES_OF.values())}; it was made by other code"
        )
    files = {}
    for entry in manifest.files:
        data = _read(storage, uri, entry.name)
        if sha256_of(data) != entry.sha256:
            raise IntegrityError(
                f"file {entry.name!r} of {uri} has other bytes than its signed manifest says; train again"
            )
        files[entry.name] = data
    return files


def _read(storage: Storage, uri: str, name: str) -> bytes:
    try:
        return storage.read(join(uri, name))
    except FileNotFoundError as error:
        raise IntegrityError(f"package {uri} has no file {name!r}; it was never finished, train again") from error
