"""Whole files of speech and how long they are, and cut or damaged ones and what is said of them."""

from __future__ import annotations

import gzip
from collections.abc import Callable

from echo_targets.schemas import SAMPLE_RATE
from tests.transforms.audio.audio_files import (
    HTML,
    NOISE,
    SECONDS,
    amr,
    caf_of_unknown_length,
    claiming,
    flac_claiming,
    flac_with_foreign_metadata,
    flipped,
    fragmented,
    half,
    hole,
    id3,
    muxed,
    pages,
    spoken,
    tarred,
    timed,
    untagged,
    without_page,
    written,
    zeroed,
    zipped,
)

Make = Callable[[], bytes]

ONCE, TWICE = SECONDS, 2 * SECONDS
AT_44100, AT_24000 = SECONDS * SAMPLE_RATE / 44_100, SECONDS * SAMPLE_RATE / 24_000
WHOLE: dict[str, tuple[Make, float]] = {
    "MP3 without a header that counts": (lambda: untagged(written("MP3")), ONCE),
    "MP3 after a large picture": (lambda: id3(100_000) + written("MP3"), ONCE),
    "MP3 with a tag at its end": (lambda: written("MP3") + b"TAG" + b"x" * 125, ONCE),
    "MP3 joined": (lambda: written("MP3") * 2, TWICE),
    "MP3 joined, tags between": (lambda: written("MP3") + id3(5000) + written("MP3"), TWICE),
    "MP3 joined, other rate and channels": (
        lambda: written("MP3") + written("MP3", None, 44_100, 2),
        ONCE + AT_44100,
    ),
    "MP3 without headers joined, padding between": (
        lambda: untagged(written("MP3")) + untagged(written("MP3", None, 44_100, 2)),
        ONCE + AT_44100 + 0.12,
    ),
    "MP3 in WAV": (lambda: muxed("libmp3lame", "wav"), ONCE),
    "MP3 in Matroska, its delay counted": (lambda: muxed("libmp3lame", "matroska"), ONCE),
    "Vorbis": (lambda: written("OGG", "VORBIS"), ONCE),
    "Vorbis joined": (lambda: written("OGG", "VORBIS") * 2, TWICE),
    "Vorbis joined, other rate and channels": (
        lambda: written("OGG", "VORBIS") + written("OGG", "VORBIS", 24_000, 2),
        ONCE + AT_24000,
    ),
    "Opus": (lambda: written("OGG", "OPUS"), ONCE),
    "Opus joined, other channels": (
        lambda: written("OGG", "OPUS") + written("OGG", "OPUS", 24_000, 2),
        ONCE + AT_24000,
    ),
    "Opus, something after its end": (lambda: written("OGG", "OPUS") + b"no page" * 20, ONCE),
    "FLAC in Ogg joined": (lambda: muxed("flac", "ogg") * 2, TWICE),
    "FLAC of unknown length": (lambda: flac_claiming(written("FLAC"), 0), ONCE),
    "FLAC that claims less": (lambda: flac_claiming(written("FLAC"), SAMPLE_RATE), ONCE),
    "FLAC after a tag": (lambda: id3(3000) + written("FLAC"), ONCE),
    "FLAC joined, other rate": (lambda: written("FLAC") + written("FLAC", None, 44_100, 2), ONCE + AT_44100),
    "WebM": (lambda: muxed("libopus", "webm"), ONCE),
    "WebM of a browser, without a length": (lambda: muxed("libopus", "webm", live="1"), ONCE),
    "WebM of a browser, joined": (lambda: muxed("libopus", "webm", live="1") * 2, TWICE),
    "M4A": (lambda: muxed("aac", "mp4"), ONCE),
    "M4A joined, padding between": (lambda: muxed("aac", "mp4") * 2, TWICE + 0.064),
    "M4A in fragments": (fragmented, ONCE + 0.064),
    "AAC without a container": (lambda: muxed("aac", "adts"), ONCE + 0.064),
    "WAV joined": (lambda: written("WAV") * 2, TWICE),
    "WAV joined, written to pipes": (lambda: claiming(written("WAV"), 2**32 - 1) * 2, TWICE),
    "WAV with a chunk after its samples": (
        lambda: written("WAV") + b"LIST" + (2000).to_bytes(4, "little") + b"INFO" + b"\x7f" * 1996,
        ONCE,
    ),
    "WAV that claims nothing": (lambda: claiming(written("WAV"), 0), ONCE),
    "WAV that claims two billion": (lambda: claiming(written("WAV"), 2_000_000_000), ONCE),
    "WAV, tags after its samples": (lambda: written("WAV") + id3(3000) + b"TAG" + b"x" * 125, ONCE),
    "WAV, a web page after its samples": (lambda: written("WAV") + HTML, ONCE),
    "WAV, text of 16-bit characters after its samples": (
        lambda: written("WAV") + "a note".encode("utf-16")[:300],
        ONCE,
    ),
    "W64, a web page after its samples": (lambda: written("W64") + HTML, ONCE),
    "SPHERE, a web page after its samples": (lambda: written("NIST") + HTML, ONCE),
    "M4A joined, zeros between": (lambda: muxed("aac", "mp4") + bytes(5000) + muxed("aac", "mp4"), TWICE + 0.064),
    "AVI joined": (lambda: muxed("mp2", "avi") * 2, TWICE + 0.064),
    "WAV, zeros after its samples": (lambda: written("WAV") + bytes(100_000), ONCE),
    "WAV, its last chunk cut": (lambda: written("WAV") + b"LIST" + (90_000).to_bytes(4, "little") + NOISE, ONCE),
    "WAV, a chunk after an odd number of bytes": (
        lambda: claiming(written("WAV", "PCM_U8"), 63_999)[:-1] + b"LIST\4\0\0\0INFO",
        ONCE,
    ),
    "WAV joined, padding between": (lambda: written("WAV") + bytes(5000) + written("WAV"), TWICE),
    "MP3 without a header that counts, padding": (
        lambda: untagged(written("MP3")) + bytes(4000) + untagged(written("MP3")) + bytes(4000),
        TWICE + 0.16,
    ),
    "MP3, zeros after all that its header counts": (lambda: written("MP3") + bytes(200_000), ONCE),
    "AMR": (amr, ONCE + 0.02),
    "AMR joined, padding after it": (lambda: amr() * 2 + bytes(40), TWICE + 0.04),
    "FLV joined": (lambda: muxed("aac", "flv") * 2, TWICE + 0.19),
    "MPEG-TS": (lambda: timed("mpegts", 0.0), ONCE + 0.096),
    "MPEG-TS joined": (lambda: timed("mpegts", 0.0) * 2, TWICE + 0.192),
    "MPEG-TS joined, another clock": (
        lambda: timed("mpegts", 0.0) + timed("mpegts", 0.0, start=500.0) + timed("mpegts", 0.0, start=20.0),
        3 * ONCE + 0.288,
    ),
    "W64 joined, other rate and channels": (
        lambda: written("W64") + written("W64", None, 24_000, 2) + written("W64"),
        TWICE + AT_24000,
    ),
    "SPHERE joined, other rate and channels": (
        lambda: written("NIST") + written("NIST", None, 24_000, 2) + written("NIST"),
        TWICE + AT_24000,
    ),
    "CAF joined": (lambda: written("CAF") * 2, TWICE),
    "CAF joined, written to pipes": (lambda: caf_of_unknown_length() * 2, TWICE),
    "FLAC that keeps the header of its WAV": (lambda: flac_with_foreign_metadata(), ONCE),
    "WAV with half a sample": (lambda: written("WAV")[:-1], ONCE),
    "AIFF joined": (lambda: written("AIFF") * 2, TWICE),
    "AU joined": (lambda: written("AU") * 2, TWICE),
    "WavPack joined": (lambda: muxed("wavpack", "wv") * 2, TWICE),
    **{
        f"{format_} {subtype}": (lambda f=format_, s=subtype: written(f, s), ONCE)  # type: ignore[misc]
        for format_, subtypes in {
            "WAV": ("PCM_U8", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "GSM610"),
            "WAVEX": ("PCM_24",),
            "RF64": ("PCM_16",),
            "W64": ("PCM_16", "GSM610"),
            "AIFF": ("PCM_16", "ULAW"),
            "AU": ("PCM_16", "FLOAT"),
            "CAF": ("PCM_16", "ALAC_16"),
            "NIST": ("PCM_16",),
            "VOC": ("PCM_16",),
        }.items()
        for subtype in subtypes
    },
}
"""Whole recordings, and how long they are."""

CUT: dict[str, tuple[Make, str, str]] = {
    "MP3, half": (lambda: half(written("MP3")), "truncated", r"it has \d\.\d\d s, and its header counts 4\.\d\d s"),
    "MP3, the second of two": (lambda: written("MP3") + half(written("MP3")), "truncated", "part 2 of 2"),
    "MP3, noise inside": (lambda: hole(written("MP3"), 3000), "damaged", r"after \d\.\d\d s"),
    "MP3 without a header, a hole": (lambda: hole(untagged(written("MP3")), 3000), "damaged", r"after \d\.\d\d s"),
    "Vorbis, half": (lambda: half(written("OGG", "VORBIS")), "truncated", "does not end the stream"),
    "Vorbis, a page lost": (lambda: without_page(written("OGG", "VORBIS")), "damaged", r"after \d\.\d\d s: Ogg page"),
    "Vorbis, a bit flipped": (lambda: flipped(written("OGG", "VORBIS")), "damaged", "checksum"),
    "Opus, last page lost": (lambda: b"".join(pages(written("OGG", "OPUS"))[:-1]), "truncated", "end the stream"),
    "Opus, the second of two": (lambda: written("OGG", "OPUS") + half(written("OGG", "OPUS")), "truncated", "part 2"),
    "FLAC, half": (lambda: half(written("FLAC")), "truncated", r"\d\.\d\d s of 4\.00 s"),
    "FLAC, last frame lost": (lambda: written("FLAC")[:-40], "truncated", r"3\.\d\d s of 4\.00 s"),
    "FLAC, a hole": (lambda: hole(written("FLAC")), "damaged", r"after \d\.\d\d s"),
    "FLAC of unknown length, a hole": (lambda: hole(flac_claiming(written("FLAC"), 0)), "damaged", r"after \d\.\d\d s"),
    "FLAC that claims hours": (lambda: flac_claiming(written("FLAC"), 2**36 - 1), "truncated", r"4\.00 s of 42949"),
    "WebM, half": (lambda: half(muxed("libopus", "webm")), "truncated", r"\d\.\d\d s of 4\.0\d s"),
    "Matroska, half": (lambda: half(muxed("aac", "matroska")), "truncated", r"\d\.\d\d s of 4\.0\d s"),
    "M4A, no index": (lambda: half(muxed("aac", "mp4")), "truncated", "it has .* bytes, without its index"),
    "M4A in fragments, half": (lambda: half(fragmented()), "truncated", "last fragment"),
    "AVI, half": (lambda: half(muxed("mp2", "avi")), "truncated", r"\d\.\d\d s of"),
    "WAV, half": (lambda: half(written("WAV")), "truncated", r"2\.00 s of 4\.00 s"),
    "RF64, half": (lambda: half(written("RF64")), "truncated", r"2\.00 s of 4\.00 s"),
    "W64, half": (lambda: half(written("W64")), "truncated", r"2\.00 s of 4\.00 s"),
    "AIFF, half": (lambda: half(written("AIFF")), "truncated", r"2\.00 s of 4\.00 s"),
    "AU, half": (lambda: half(written("AU")), "truncated", r"2\.00 s of 4\.00 s"),
    "CAF, half": (lambda: half(written("CAF")), "truncated", r"s of 4\.00 s"),
    "SPHERE, half": (lambda: half(written("NIST")), "truncated", r"s of 4\.00 s"),
    "A-law, half": (lambda: half(written("WAV", "ALAW")), "truncated", r"2\.00 s of 4\.00 s"),
    "WAV that claims twice as much": (lambda: claiming(written("WAV"), 256_000), "truncated", r"4\.00 s of 8\.00 s"),
    "WAV with two chunks of samples": (
        lambda: claiming(written("WAV"), 128_000) + b"data" + (128_000).to_bytes(4, "little") + written("WAV")[44:],
        "truncated",
        r"4\.00 s of 8\.00 s",
    ),
    "FLV, half": (
        lambda: half(muxed("aac", "flv")),
        "truncated",
        r"it has \d\.\d\d s, and its header says 4\.\d\d s",
    ),
    "FLV, the second of two": (lambda: muxed("aac", "flv") + half(muxed("aac", "flv")), "truncated", "part 2 of 2"),
    **{
        f"{container}, three seconds missing": (
            lambda c=container: timed(c, 3.0),  # type: ignore[misc]
            "damaged",
            r"after 2\.\d\d s: 3\.0\d s are missing",
        )
        for container in ("mp4", "matroska", "flv", "mpegts")
    },
    "MPEG-TS, three seconds missing in the second of two": (
        lambda: timed("mpegts", 0.0) + timed("mpegts", 3.0),
        "damaged",
        r"after 6\.\d\d s: 3\.0\d s are missing",
    ),
    "AMR, zeros inside": (lambda: hole(amr(), 500), "damaged", r"after 2\.\d\d s: \d+ bytes are zeros"),
    "AMR, half of it zeros": (
        lambda: zeroed(amr()),
        "truncated",
        r"it has 2\.\d\d s, and the last \d+ bytes are zeros",
    ),
    "AMR and WAV": (lambda: amr() + written("WAV"), "joined", "WAV at byte"),
    "MP3 without a header, half of it zeros": (
        lambda: zeroed(untagged(written("MP3"))),
        "truncated",
        r"it has \d\.\d\d s, and the last \d+ bytes are zeros",
    ),
    **{
        f"{codec} in {container}, half of it zeros": (
            lambda c=codec, f=container: zeroed(muxed(c, f)),  # type: ignore[misc]
            "truncated",
            r"it has \d+ of \d+ bytes; the rest are zeros",
        )
        for codec, container in (
            ("aac", "adts"),
            ("aac", "mpegts"),
            ("mp2", "avi"),
            ("mp2", "mpeg"),
            ("aac", "mp4"),
            ("wavpack", "wv"),
            ("tta", "tta"),
        )
    },
    "WebM of a browser, half of it zeros": (
        lambda: zeroed(muxed("libopus", "webm", live="1")),
        "truncated",
        r"the rest are zeros",
    ),
    "FLAC of unknown length, half of it zeros": (
        lambda: zeroed(flac_claiming(written("FLAC"), 0)),
        "truncated",
        "the rest are zeros",
    ),
    "ALAC in CAF, half of it zeros": (lambda: zeroed(written("CAF", "ALAC_16")), "truncated", "the rest are zeros"),
    "ADTS and WAV": (lambda: muxed("aac", "adts") + written("WAV"), "joined", "WAV at byte"),
    "a web page": (lambda: b"\n" + HTML, "unreadable", "^is an HTML page"),
    "a Git LFS pointer": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 12345\n",
        "unreadable",
        "^is a Git LFS pointer: run git lfs pull$",
    ),
    "an error of a bucket": (
        lambda: b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>',
        "unreadable",
        "^is an XML document",
    ),
    "an error of an API": (
        lambda: b'{"error": "Access to dataset is restricted"}',
        "unreadable",
        "^is a JSON document",
    ),
    "gzip": (lambda: gzip.compress(written("WAV")), "unreadable", "^is a gzip file: unpack it$"),
    "zip": (lambda: zipped(written("WAV")), "unreadable", "^is a zip file: unpack it$"),
    "tar": (lambda: tarred(written("WAV")), "unreadable", "^is a tar archive: unpack it$"),
    "zeros": (lambda: bytes(100_000), "unreadable", "^holds only zeros"),
    "WAV whose header was written after a second": (
        lambda: claiming(written("WAV"), 32_000),
        "damaged",
        "header the samples end at byte 32044, but 96000 bytes of unknown data follow",
    ),
    "WAV, noise after its samples": (lambda: written("WAV") + NOISE, "damaged", "20000 bytes of unknown data follow"),
    "WAV and FLAC": (lambda: written("WAV") + written("FLAC"), "joined", "FLAC at byte 128044; split the file"),
    "WAV and MP3": (lambda: written("WAV") + written("MP3"), "joined", "MP3 at byte 128044"),
    "WAV and MP3 after a tag": (lambda: written("WAV") + id3(100) + written("MP3"), "joined", "MP3 at byte"),
    "WAV and Ogg after a chunk": (
        lambda: written("WAV") + b"LIST\4\0\0\0INFO" + written("OGG", "OPUS"),
        "joined",
        "Ogg at byte 128056",
    ),
    "WAV of unknown length and FLAC": (
        lambda: claiming(written("WAV"), 2**32 - 1) + written("FLAC"),
        "joined",
        "FLAC at byte 128044",
    ),
    "WAV and AVI": (lambda: written("WAV") + muxed("mp2", "avi"), "joined", "AVI at byte 128044"),
    "AVI and WAV": (lambda: muxed("mp2", "avi") + written("WAV"), "joined", "WAV at byte"),
    "SPHERE, noise after its samples": (lambda: written("NIST") + NOISE, "damaged", "20000 bytes of unknown data"),
    "W64, noise after its samples": (lambda: written("W64") + NOISE, "damaged", "20000 bytes of unknown data"),
    "CAF, noise after its samples": (lambda: written("CAF") + NOISE, "damaged", "bytes of unknown data"),
    "FLAC and WAV": (lambda: written("FLAC") + written("WAV"), "joined", "WAV at byte"),
    "FLAC and MP3": (lambda: written("FLAC") + written("MP3"), "joined", "MP3 at byte"),
    "Ogg and MP3": (lambda: written("OGG", "VORBIS") + written("MP3"), "joined", "MP3 at byte"),
    "Ogg and WAV": (lambda: written("OGG", "OPUS") + written("WAV"), "joined", "WAV at byte"),
    "MP3 and WAV": (lambda: written("MP3") + written("WAV"), "damaged", "bytes are not MPEG audio"),
    "AIFF and FLAC": (lambda: written("AIFF") + written("FLAC"), "joined", "FLAC at byte"),
    "AU and WAV": (lambda: written("AU") + written("WAV"), "joined", "WAV at byte"),
    "CAF and WAV": (lambda: written("CAF") + written("WAV"), "joined", "WAV at byte"),
    "W64 and FLAC": (lambda: written("W64") + written("FLAC"), "joined", "FLAC at byte"),
    "AIFF joined, padding between": (lambda: written("AIFF") + bytes(500) + written("AIFF"), "joined", "AIFF at byte"),
    "Ogg, the first page of another cut": (
        lambda: written("OGG", "VORBIS") + written("OGG", "OPUS")[:40],
        "truncated",
        "its last page is truncated",
    ),
    "SPHERE and FLAC": (lambda: written("NIST") + written("FLAC"), "joined", "FLAC at byte"),
    "M4A and MP3": (lambda: muxed("aac", "mp4") + written("MP3"), "joined", "MP3 at byte"),
    "WebM and FLAC": (lambda: muxed("libopus", "webm") + written("FLAC"), "joined", "FLAC at byte"),
    "WAV without samples, a chunk": (
        lambda: written("WAV")[:40] + bytes(4) + b"LIST\4\0\0\0INFO",
        "empty",
        "no samples",
    ),
    "WAV without samples": (lambda: written("WAV")[:44], "empty", "no samples"),
    "samples without a header that end in silence": (
        lambda: (spoken() * 32767).astype("<i2").tobytes() + bytes(20_000),
        "unreadable",
        "is not readable audio",
    ),
    "samples without a header": (
        lambda: (spoken() * 32767).astype("<i2").tobytes(),
        "unreadable",
        "is not readable audio",
    ),
    "a playlist": (lambda: b"#EXTM3U\n#EXTINF:4,\nother.flac\n" * 20, "unreadable", "is not readable audio"),
}
"""What is not whole: its error class, and what the message says."""
