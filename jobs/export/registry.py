"""The formats, by name."""

from __future__ import annotations

from echo_targets.jobs.export.base import Format
from echo_targets.jobs.export.hub import Hub
from echo_targets.jobs.export.lhotse import Lhotse
from echo_targets.jobs.export.moshi_finetune import MoshiFinetune
from echo_targets.jobs.export.slam_omni import SlamOmni
from echo_targets.jobs.export.vocalnet import VocalNet
from echo_targets.jobs.export.webdataset import WebDataset

FORMATS: dict[str, type[Format]] = {
    kind.name: kind for kind in (Hub, SlamOmni, VocalNet, MoshiFinetune, Lhotse, WebDataset)
}
