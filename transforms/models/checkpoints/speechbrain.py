"""speechbrain's files, parsed as data: speechbrain would construct the objects named in `hyperparams.yaml`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.files import read_pickled
from echo_targets.transforms.models.checkpoints.tensors import check_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

HYPERPARAMS = "hyperparams.yaml"
MOST_BYTES = 1_000_000


def need_speechbrain() -> None:
    """Check that speechbrain is installed.

    Raises:
        ModelError: it is not installed.
    """
    if find_spec("speechbrain") is None:
        raise ModelError("speechbrain is not installed: pip install 'echo-targets[speechbrain]'")


@dataclass(frozen=True)
class Tagged:
    """A value with a tag, such as `!new:torch.nn.ReLU`.

    Attributes:
        tag: `new:torch.nn.ReLU`.
        value: the tagged mapping, list or string.
    """

    tag: str
    value: Any

    @property
    def named(self) -> str:
        """The class or function that the tag names: `torch.nn.ReLU`."""
        return self.tag.partition(":")[2]


class _Loader(yaml.SafeLoader):
    """Parses YAML like hyperpyyaml (1.2), with inert tags.

    speechbrain's trainer writes an alias for everything that the recipe names twice. With all aliases expanded, the
    file may have at most `MOST_BYTES` characters, so that no later step can blow up.
    """

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _written_out(node, {}) > MOST_BYTES:
            raise yaml.YAMLError(f"its aliases expand to more than {MOST_BYTES:,} characters")
        return node


def _written_out(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Return a node's number of characters with its aliases expanded. Linear in the file's nodes."""
    if id(node) in known:
        if (size := known[id(node)]) is None:
            raise yaml.YAMLError("an alias contains itself")
        return size
    known[id(node)] = None
    if isinstance(node, yaml.ScalarNode):
        size = len(node.value)
    elif isinstance(node, yaml.MappingNode):
        size = sum(_written_out(part, known) for pair in node.value for part in pair)
    else:
        size = sum(_written_out(part, known) for part in node.value)
    known[id(node)] = size = size + len(node.tag)
    return size


def _tagged(loader: _Loader, tag: str, node: yaml.Node) -> Tagged:
    if isinstance(node, yaml.MappingNode):
        return Tagged(tag, loader.construct_mapping(node, deep=True))
    if isinstance(node, yaml.SequenceNode):
        return Tagged(tag, loader.construct_sequence(node, deep=True))
    return Tagged(tag, node.value)


_Loader.add_multi_constructor("!", _tagged)
_Loader.add_multi_constructor("tag:yaml.org,2002:python/", _tagged)  # `!!python/object/apply:`, in recipes of 2021
_EXPONENT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")
"""`1e-5` and `1.0e5` are numbers in YAML 1.2, and text to PyYAML."""
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


class Hyperparams:
    """The contents of `hyperparams.yaml`.

    Args:
        folder: the file's directory.

    Raises:
        ModelError: the file is missing, or is not YAML as speechbrain writes it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / HYPERPARAMS
        try:
            if self.path.stat().st_size > MOST_BYTES:
                raise ModelError(f"{self.path} has more than {MOST_BYTES:,} bytes: not hyperparameters")
            self._top = yaml.load(self.path.read_text(encoding="utf-8"), _Loader)
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
            raise ModelError(f"{self.path} can't be parsed ({error}); copy the whole speechbrain directory") from error
        if not isinstance(self._top, dict):
            raise ModelError(f"{self.path} is not a mapping; copy the whole speechbrain directory")

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value by name, with references resolved; the default if there is none."""
        return self.follow(self._top.get(name, default))

    def follow(self, value: Any) -> Any:
        """Return a value, or what it refers to by `!ref <name>`.

        Raises:
            ModelError: the reference is broken, circular, or more than a name.
        """
        for _ in range(len(self._top) + 1):
            if not isinstance(value, Tagged) or value.tag != "ref":
                return value
            name = str(value.value).removeprefix("<").removesuffix(">")
            if value.value != f"<{name}>" or name not in self._top:
                break
            value = self._top[name]
        raise ModelError(f"{self.path}: `!ref {value.value}` can't be resolved; replace it with the value")

    def given(self, name: str, *kinds: str) -> dict[str, Any]:
        """Return an object's constructor arguments as for `made`, with references resolved."""
        return self.arguments(self.made(name, *kinds))

    def arguments(self, written: dict[str, Any]) -> dict[str, Any]:
        """Return arguments with references resolved, also inside lists: `[null, null, !ref <size>]`."""
        followed = {key: self.follow(value) for key, value in written.items()}
        return {
            key: [self.follow(each) for each in value] if isinstance(value, list) else value
            for key, value in followed.items()
        }

    def made(self, name: str, *kinds: str) -> dict[str, Any]:
        """Return an object's constructor arguments as written.

        Args:
            name: of the object.
            kinds: allowed classes, by the last part of their names.

        Raises:
            ModelError: there is no such object, or it has another class.
        """
        made = self.get(name)
        if not isinstance(made, Tagged) or not made.tag.startswith("new:") or not isinstance(made.value, dict):
            raise ModelError(f"{self.path} has no `{name}: !new:` with {' or '.join(kinds)}")
        if made.named.rpartition(".")[2] not in kinds:
            raise ModelError(f"{self.path}: `{name}` is {made.named}; supported: {' or '.join(kinds)}")
        return made.value


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a `.ckpt` file, under torch's current names.

    Raises:
        ModelError: the file is missing, is damaged, or holds more than tensors.
    """
    return {_current_name(name): each for name, each in read_pickled(path).items()}


def _current_name(name: str) -> str:
    """Convert a weight-norm tensor name from before torch 2.1 to the current one."""
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        if name.endswith(f".{old}"):
            return f"{name.removesuffix(old)}parametrizations.weight.{new}"
    return name


def fill(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Assign tensors to a module that was made on the device `meta`; leaves it in float32 and evaluation mode.

    Raises:
        ModelError: the file's tensors do not match the module's.
    """
    check_tensors(path, module.state_dict(), state)
    module.load_state_dict(state, assign=True)
    module.float().eval()
