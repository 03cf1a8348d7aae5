"""measures: scores of the sound and of the text that filters need and no model's work gives by the way."""

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas.tables.base import KEY, Rule, Table, column
from echo_targets.schemas.tables.rules import range_rule

MEASURES = Table(
    name="measures",
    version="2.0.0",
    schema=pa.schema(
        [
            column(KEY, pa.string()),
            column("loudness_lufs", pa.float32(), nullable=True),
            column("speech_share", pa.float32()),
            column("longest_silence_samples", pa.int64()),
            column("chars_per_s", pa.float32(), nullable=True),
            column("unique_word_share", pa.float32(), nullable=True),
            column("longest_word", pa.int32(), nullable=True),
            column("longest_word_excess", pa.float32(), nullable=True),
            column("repeated_share", pa.float32(), nullable=True),
        ]
    ),
    means={
        KEY: "the utterance that was measured; its text is the reference where there is one, else the transcript",
        "loudness_lufs": "integrated loudness (ITU-R BS.1770-4); null below its gate of -70 LUFS or its block of 0.4 s",
        "speech_share": "share of the audio in which a voice activity detector hears speech",
        "longest_silence_samples": "longest stretch in which it hears none, at the ends too, in samples at 16 kHz",
        "chars_per_s": "characters of the text a second of audio; null, as all that follows, without text",
        "unique_word_share": "different words by words of the text; of a text of more than 100 words, of the 100 that "
        "follow each other with the fewest; of scripts without spaces, pairs of neighbouring characters are the words",
        "longest_word": "characters of the text's longest word; here and below, each character of a script without "
        "spaces is a word",
        "longest_word_excess": "characters by which it exceeds the next longest, by those of that; null for one word",
        "repeated_share": "share of the words' characters in runs of five words that stand in the text more than once",
    },
    rules=(
        range_rule("loudness_lufs", -70, 30),
        range_rule("speech_share", 0, 1),
        range_rule("longest_silence_samples", 0, 2**40),
        range_rule("chars_per_s", 0, 1e5),
        range_rule("unique_word_share", 0, 1),
        range_rule("longest_word", 1, 2**31 - 1),
        range_rule("longest_word_excess", 0, 1e9),
        range_rule("repeated_share", 0, 1),
    ),
    cross_rules=(
        Rule(
            "silence_inside_audio",
            "longest_silence_samples is no longer than the audio",
            lambda rows: pc.greater(rows["longest_silence_samples"], rows["utterances.num_samples"]),
        ),
    ),
)
