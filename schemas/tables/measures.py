"""measures: scores of audio and text for filters that no other stage produces."""

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas.tables.base import KEY, Rule, Table, column, list_of
from echo_targets.schemas.tables.rules import range_rule, unit_length_rule

MEASURES = Table(
    name="measures",
    version="3.0.0",
    schema=pa.schema(
        [
            column(KEY, pa.string()),
            column("loudness_lufs", pa.float32(), nullable=True),
            column("speech_share", pa.float32()),
            column("longest_silence_samples", pa.int64()),
            column("bandwidth_hz", pa.float32(), nullable=True),
            column("clipped_share", pa.float32()),
            column("snr_db", pa.float32(), nullable=True),
            column("dnsmos_sig", pa.float32(), nullable=True),
            column("dnsmos_bak", pa.float32(), nullable=True),
            column("dnsmos_ovrl", pa.float32(), nullable=True),
            column("dnsmos_p808", pa.float32(), nullable=True),
            column("speaker_embedding", list_of(pa.float32()), nullable=True),
            column("chars_per_s", pa.float32(), nullable=True),
            column("unique_word_share", pa.float32(), nullable=True),
            column("longest_word", pa.int32(), nullable=True),
            column("longest_word_excess", pa.float32(), nullable=True),
            column("repeated_share", pa.float32(), nullable=True),
        ]
    ),
    means={
        KEY: "the utterance that was measured; its text is the reference if there is one, otherwise the transcript",
        "loudness_lufs": "integrated loudness (ITU-R BS.1770-4); null if below the gate of -70 LUFS or shorter than "
        "the block of 0.4 s",
        "speech_share": "share of the audio in which a voice activity detector finds speech",
        "longest_silence_samples": "longest stretch without speech by the same detector, including the start and end, "
        "in samples at 16 kHz",
        "bandwidth_hz": "highest frequency, in Hz, at which the mean power spectrum is less than 50 dB below its peak; "
        "null for digital silence",
        "clipped_share": "share of samples on a plateau at the recording's highest or lowest value",
        "snr_db": "signal-to-noise ratio in dB, estimated from the distribution of amplitudes (WADA), in [-10, 40]; "
        "null for digital silence",
        "dnsmos_sig": "DNSMOS P.835: predicted mean opinion score of the speech, from 1 to 5; null, as are the other "
        "DNSMOS scores, if not asked for",
        "dnsmos_bak": "DNSMOS P.835: the same for the background",
        "dnsmos_ovrl": "DNSMOS P.835: the same for the whole",
        "dnsmos_p808": "DNSMOS P.808: predicted mean opinion score of the whole, from 1 to 5",
        "speaker_embedding": "vector of length 1 for the voice; the cosine of two says how alike the speakers sound; "
        "null without a speaker encoder, or without speech",
        "chars_per_s": "characters of the text per second of audio; null without text, as are all following columns",
        "unique_word_share": "distinct words divided by all words of the text; for a text of more than 100 words, the "
        "lowest value of any 100 consecutive words; for scripts without spaces, words are pairs of adjacent characters",
        "longest_word": "characters of the text's longest word; here and below, each character of a script without "
        "spaces is a word",
        "longest_word_excess": "longest_word minus the length of the second longest word, divided by the latter; null "
        "for a single word",
        "repeated_share": "share of the words' characters in runs of five words that occur in the text more than once",
    },
    rules=(
        range_rule("loudness_lufs", -70, 30),
        range_rule("speech_share", 0, 1),
        range_rule("longest_silence_samples", 0, 2**40),
        range_rule("bandwidth_hz", 0, 8000),
        range_rule("clipped_share", 0, 1),
        range_rule("snr_db", -10, 40),
        *(range_rule(f"dnsmos_{name}", 0, 6) for name in ("sig", "bak", "ovrl", "p808")),
        unit_length_rule("speaker_embedding"),
        range_rule("chars_per_s", 0, 1e5),
        range_rule("unique_word_share", 0, 1),
        range_rule("longest_word", 1, 2**31 - 1),
        range_rule("longest_word_excess", 0, 1e9),
        range_rule("repeated_share", 0, 1),
    ),
    cross_rules=(
        Rule(
            "silence_inside_audio",
            "longest_silence_samples does not exceed the length of the audio",
            lambda rows: pc.greater(rows["longest_silence_samples"], rows["utterances.num_samples"]),
        ),
    ),
)
