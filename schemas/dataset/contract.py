"""The published contract: what a table holds, as JSON that is reviewed, and what a change of it asks of its version.

python -m echo_targets.schemas.dataset.contract      writes schemas/contract/<table>.json anew
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from echo_targets.schemas import TABLES
from echo_targets.schemas.dataset.check import Finding
from echo_targets.schemas.dataset.layout import INDEX, Dataset
from echo_targets.schemas.dataset.storage import open_storage, split
from echo_targets.schemas.errors import UserError
from echo_targets.schemas.tables.base import Table

FOLDER = Path(__file__).parents[1] / "contract"


@dataclass(frozen=True)
class Column:
    """A column: its Arrow type as pyarrow writes it, whether it may be null, and what it means where that is known."""

    name: str
    type: str
    nullable: bool
    means: str | None = None

    def __str__(self) -> str:
        return f"{self.type}{'' if self.nullable else ' not null'}"


@dataclass(frozen=True)
class Contract:
    """What a table promises. A shard tells its columns and version alone: `rules` is then None, and so is `means`."""

    table: str
    schema_version: str
    columns: tuple[Column, ...]
    rules: dict[str, str] | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\d+\.\d+\.\d+", self.schema_version):
            raise ValueError(f"schema_version is {self.schema_version!r}, not like 1.2.3")

    @property
    def version(self) -> tuple[int, ...]:
        """Major, minor and patch."""
        return tuple(map(int, self.schema_version.split(".")))

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: bytes, where: str) -> Contract:
        """Raises UserError: it is not a contract."""
        try:
            data = json.loads(text)
            columns = tuple(Column(**column) for column in data.pop("columns"))
            return cls(columns=columns, **data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{where}: not a contract ({error!r})") from error


@dataclass(frozen=True)
class Change:
    """What one contract says otherwise than another, and whether a reader or a writer of the other breaks by it."""

    breaking: bool
    says: str


def contract_of(table: Table) -> Contract:
    """What this version's code promises of a table."""
    named = ((field.name, str(field.type), field.nullable) for field in table.schema)
    columns = tuple(Column(*column, table.means.get(column[0])) for column in named)
    rules = {rule.name: rule.says for rule in (*table.rules, *table.cross_rules)}
    return Contract(table.name, table.version, columns, rules)


def written(schema: pa.Schema, name: str, version: str) -> Contract:
    """What a shard's file tells."""
    return Contract(name, version, tuple(Column(field.name, str(field.type), field.nullable) for field in schema))


def read(place: str) -> tuple[dict[str, Contract], bool]:
    """Contracts from a contract file, a folder of them, a dataset's root or one Parquet shard.

    Returns:
        The contracts by table, and whether they are all that there is of their kind: in a lone file, or where a
        dataset does without a table, a missing table says nothing.

    Raises:
        UserError: there is nothing of the kind, or it is damaged.
    """
    folder, name = split(place)
    if place.endswith(".parquet"):
        contract = _of_shard(Dataset(folder), name)
        return {contract.table: contract}, False
    storage = open_storage(folder if place.endswith(".json") else place)
    if place.endswith(".json"):
        if storage.size(name) is None:
            raise UserError(f"{place}: no such contract")
        contract = Contract.from_json(storage.read(name), place)
        return {contract.table: contract}, False
    if storage.size(INDEX) is not None:
        return {contract.table: contract for contract in _of_dataset(Dataset(place))}, False
    files = [path for folder in ("", "training") for path in _contracts_in(storage.list(folder), folder)]
    contracts = [Contract.from_json(storage.read(path), storage.where(path)) for path in files]
    if not contracts:
        raise UserError(f"{place}: no contracts (<table>.json), no dataset ({INDEX}), no Parquet file")
    return {contract.table: contract for contract in contracts}, True


def _contracts_in(names: list[str], folder: str) -> list[str]:
    return [f"{folder}/{name}".lstrip("/") for name in names if name.endswith(".json")]


def _of_shard(dataset: Dataset, path: str) -> Contract:
    try:
        with dataset.open(path) as file:
            about = file.schema_arrow.metadata or {}
            name, version = (about.get(key, b"").decode() for key in (b"schema_name", b"schema_version"))
            if not name:
                raise ValueError("its metadata has no schema_name")
            return written(file.schema_arrow, name, version)
    except (ValueError, FileNotFoundError) as error:
        raise UserError(f"{dataset.where(path)}: not a shard ({error})") from error


def _of_dataset(dataset: Dataset) -> Iterator[Contract]:
    for table in dataset.tables():
        manifest = next(dataset.manifests(table), None)
        if manifest is not None:
            yield _of_shard(dataset, manifest.output.path)


def compare(old: Contract, new: Contract) -> list[Change]:
    """What became of a contract. Nothing that only one side knows is compared."""
    return [*_columns(old, new), *_rules(old, new)]


def _columns(old: Contract, new: Contract) -> Iterator[Change]:
    before, after = ({column.name: column for column in contract.columns} for contract in (old, new))
    for name in (name for name in before if name not in after):
        yield Change(True, f"column {name} ({before[name]}) is gone")
    for name, column in after.items():
        if name not in before:
            yield Change(not column.nullable, f"column {name} ({column}) is new")
            continue
        was = before[name]
        if (was.type, was.nullable) != (column.type, column.nullable):
            yield Change(True, f"column {name} was {was} and is {column}")
        if was.means and column.means and was.means != column.means:
            yield Change(True, f"column {name} meant “{was.means}” and means “{column.means}”")
    if [name for name in before if name in after] != [name for name in after if name in before]:
        yield Change(True, "columns come in another order")


def _rules(old: Contract, new: Contract) -> Iterator[Change]:
    if old.rules is None or new.rules is None:
        return
    for name, says in old.rules.items():
        if name not in new.rules:
            yield Change(False, f"rule {name} is gone: {says}")
        elif says != (now := new.rules[name]):
            yield Change(not _looser(says, now), f"rule {name} said “{says}” and says “{now}”")
    for name in (name for name in new.rules if name not in old.rules):
        yield Change(True, f"rule {name} is new: {new.rules[name]}")


def _looser(was: str, now: str) -> bool:
    """Whether a statement allows all that it did: a wider range, or more words. What can't be told is not looser."""
    ranges = [re.fullmatch(r"(.+) is in \[(\S+), (\S+)\]", says) for says in (was, now)]
    words = [re.fullmatch(r"(.+) is one of (.+)", says) for says in (was, now)]
    if (a := ranges[0]) and (b := ranges[1]) and a[1] == b[1]:
        return float(b[2]) <= float(a[2]) and float(a[3]) <= float(b[3])
    if (a := words[0]) and (b := words[1]) and a[1] == b[1]:
        return set(a[2].split(", ")) <= set(b[2].split(", "))
    return False


def misfit(old: Contract, new: Contract, changes: list[Change]) -> str | None:
    """What is wrong with the new version, if anything: a breaking change wants a new major, any other a new minor."""
    major, minor, _ = old.version
    if new.version < old.version:
        return f"schema_version went back from {old.schema_version} to {new.schema_version}"
    if any(change.breaking for change in changes) and new.version[0] == major:
        return f"schema_version is {new.schema_version}; what breaks wants {major + 1}.0.0"
    if changes and new.version[:2] == (major, minor):
        return f"schema_version is {new.schema_version}; what changes wants {major}.{minor + 1}.0"
    return None


def changes_since(place: str, now: str | None) -> Iterator[Finding]:
    """What changed since another contract, as findings; what a reader can live with is a remark.

    Args:
        place: the other contract, as `read` takes it.
        now: what is compared with it, likewise; None for this version's contract.

    Raises:
        UserError: as `read`; or the two have no table in common.
    """
    before, whole = read(place)
    after = read(now)[0] if now else {table.name: contract_of(table) for table in TABLES.values()}
    if not before.keys() & after.keys():
        raise UserError(f"{place} and {now or 'this version'} have no table in common")
    for name, old in before.items():
        if (new := after.get(name)) is None:
            if whole and now is None:
                yield Finding(name, "-", "breaking", "the table is gone")
            continue
        changes = compare(old, new)
        for change in changes:
            kind = "breaking" if change.breaking else "compatible"
            yield Finding(name, "-", kind, change.says, breaks=change.breaking)
        if wrong := misfit(old, new, changes):
            yield Finding(name, "-", "schema_version", wrong)
    if whole:
        for name in (name for name in after if name not in before):
            yield Finding(name, "-", "compatible", "the table is new", breaks=False)


def main(folder: Path = FOLDER) -> None:
    """Writes the contract of every table, and removes those of tables that are no more."""
    wanted = {folder / f"{table.name}.json": contract_of(table).to_json() for table in TABLES.values()}
    for path in set(folder.rglob("*.json")) - wanted.keys():
        path.unlink()
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(f"{folder}: {len(wanted)} contracts", file=sys.stderr)


if __name__ == "__main__":
    main()
