"""Files of speechbrain read as data: `hyperparams.yaml` makes objects of whatever it names, here it makes none."""

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
    """Make sure that speechbrain is installed.

    Raises:
        ModelError: it is not.
    """
    if find_spec("speechbrain") is None:
        raise ModelError("speechbrain is not installed: pip install 'echo-targets[speechbrain]'")


@dataclass(frozen=True)
class Tagged:
    """A value with a tag, such as `!new:torch.nn.ReLU`.

    Attributes:
        tag: `new:torch.nn.ReLU`.
        value: what follows it: a mapping, a list or a string.
    """

    tag: str
    value: Any

    @property
    def named(self) -> str:
        """What the tag would make or call: `torch.nn.ReLU`."""
        return self.tag.partition(":")[2]


class _Loader(yaml.SafeLoader):
    """YAML as hyperpyyaml reads it (1.2), with inert tags.

    speechbrain's trainer writes an alias for everything that the recipe names twice. With every alias written out, the
    file has at most `MOST_BYTES` characters, so that no later step can meet more.
    """

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _written_out(node, {}) > MOST_BYTES:
            raise yaml.YAMLError(f"its aliases stand for over {MOST_BYTES:,} characters")
        return node


def _written_out(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Return how many characters a node has with its aliases written out; linear in the nodes of the file."""
    if id(node) in known:
        if (size := known[id(node)]) is None:
            raise yaml.YAMLError("an alias stands for what contains it")
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
    """What `hyperparams.yaml` says.

    Args:
        folder: the directory that it lies in.

    Raises:
        ModelError: it is missing, or not YAML as speechbrain writes it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / HYPERPARAMS
        try:
            if self.path.stat().st_size > MOST_BYTES:
                raise ModelError(f"{self.path} has over {MOST_BYTES:,} bytes: not hyperparameters")
            self._top = yaml.load(self.path.read_text(encoding="utf-8"), _Loader)
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
            raise ModelError(f"{self.path} can't be read ({error}); copy the whole directory of speechbrain") from error
        if not isinstance(self._top, dict):
            raise ModelError(f"{self.path} names no values; copy the whole directory of speechbrain")

    def get(self, name: str, default: Any = None) -> Any:
        """A value by its name, references followed; the default where there is none."""
        return self.follow(self._top.get(name, default))

    def follow(self, value: Any) -> Any:
        """What a value is, or refers to by `!ref <name>`.

        Raises:
            ModelError: it refers to nothing, in a circle, or to more than a name.
        """
        for _ in range(len(self._top) + 1):
            if not isinstance(value, Tagged) or value.tag != "ref":
                return value
            name = str(value.value).removeprefix("<").removesuffix(">")
            if value.value != f"<{name}>" or name not in self._top:
                break
            value = self._top[name]
        raise ModelError(f"{self.path}: `!ref {value.value}` can't be followed; write the value itself in its place")

    def given(self, name: str, *kinds: str) -> dict[str, Any]:
        """Return what an object would be made with, by `made`, references followed."""
        return self.arguments(self.made(name, *kinds))

    def arguments(self, written: dict[str, Any]) -> dict[str, Any]:
        """Return arguments with references followed, those inside a list too: `[null, null, !ref <size>]`."""
        followed = {key: self.follow(value) for key, value in written.items()}
        return {
            key: [self.follow(each) for each in value] if isinstance(value, list) else value
            for key, value in followed.items()
        }

    def made(self, name: str, *kinds: str) -> dict[str, Any]:
        """What an object would be made with, as it is written.

        Args:
            name: of the object.
            kinds: the classes that it may be of, by the last part of their names.

        Raises:
            ModelError: there is no such object, or it is of another class.
        """
        made = self.get(name)
        if not isinstance(made, Tagged) or not made.tag.startswith("new:") or not isinstance(made.value, dict):
            raise ModelError(f"{self.path} has no `{name}: !new:` with {' or '.join(kinds)}")
        if made.named.rpartition(".")[2] not in kinds:
            raise ModelError(f"{self.path}: `{name}` is {made.named}; what is read here is {' or '.join(kinds)}")
        return made.value


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a `.ckpt` file, with the names that torch has today.

    Raises:
        ModelError: it is missing, damaged, or holds more than tensors.
    """
    return {_today(name): each for name, each in read_pickled(path).items()}


def _today(name: str) -> str:
    """A name of weight norm's tensors before torch 2.1 as those after."""
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        if name.endswith(f".{old}"):
            return f"{name.removesuffix(old)}parametrizations.weight.{new}"
    return name


def fill(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Gives a module, made on the device `meta`, its tensors; float32, in evaluation mode.

    Raises:
        ModelError: the file's tensors are not the module's.
    """
    check_tensors(path, module.state_dict(), state)
    module.load_state_dict(state, assign=True)
    module.float().eval()
