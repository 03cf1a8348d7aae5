"""The published contract of each table as JSON for review, and the version bump that a change requires.

python -m echo_targets.schemas.dataset.contract      regenerates schemas/contract/<table>.json
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
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
    """A column: its name, Arrow type as pyarrow prints it, nullability, and meaning if known."""

    name: str
    type: str
    nullable: bool
    means: str | None = None

    def __str__(self) -> str:
        return f"{self.type}{'' if self.nullable else ' not null'}"


@dataclass(frozen=True)
class Contract:
    """Columns, version and rules of a table; `rules` and the columns' `means` are None if read from a shard."""

    table: str
    schema_version: str
    columns: tuple[Column, ...]
    rules: dict[str, str] | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\d+\.\d+\.\d+", self.schema_version):
            raise ValueError(f"schema_version is {self.schema_version!r}, expected the form 1.2.3")

    @property
    def version(self) -> tuple[int, ...]:
        """Major, minor and patch number."""
        return tuple(map(int, self.schema_version.split(".")))

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: bytes, where: str) -> Contract:
        """Parse a contract.

        Args:
            text: JSON.
            where: name of the file, for the error message.

        Raises:
            UserError: the text is not a contract.
        """
        try:
            data = json.loads(text)
            columns = tuple(Column(**column) for column in data.pop("columns"))
            return cls(columns=columns, **data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{where}: invalid contract ({error!r})") from error


@dataclass(frozen=True)
class Change:
    """A difference between two contracts; `breaking` is True if it breaks readers or writers of the old one."""

    breaking: bool
    says: str


def contract_of(table: Table) -> Contract:
    """Return the contract of a table in this version of the code."""
    columns = tuple(replace(column, means=table.means.get(column.name)) for column in _named(table.schema))
    rules = {rule.name: rule.says for rule in (*table.rules, *table.cross_rules)}
    return Contract(table.name, table.version, columns, rules)


def written(schema: pa.Schema, name: str, version: str) -> Contract:
    """Return the contract of a shard file, without rules and meanings."""
    return Contract(name, version, tuple(_named(schema)))


def _named(fields: Iterable[pa.Field], prefix: str = "") -> Iterator[Column]:
    """Yield the columns; a struct is followed by its fields, named like `t2c.units`."""
    for field in fields:
        is_struct = pa.types.is_struct(field.type)
        yield Column(prefix + field.name, "struct" if is_struct else str(field.type), field.nullable)
        if is_struct:
            yield from _named(field.type, f"{prefix}{field.name}.")


def read(place: str) -> tuple[dict[str, Contract], bool]:
    """Read contracts from a contract file, a folder of contracts, a dataset root or one Parquet shard.

    Returns:
        The contracts by table, and True if the set is complete, so that a missing table was removed. Single files and
        datasets are never complete.

    Raises:
        UserError: the place holds no contract, or an invalid one.
    """
    folder, name = split(place)
    if place.endswith(".parquet"):
        contract = _of_shard(Dataset(folder), name)
        return {contract.table: contract}, False
    storage = open_storage(folder if place.endswith(".json") else place)
    if place.endswith(".json"):
        if storage.size(name) is None:
            raise UserError(f"{place}: no such file")
        contract = Contract.from_json(storage.read(name), place)
        return {contract.table: contract}, False
    if storage.size(INDEX) is not None:
        return {contract.table: contract for contract in _of_dataset(Dataset(place))}, False
    files = [path for folder in ("", "training") for path in _contracts_in(storage.list(folder), folder)]
    contracts = [Contract.from_json(storage.read(path), storage.where(path)) for path in files]
    if not contracts:
        raise UserError(
            f"{place}: neither a folder of contracts (<table>.json), nor a dataset root ({INDEX}), nor a Parquet file"
        )
    return {contract.table: contract for contract in contracts}, True


def _contracts_in(names: list[str], folder: str) -> list[str]:
    return [f"{folder}/{name}".lstrip("/") for name in names if name.endswith(".json")]


def _of_shard(dataset: Dataset, path: str) -> Contract:
    try:
        with dataset.open(path) as file:
            about = file.schema_arrow.metadata or {}
            name, version = (about.get(key, b"").decode() for key in (b"schema_name", b"schema_version"))
            if not name:
                raise ValueError("the file's metadata has no schema_name")
            return written(file.schema_arrow, name, version)
    except (ValueError, FileNotFoundError) as error:
        raise UserError(f"{dataset.where(path)}: not a shard ({error})") from error


def _of_dataset(dataset: Dataset) -> Iterator[Contract]:
    for table in dataset.tables():
        yield _of_shard(dataset, dataset.manifests(table)[0].output.path)


def compare(old: Contract, new: Contract) -> list[Change]:
    """Return the changes from one contract to another. Rules and meanings that one side does not know are ignored."""
    return [*_columns(old, new), *_rules(old, new)]


def _columns(old: Contract, new: Contract) -> Iterator[Change]:
    before, after = ({column.name: column for column in contract.columns} for contract in (old, new))
    for name in (name for name in before if name not in after):
        yield Change(True, f"column {name} ({before[name]}) was removed")
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
        yield Change(True, "the order of columns changed")


def _rules(old: Contract, new: Contract) -> Iterator[Change]:
    if old.rules is None or new.rules is None:
        return
    for name, says in old.rules.items():
        if name not in new.rules:
            yield Change(False, f"rule {name} was removed: {says}")
        elif says != (now := new.rules[name]):
            yield Change(not _looser(says, now), f"rule {name} said “{says}” and says “{now}”")
    for name in (name for name in new.rules if name not in old.rules):
        yield Change(True, f"rule {name} is new: {new.rules[name]}")


def _looser(was: str, now: str) -> bool:
    """Return True if a rule certainly allows all that it did: a range that contains the old one, or more words."""
    ranges = [re.fullmatch(r"(.+) is in \[(\S+), (\S+)\]", says) for says in (was, now)]
    words = [re.fullmatch(r"(.+) is one of (.+)", says) for says in (was, now)]
    if (a := ranges[0]) and (b := ranges[1]) and a[1] == b[1]:
        return float(b[2]) <= float(a[2]) and float(a[3]) <= float(b[3])
    if (a := words[0]) and (b := words[1]) and a[1] == b[1]:
        return set(a[2].split(", ")) <= set(b[2].split(", "))
    return False


def misfit(old: Contract, new: Contract, changes: list[Change]) -> str | None:
    """Return what is wrong with the new version number, or None.

    A breaking change requires a new major version, any other change a new minor version.
    """
    major, minor, _ = old.version
    if new.version < old.version:
        return f"schema_version went back from {old.schema_version} to {new.schema_version}"
    if any(change.breaking for change in changes) and new.version[0] == major:
        return f"schema_version is {new.schema_version}; a breaking change requires {major + 1}.0.0"
    if changes and new.version[:2] == (major, minor):
        return f"schema_version is {new.schema_version}; a change requires {major}.{minor + 1}.0"
    return None


def changes_since(place: str, now: str | None) -> Iterator[Finding]:
    """Yield the changes since another contract as findings; compatible changes are notices.

    Args:
        place: the old contract, as for `read`.
        now: the new contract, as for `read`; None for that of this code.

    Raises:
        UserError: as for `read`, or the two have no table in common.
    """
    before, whole = read(place)
    after = read(now)[0] if now else {table.name: contract_of(table) for table in TABLES.values()}
    if not before.keys() & after.keys():
        raise UserError(f"{place} and {now or 'this version'} have no table in common")
    for name, old in before.items():
        if (new := after.get(name)) is None:
            if whole and now is None:
                yield Finding(name, "-", "breaking", "the table was removed")
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
    """Write the contract of every table, and delete contracts of tables that no longer exist."""
    wanted = {folder / f"{table.name}.json": contract_of(table).to_json() for table in TABLES.values()}
    for path in set(folder.rglob("*.json")) - wanted.keys():
        path.unlink()
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(f"Wrote {len(wanted)} contracts to {folder}", file=sys.stderr)


if __name__ == "__main__":
    main()
