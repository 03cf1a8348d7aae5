"""Write the page as a folder of static files that needs no server: a browser opens `index.html`.

    index.html                 the overview
    static/                    the page's scripts and styles, and uPlot
    data/index.js              counts, corpora, scores and versions
    data/rows/0003.js          ids, texts and scores of 10,000 rows, for searching and sorting
    data/details/000012.js     all other fields of 50 rows
    data/sounds/000345.js      audio, peaks and spectrogram of one row, for a sample of rows
    data/voices/000345.js      synthesized targets of one row, if there is a vocoder
    data/recordings/000345.js  the cuts of a recording in one shard, by its first row
    data/spectra.js            mean spectrum of each unit

Browsers do not let a page opened from a file fetch data, but it may add scripts, so each data file holds one call,
`site.put(name, value)`. File names come from row numbers, never from the dataset's contents.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from echo_targets.jobs.inspector.rows import SCORES, PageRow, Source, short_text
from echo_targets.jobs.inspector.sound import HOP, MeanSpectra, encoded, hop_of, listen, voiced
from echo_targets.schemas import SAMPLE_RATE
from echo_targets.schemas.dataset.storage import is_url
from echo_targets.schemas.dataset.urls import as_path
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.vocoders.base import Vocoder

HERE = Path(__file__).parent
MARK = "data/index.js"
CHUNK = 10_000
PAGE = 50
EXAMPLES = 3


class Site:
    """The page's folder and its source. An optional vocoder synthesizes the targets."""

    def __init__(self, folder: Path, source: Source, vocoder: Vocoder | None = None) -> None:
        self.folder = folder
        self.source = source
        self.vocoder = vocoder
        self.spectra = MeanSpectra()

    def put(self, name: str, value: Any) -> None:
        """Write a value that the page loads with `site.get(name)`."""
        path = self.folder / "data" / f"{name}.js"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
        path.write_text(f'site.put("{name}",{text})\n')

    def put_sound(self, number: int, flac: bytes, units: dict[str, Any] | None = None) -> None:
        """Write a row's sound; if its row of `units` is given, add its spectrogram to the mean spectra of the units.

        Raises:
            UserError: the audio can't be decoded.
        """
        try:
            value, bands = listen(flac, hop_of(units) if units else HOP)
        except RuntimeError as error:  # libsndfile's
            raise UserError(
                f"utterance {number}: damaged audio ({error}). Run `echo-targets check` for details."
            ) from error
        self.put(sound_name(number), value)
        if units:
            self.spectra.add(units, bands)

    def put_voice(self, number: int, detail: dict[str, Any]) -> None:
        """Synthesize a row's targets and write them as FLAC, null for a target that the vocoder does not fit.

        Does nothing without a vocoder.

        Raises:
            UserError: the vocoder fits none of the targets.
        """
        if self.vocoder is None or "targets" not in detail:
            return
        flac: list[str | None] = []
        errors = []
        for target in detail["targets"]:
            try:
                flac.append(voiced(self.vocoder, target))
            except (ModelError, ValueError) as error:
                flac.append(None)
                errors.append(error)
        if errors and not any(flac):
            raise UserError(
                f"{detail['id']}: the targets' units are not of the vocoder's codebook ({errors[0]}). Choose another "
                "--vocoder, or none."
            ) from errors[0]
        self.put(f"voices/{number:06d}", flac)

    def put_any_voice(self, number: int) -> None:
        """Write the voice of any row on a server's request; the units are read from the page's data."""
        text = (self.folder / "data" / f"details/{number // PAGE:06d}.js").read_text()
        rows = json.loads(text[text.index(",") + 1 : text.rindex(")")])
        self.put_voice(number, rows[number % PAGE])

    def put_any_sound(self, number: int) -> None:
        """Write the sound of any row on a server's request."""
        ((_, flac),) = self.source.audio([number])
        self.put_sound(number, flac)


def sound_name(number: int) -> str:
    """Return the name of a row's sound file."""
    return f"sounds/{number:06d}"


def write_site(root: str, folder: Path, sounds: int, vocoder: Vocoder | None = None) -> tuple[Site, int]:
    """Write the page of a root shard by shard, with `index.html` last.

    Args:
        root: root of the dataset.
        folder: folder to write to: new, empty, or holding an earlier page, which is replaced.
        sounds: approximate number of rows with sound: all turns of a sample of dialogues, the same at every call.
        vocoder: synthesizes the targets of these rows; without it, the page only offers a sketch of them.

    Returns:
        The site, and the number of rows with sound.

    Raises:
        UserError: the folder is inside the root or holds other files, or the root has no utterances.
    """
    source = Source(root)
    _clear(root, folder)
    site = Site(folder, source, vocoder)
    share = sounds / max(source.total, 1)
    corpora: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0, 0.0])
    names: dict[str, int] = {}
    chunk: list[PageRow] = []
    page: list[PageRow] = []
    chunks = sounding = 0
    for rows in source.shards():
        chosen = {row.number: row for row in rows if row.lot < share}
        for number, flac in source.audio(list(chosen)):
            site.put_sound(number, flac, chosen[number].units)
            site.put_voice(number, chosen[number].detail)
        sounding += len(chosen)
        for row in rows:
            sums = corpora[row.detail["corpus"], row.detail["split"], row.detail["language"]]
            sums[0] += 1
            sums[1] += row.detail["seconds"]
            names.setdefault(row.detail["corpus"], len(names))
            if row.cuts:
                site.put(f"recordings/{row.number:06d}", row.cuts)
            chunk.append(row)
            page.append(row)
            if len(page) == PAGE or row.number == source.total - 1:
                site.put(f"details/{row.number // PAGE:06d}", [member.detail for member in page])
                page = []
            if len(chunk) == CHUNK or row.number == source.total - 1:
                site.put(f"rows/{chunks:04d}", _chunk(chunk, names, share))
                chunk, chunks = [], chunks + 1
    if site.spectra.codebook:
        site.put("spectra", site.spectra.value())
    index = {
        "total": source.total,
        "page": PAGE,
        "chunks": chunks,
        "sounding": sounding,
        "corpora": list(names),
        "scores": [{"name": name, "says": says} for name, says in SCORES.items()],
        "versions": _versions(source),
        "shards": _shards(source),
        "spectra": bool(site.spectra.codebook),
        "voice": vocoder is not None,
    }
    site.put("index", index)
    _write_shell(site, sounding, _corpora(corpora))
    return site, sounding


def _clear(root: str, folder: Path) -> None:
    if not is_url(root) and folder.resolve().is_relative_to(Path(as_path(root)).resolve()):
        raise UserError(f"{folder} is inside the dataset. Choose a folder outside with --out.")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file. Choose a folder with --out.")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / MARK).is_file():
            raise UserError(f"{folder} holds other files. Choose a new or empty folder with --out.")
        (folder / "index.html").unlink(missing_ok=True)
        for part in ("data", "static"):
            shutil.rmtree(folder / part, ignore_errors=True)
    (folder / MARK).parent.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()  # marks a partly written page as one that may be replaced


def _chunk(rows: list[PageRow], names: dict[str, int], share: float) -> dict[str, Any]:
    roles = {"user": 0, "assistant": 1, "narrator": 2}
    return {
        "first": rows[0].number,
        "ids": [row.detail["id"] for row in rows],
        "texts": [short_text(row.detail) for row in rows],
        "roles": "".join(str(roles[row.detail["role"]]) for row in rows),
        "corpora": [names[row.detail["corpus"]] for row in rows],
        "sounds": "".join("1" if row.lot < share else "0" for row in rows),
        "scores": [encoded(column) for column in np.array([row.scores for row in rows], "<f4").T],
    }


def _versions(source: Source) -> list[dict[str, Any]]:
    """Return the versions of echo targets with the parameters and weights in which they differ."""
    made = [part.recipe.parameters | part.recipe.weights for part in source.targets]
    differ = [
        name for name in {name: None for of in made for name in of} if len({str(of.get(name)) for of in made}) > 1
    ]
    return [
        {"fingerprint": part.recipe.fingerprint, "differs": {name: str(of.get(name, "none"))[:60] for name in differ}}
        for part, of in zip(source.targets, made, strict=True)
    ]


def _shards(source: Source) -> dict[str, list[int]]:
    """Return the size in bytes of each table's committed shards."""
    return {
        name: [manifest.output.size for manifest in source.dataset.manifests(name)] for name in source.dataset.tables()
    }


def _corpora(sums: dict[tuple[str, str, str], list[float]]) -> list[dict[str, Any]]:
    rows = [
        {"corpus": corpus, "split": split, "language": language, "rows": int(rows), "hours": seconds / 3600}
        for (corpus, split, language), (rows, seconds) in sums.items()
    ]
    return sorted(rows, key=lambda row: -row["hours"])


def _funnel(source: Source) -> list[dict[str, Any]]:
    """Return the rows into and out of each stage, with reject reasons and examples."""
    made = []
    for name, version in source.dataset.tables().items():
        manifests = source.dataset.manifests(name, version)
        reasons: Counter[str] = Counter()
        for manifest in manifests:
            reasons.update(manifest.reasons)
        made.append(
            {
                "stage": source.dataset.recipe(name, version.recipe).stage,
                "table": name,
                "fingerprint": version.recipe,
                "shards": len(manifests),
                "rows_in": sum(manifest.rows_in for manifest in manifests),
                "rows_out": sum(manifest.output.rows for manifest in manifests),
                "hours": sum(manifest.samples for manifest in manifests) / SAMPLE_RATE / 3600,
                "megabytes": sum(manifest.output.size for manifest in manifests) / 1e6,
                "reasons": [
                    {"reason": reason, "count": count, "examples": _examples(source, manifests, reason)}
                    for reason, count in reasons.most_common()
                ],
            }
        )
    return sorted(made, key=lambda stage: (stage["table"].startswith("training/"), stage["table"] != "entries"))


def _examples(source: Source, manifests: Iterable[Any], reason: str) -> list[dict[str, str]]:
    """Return the first rejects with a reason; stops reading files once there are enough."""
    found: list[dict[str, str]] = []
    for manifest in manifests:
        if reason in manifest.reasons and manifest.rejects:
            with source.dataset.open(manifest.rejects.path) as file:
                rows = file.read(["utterance_id", "error_class", "message"]).to_pylist()
            found += [
                {"id": row["utterance_id"], "message": row["message"]} for row in rows if row["error_class"] == reason
            ]
        if len(found) >= EXAMPLES:
            break
    return found[:EXAMPLES]


def _write_shell(site: Site, sounding: int, corpora: list[dict[str, Any]]) -> None:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    shell = environment.get_template("index.html").render(
        root=site.source.dataset.root,
        total=site.source.total,
        hours=sum(row["hours"] for row in corpora),
        sounding=sounding,
        corpora=corpora,
        funnel=_funnel(site.source),
        versions=[part.recipe for part in site.source.targets],
        left_out=site.source.left_out,
    )
    shutil.copytree(HERE / "static", site.folder / "static", dirs_exist_ok=True)
    (site.folder / "served.js").write_text("site.served = false\n")
    (site.folder / "index.html").write_text(shell)
