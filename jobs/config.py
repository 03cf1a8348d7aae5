"""Load and validate configurations: YAML files with `key=value` overrides.

Every error names the key, its line or override, and what to write instead.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from echo_targets.jobs.stages import SEGMENT, STAGES, check_together, in_order, is_import_path, transform_of
from echo_targets.pipeline.devices import NAMES, is_device, local_gpus
from echo_targets.pipeline.lease import WhenBusy
from echo_targets.pipeline.runners.base import Runner
from echo_targets.pipeline.runners.beam.options import BeamOptions
from echo_targets.pipeline.runners.beam.runner import BeamRunner
from echo_targets.pipeline.runners.local import LocalRunner
from echo_targets.pipeline.runners.ray.options import RayOptions
from echo_targets.pipeline.runners.ray.runner import RayRunner
from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.sources.base import Source

CONFIGS = Path(__file__).parent / "configs"
MARK = "\0"
LEAST_SECRET = 8
"""Characters of a value that is looked for in recorded parameters of another name. A shorter one is there by chance."""

Key: TypeAlias = tuple[str, ...]
"""Keys that lead to a value, such as ("stages", "ingest", "sources", "0", "manifest")."""


class ConfigError(UserError):
    """An invalid configuration; the message names the file, the line, the key and the remedy."""


class ExecutionConfig(BaseModel):
    """Where and how shards are processed.

    Attributes:
        runner: `local` (processes on this machine), `ray` (a Ray cluster) or `beam` (any Apache Beam runner).
        workers: number of `local` processes, each with its own models; they share the machine's threads equally.
        ray, beam: options of those runners.
        device: of the models: `cpu`, `cuda`, or one GPU of this machine, `cuda:N`. With `cuda`, workers on this machine
            are spread over its GPUs.
        batch_seconds: padded seconds of audio in a batch: the longest item times the number of items.
        hang_factor: a worker process is replaced if a batch takes longer than ten minutes plus this factor times its
            padded seconds; a row that takes so long alone is rejected (`hung`).
        when_busy: what to do if another driver is running on the root: `wait` for it or `refuse` to start.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    runner: Literal["local", "ray", "beam"] = "local"
    workers: PositiveInt = 1
    ray: RayOptions = RayOptions.model_validate({})
    beam: BeamOptions = BeamOptions.model_validate({})
    device: str = "cpu"
    batch_seconds: PositiveFloat = 240.0
    hang_factor: PositiveFloat = 30.0
    when_busy: WhenBusy = "refuse"

    @field_validator("device")
    @classmethod
    def _can_run(cls, device: str, others: ValidationInfo) -> str:
        if not is_device(device):
            raise ValueError(f"Input should be {NAMES}")
        ray = others.data.get("ray")
        if device != "cpu" and others.data.get("runner") == "ray" and ray and not ray.gpus_per_worker:
            raise ValueError("Ray gives its workers no GPU; set ray.gpus_per_worker=1, or a fraction, or device=cpu")
        return device

    def gpus(self) -> tuple[str, ...]:
        """Return this machine's GPUs to spread workers over, as `local_gpus` does; none if workers run elsewhere.

        Raises:
            UserError: workers run here, and the device does not exist here.
        """
        elsewhere = self.runner == "ray" or (self.runner == "beam" and self.beam.is_remote)
        return () if elsewhere else local_gpus(self.device)

    def open_runner(self) -> Runner:
        """Return the configured runner, to be used as a context manager.

        Raises:
            UserError: the runner's library is not installed, its options are invalid, or `gpus` raises.
        """
        if self.runner == "ray":
            return RayRunner(self.ray)
        if self.runner == "beam":
            return BeamRunner(self.beam, self.gpus())
        return LocalRunner(self.workers, gpus=self.gpus())


class JobConfig(ExecutionConfig):
    """Configuration of `echo-targets run`.

    Attributes:
        root: folder or URL that the tables are written to.
        shard_hours: hours of audio per shard.
        max_reject_fraction: a shard of which a stage rejects more than this fraction is not committed, and the job
            exits with code 1.
        allow_empty: True if a table may become current though filters dropped all of its rows.
        stages: parameters of each stage to run.
    """

    root: str
    shard_hours: PositiveFloat = 30.0
    max_reject_fraction: float = Field(0.05, ge=0, le=1)
    allow_empty: bool = False
    stages: dict[str, dict[str, Any]]

    def specs(self) -> list[StageSpec]:
        """Return the stages in pipeline order, with validated parameters."""
        return [
            StageSpec(STAGES.get(name, name), self.stages[name], self.device, self.batch_seconds, self.hang_factor)
            for name in in_order(self.stages)
            if name != SEGMENT or len(self.stages) == 1
        ]

    @property
    def recordings(self) -> JobConfig | None:
        """The job that runs first and cuts recordings, with the stage segment alone; None if there is no such stage.

        It has a root of its own, from which ingest's sources of kind `cuts` list the cuts.
        """
        if SEGMENT not in self.stages or len(self.stages) == 1:
            return None
        root = next(source["root"] for source in self.stages["ingest"]["sources"] if source["kind"] == "cuts")
        return self.model_copy(update={"root": root, "stages": {SEGMENT: self.stages[SEGMENT]}})


def load(config: str, overrides: list[str]) -> JobConfig:
    """Load and validate a job configuration.

    Args:
        config: a YAML file, or the name of a shipped configuration (`demo`, `folder`).
        overrides: `key=value` pairs; dots reach nested keys.

    Raises:
        ConfigError: the configuration is invalid; the message lists every problem of the first section with any.
    """
    path = find(config)
    values, from_environment = _values(path, overrides)
    try:
        parsed = JobConfig.model_validate(values)
    except ValidationError as error:
        raise _explain(error, path, overrides, (), JobConfig) from None
    stages: dict[str, dict[str, Any]] = {}
    for name, parameters in parsed.stages.items():
        if name not in STAGES and not is_import_path(name):
            own = "; a stage of your own is named module:Class" if "." in name else ""
            raise ConfigError(_place(path, overrides, ("stages", name)) + _unknown(name, STAGES) + own)
        try:
            kind = transform_of(name).Parameters
        except UserError as error:
            raise ConfigError(_place(path, overrides, ("stages", name)) + str(error)) from error
        try:
            stages[name] = kind.model_validate(parameters or {}).model_dump(mode="json")
        except ValidationError as error:
            raise _explain(error, path, overrides, ("stages", name), kind) from None
    if "ingest" not in stages:
        raise ConfigError(f"{path}: stages.ingest is missing. Add it with the sources to ingest.")
    try:
        in_order(stages)
        check_together(stages, parsed.root)
    except UserError as error:
        raise ConfigError(f"{path}: {error}") from error
    settings = parsed.model_copy(update={"stages": stages})
    for key, value in from_environment.items():
        if key == ("shard_hours",) or (key[0] == "stages" and _is_recorded(settings, key[1], key[2:], value)):
            raise ConfigError(
                _place(path, overrides, key) + "comes from an environment variable, which may hold a secret, but is "
                f'written to the root. If it may be read there, pass it as {".".join(key)}="$NAME" on the command line.'
            )
    return settings


def execution(overrides: list[str]) -> ExecutionConfig:
    """Return the execution config of a command that takes overrides but no configuration file.

    Raises:
        ConfigError: an override is invalid; the message lists every problem.
    """
    try:
        return ExecutionConfig.model_validate(read_values(None, overrides))
    except ValidationError as error:
        raise _explain(error, None, overrides, (), ExecutionConfig) from None


def find(config: str) -> Path:
    """Return the path of a configuration given as a file or as the name of a shipped one.

    Raises:
        ConfigError: there is neither such a file nor a shipped configuration of that name.
    """
    for path in (Path(config), CONFIGS / f"{config}.yaml"):
        if path.is_file():
            return path
    shipped = sorted(path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.yaml"))
    jobs, trainings = ([name for name in shipped if name.startswith("train-") is wanted] for wanted in (False, True))
    raise ConfigError(
        f"{config}: neither a file nor a shipped configuration. Shipped jobs are {', '.join(jobs)}; "
        f"trainings are {', '.join(trainings)}."
    )


def read_values(path: Path | None, overrides: list[str]) -> dict[str, Any]:
    """Return the values of an optional YAML file with overrides applied and `${…}` resolved.

    Raises:
        ConfigError: the file is not YAML, a value is missing, or an override is not `key=value`.
    """
    return _resolved(path, overrides)[0]


def _resolved(path: Path | None, overrides: list[str]) -> tuple[dict[str, Any], dict[Key, Any]]:
    """Return the values of `read_values`, and those of them that come from environment variables, by key."""
    for override in overrides:
        if not re.match(r"[\w.\[\]-]+=", override):
            raise ConfigError(f"{override!r} is not of the form key=value")
    try:
        merged = OmegaConf.load(path) if path else OmegaConf.create()
        for override in overrides:
            _override(merged, override)
        if missing := list(_missing(OmegaConf.to_container(merged))):
            given = " ".join(f"{'.'.join(key)}=…" for key in missing)
            raise ConfigError(_place(path, [], missing[0]) + f"needs a value. Add {given} to the command.")
        values = OmegaConf.to_container(merged, resolve=True)
        marked = _marked(merged)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"{path}, line {line}: invalid YAML: {error.problem}") from error
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{path or 'command line'}: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values at the top level")
    leaves = dict(_leaves(values))
    from_environment = {key: leaves.get(key) for key, value in _leaves(marked) if MARK in str(value)}
    return {str(key): value for key, value in values.items()}, from_environment


def _marked(values: DictConfig | ListConfig) -> Any:
    """Return the resolved values with a mark in each that comes from an environment variable, even through others."""
    register = getattr(OmegaConf, "register_resolver", OmegaConf.register_new_resolver)  # renamed in omegaconf 2.4
    register("oc.env", lambda name, default=None: f"{MARK}{name}", replace=True)
    register("oc.decode", lambda text: text, replace=True)
    try:
        return OmegaConf.to_container(values, resolve=True)
    finally:
        register("oc.env", oc.env, replace=True)
        register("oc.decode", oc.decode, replace=True)


def _leaves(value: Any, key: Key = ()) -> Iterator[tuple[Key, Any]]:
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, (*key, str(name)))
    else:
        yield key, value


def _is_recorded(settings: JobConfig, stage: str, key: Key, value: Any) -> bool:
    """Return True if a stage's parameter is written to the root: to `recipe.json` and the card, or to each row."""
    kind = transform_of(stage)
    try:
        recorded = kind(
            kind.Parameters.model_validate(settings.stages[stage]), settings.device
        ).fingerprint_parameters()
    except UserError:  # a model is missing, so nothing can be recorded either
        recorded = {}
    of_rows = stage in ("ingest", SEGMENT) and key[0] == "sources" and key[2:] in [(name,) for name in Source.of_rows]
    written = dict(_leaves(recorded))
    copied = isinstance(value, str) and len(value) >= LEAST_SECRET and any(value in str(v) for v in written.values())
    return of_rows or copied or key in written


def _missing(values: Any, *key: str) -> Iterator[tuple[str, ...]]:
    """Yield the keys whose value is `???`, but not those whose `${…}` refers to one."""
    if values == "???":
        yield key
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for name, value in inner:
        yield from _missing(value, *key, str(name))


def _override(values: DictConfig | ListConfig, override: str) -> None:
    """Apply one `key=value`; a number in the key is a list index."""
    try:
        values.merge_with_dotlist([override])
    except (OmegaConfBaseException, IndexError, TypeError) as error:
        raise ConfigError(f"{override!r} on the command line: {str(error).splitlines()[0]}") from error


def _values(path: Path, overrides: list[str]) -> tuple[dict[str, Any], dict[Key, Any]]:
    values, from_environment = _resolved(path, overrides)
    variables = set(re.findall(r"\$\{(\w+)\}", path.read_text(encoding="utf-8"))) - JobConfig.model_fields.keys()
    if isinstance(values.get("stages"), dict):
        values["stages"] = {name: parameters or {} for name, parameters in values["stages"].items()}
    return {key: value for key, value in values.items() if key not in variables}, from_environment


def _explain(
    error: ValidationError, path: Path | None, overrides: list[str], prefix: tuple[str, ...], kind: type[BaseModel]
) -> ConfigError:
    lines = []
    for problem in error.errors():
        inner, keys = _walk(kind, problem["loc"])
        where = prefix + keys
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = _unknown(where[-1], inner.model_fields)
        elif problem["type"] == "missing":
            message = "is missing"
        elif not isinstance(problem["input"], dict | list):
            message = f"{message}, not {problem['input']!r}"
        lines.append(_place(path, overrides, where) + message)
    return ConfigError("\n".join(lines))


def _walk(kind: type[BaseModel], place: tuple[int | str, ...]) -> tuple[type[BaseModel], tuple[str, ...]]:
    """Return the model of a nested section and the keys that lead to it.

    Pydantic's error locations also contain the tags of union members; these are left out of the keys.
    """
    members, keys = [kind], list[str]()
    for part in place:
        if len(members) > 1 and (tagged := [one for one in members if part in _kinds(one)]):
            members = tagged
            continue
        keys.append(str(part))
        if field := members[0].model_fields.get(str(part)):
            members = list(_models(field.annotation)) or members
    return members[0], tuple(keys)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _kinds(model: type[BaseModel]) -> tuple[Any, ...]:
    field = model.model_fields.get("kind")
    return get_args(field.annotation) if field else ()


def _unknown(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f"unknown key; did you mean {close[0]}?" if close else f"unknown key; known keys are {', '.join(known)}"


def _place(path: Path | None, overrides: list[str], where: tuple[str, ...]) -> str:
    """Return the message prefix that says where a key was given: on the command line, or at a line of the file."""
    key = ".".join(where)
    for override in overrides:
        name = override.partition("=")[0]
        if key == name or key.startswith(f"{name}."):
            return f"{override!r} on the command line: {key}: "
    line = _line(path, where) if path else None
    return f"{path}, line {line}: {key}: " if line else f"{path}: {key}: "


def _line(path: Path, where: tuple[str, ...]) -> int | None:
    """Return the line number of a key in the file, or of its nearest enclosing key that is present."""
    node, line = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader), None
    for part in where:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == part), None)
            if found is None:
                continue
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
            node = node.value[int(part)]
            line = node.start_mark.line + 1
    return line
