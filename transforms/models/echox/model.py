"""EchoX for inference: encodes audio, generates replies with their hidden states, and decodes their units. Batched.

A row's result does not depend on its neighbors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.files import digest, read_tensors
from echo_targets.transforms.models.checkpoints.tensors import check_tensors
from echo_targets.transforms.models.echox.audio_tower import AudioTower
from echo_targets.transforms.models.echox.config import EchoXConfig
from echo_targets.transforms.models.echox.vocabulary import text_tokenizer
from echo_targets.transforms.models.t2c.config import StopReason, looping_tail
from echo_targets.transforms.models.t2c.model import T2C
from echo_targets.transforms.models.whisper.weights import EMBEDDED, weights_of

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from torch import Tensor

    from echo_targets.transforms.models.echox.network import EchoXNetwork, EncodedAudio


class Prompt(NamedTuple):
    """Input of the language model before its reply.

    Attributes:
        embeddings: (length, hidden_size).
        seen: (length,) int64, 0 at padding tokens: nothing attends to them, even if the template contains them.
    """

    embeddings: Tensor
    seen: Tensor


class Reply(NamedTuple):
    """A generated reply.

    Attributes:
        ids: tokens without the end.
        states: (len(ids), hidden_size), the state that predicted each token.
        stop_reason: `end`, `length`, or `repetition`, whose repeats are removed.
    """

    ids: list[int]
    states: Tensor
    stop_reason: StopReason


class EchoX:
    """A checkpoint: speech-to-text language model, denoising adapter, unit decoder.

    Attributes:
        config: sizes and special tokens.
        network: the network, in evaluation mode.
        tower: the Whisper encoder.
        tokenizer: the language model's tokenizer; None if the checkpoint has none.
        t2c: the unit decoder, with the interface of a text-to-codec model.
    """

    def __init__(
        self, config: EchoXConfig, network: EchoXNetwork, tower: AudioTower, tokenizer: Tokenizer | None
    ) -> None:
        self.config, self.network, self.tower, self.tokenizer = config, network, tower, tokenizer
        self.t2c = T2C(config.unit_decoder, network.unit_translator, tokenizer)

    @classmethod
    def load(cls, path: Path, device: str = "cpu", dtype: str = "float32") -> EchoX:
        """Load a checkpoint's directory: `config.json`, safetensors, and `tokenizer.json` if there is one.

        Args:
            dtype: dtype of the computation: float32, bfloat16 or float16.

        Raises:
            ModelError: a file is missing or damaged, or a tensor is missing, unexpected, or has another shape.
        """
        import torch

        config = EchoXConfig.read(path)
        number = getattr(torch, dtype)
        tower = AudioTower.load(tower_of(path, config), config.audio_context, device, number)
        if config.adapter_size not in (None, tower.width):
            raise ModelError(
                f"{path}/config.json: adapter_size is {config.adapter_size}, but the audio tower "
                f"{tower_of(path, config)} has width {tower.width}: set audio_tower to the Whisper used in training"
            )
        network = load_network(path, config, read_tensors(path, device), tower.width, number)
        return cls(config, network.eval(), tower, text_tokenizer(path, config.vocab_size))

    @property
    def device(self) -> torch.device:
        """The network's device."""
        return self.network.lm_head.weight.device

    def encode_audio(self, dialogues: Sequence[Sequence[np.ndarray]]) -> list[list[EncodedAudio]]:
        """Encode the turns of dialogues as input embeddings.

        Args:
            dialogues: each dialogue's user turns, float32 at 16 kHz, at most `tower.max_samples` each.
        """
        import torch

        with torch.inference_mode():
            frames = iter(self.tower.frames([turn for dialogue in dialogues for turn in dialogue]))
            return self.network.model.encode_audio([[next(frames) for _ in dialogue] for dialogue in dialogues])

    def prompt(self, ids: Sequence[int], encoded: Sequence[EncodedAudio]) -> Prompt:
        """Return input embeddings of a prompt's tokens, with each `audio_patch_id` replaced by a turn's audio.

        Raises:
            ValueError: the numbers of placeholders and turns differ.
        """
        import torch

        places = [place for place, token in enumerate(ids) if token == self.config.audio_patch_id]
        if len(places) != len(encoded):
            raise ValueError(f"{len(places)} audio placeholders for {len(encoded)} turns of audio")
        embedded, unpadded = self.embed(ids), self._unpadded(ids)
        parts, seen, start = [], [], 0
        for place, turn in zip(places, encoded, strict=True):
            parts += [embedded[start:place], turn.embeddings]
            seen += [unpadded[start:place], unpadded.new_ones(len(turn.embeddings))]
            start = place + 1
        return Prompt(torch.cat([*parts, embedded[start:]]), torch.cat([*seen, unpadded[start:]]))

    def _unpadded(self, ids: Sequence[int]) -> Tensor:
        import torch

        return torch.tensor([token != self.config.pad_token_id for token in ids], device=self.device).long()

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Return (len(ids), hidden_size) embeddings of the language model."""
        import torch

        with torch.inference_mode():
            return self.network.model.embed_tokens(torch.tensor(ids, dtype=torch.long, device=self.device))

    def states(self, prompts: Sequence[Prompt], replies: Sequence[Sequence[int]]) -> list[Tensor]:
        """Return the states that predict the tokens of given replies, (len(reply), hidden_size) each."""
        import torch

        from echo_targets.transforms.models.t2c.llama_decoding import padded_left, positions_of

        with torch.inference_mode():
            # The last token is left out: it predicts what follows the reply.
            embedded = [self.embed(reply[:-1]) for reply in replies]
            pairs = list(zip(prompts, embedded, strict=True))
            batch, mask = padded_left([torch.cat([prompt.embeddings, reply]) for prompt, reply in pairs])
            seen, _ = padded_left(
                [torch.cat([prompt.seen, prompt.seen.new_ones(len(reply))]) for prompt, reply in pairs]
            )
            read = self.network.model(
                inputs_embeds=batch, attention_mask=seen, position_ids=positions_of(mask), use_cache=False
            ).last_hidden_state
            return [row[len(row) - len(reply) :] for row, reply in zip(read, replies, strict=True)]

    def respond(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seeds: Sequence[int] | None = None,
    ) -> list[Reply]:
        """Generate replies: greedily at temperature 0, else by sampling.

        Args:
            prompts: as made by `prompt`.
            max_new_tokens: maximum tokens of a reply.
            top_p: as for `nucleus`.
            seeds: seeds of each row's own random numbers; required at a temperature above 0.
        """
        import torch

        from echo_targets.transforms.models.t2c.llama_decoding import RunningBatch

        with torch.inference_mode():
            embeddings, seen = [prompt.embeddings for prompt in prompts], [prompt.seen for prompt in prompts]
            running = RunningBatch(self.network.model, embeddings, seen=seen)
            generators = [torch.Generator().manual_seed(seed) for seed in seeds or []]
            rows = list(range(len(prompts)))
            ids: list[list[int]] = [[] for _ in rows]
            states: list[list[Tensor]] = [[] for _ in rows]
            reasons: list[StopReason] = ["length" for _ in rows]
            for emitted in range(max_new_tokens):
                logits = self.network.lm_head(running.states).float()
                if temperature:
                    drawn = [torch.empty(logits.shape[1]).exponential_(generator=generators[row]) for row in rows]
                    # The largest of p / e, e exponential, is a token drawn from p (the Gumbel-max trick).
                    logits = nucleus(logits / temperature, top_p).softmax(-1) / torch.stack(drawn).to(logits.device)
                going = []
                for place, (row, token) in enumerate(zip(rows, logits.argmax(-1).tolist(), strict=True)):
                    if token in self.config.end_ids:
                        reasons[row] = "end"
                        continue
                    ids[row].append(token)
                    states[row].append(running.states[place])
                    if tail := looping_tail(ids[row]):
                        reasons[row] = "repetition"
                        del ids[row][-tail:], states[row][-tail:]
                    elif emitted + 1 < max_new_tokens:
                        going.append(place)
                rows = [rows[place] for place in going]
                if not rows:
                    break
                last = self.embed([ids[row][-1] for row in rows])
                lengths = [len(embeddings[row]) + emitted for row in rows]
                running.step(going, last, torch.tensor(lengths, device=self.device))
            empty = running.states.new_zeros(0, self.config.hidden_size)
            return [
                Reply(tokens, torch.stack(kept) if kept else empty, reason)
                for tokens, kept, reason in zip(ids, states, reasons, strict=True)
            ]

    def trigger_scores(self, states: Tensor) -> list[float]:
        """Return the streaming rule's score of each state: its cosine with the period's row of `lm_head`."""
        import torch
        import torch.nn.functional as functional

        with torch.inference_mode():
            stop = self.network.lm_head.weight[self.config.period_id]
            return functional.cosine_similarity(states.float(), stop.float()[None]).tolist()

    def hidden_ids(self, states: Tensor) -> list[int]:
        """Return the token that each state spells: the argmax of the output layer."""
        import torch

        with torch.inference_mode():
            return self.network.lm_head(states).argmax(-1).tolist()

    def denoised(self, states: Tensor) -> Tensor:
        """Apply the denoising adapter: (length, hidden_size) states near the embeddings of the text that they spell."""
        import torch

        with torch.inference_mode():
            return self.network.unit_translator.aligner_MLP(states)

    def denoising_cosines(self, states: Tensor, ids: Sequence[int]) -> list[float]:
        """Return the cosine of each denoised state with the unit decoder's embedding of a token."""
        import torch
        import torch.nn.functional as functional

        with torch.inference_mode():
            texts = self.network.unit_translator.embed(torch.tensor(ids, dtype=torch.long, device=self.device))
            return functional.cosine_similarity(self.denoised(states).float(), texts.float()).tolist()


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Keep the likeliest tokens up to the one at which their cumulative probability exceeds `top_p`.

    Nucleus sampling (Holtzman et al. 2020).

    Args:
        logits: (rows, vocabulary).
        top_p: 1 keeps all.

    Returns:
        The logits, -inf where a token is not kept.
    """
    import torch
    import torch.nn.functional as functional

    if top_p == 1:
        return logits
    ranked, tokens = logits.sort(descending=True, stable=True)
    before = functional.pad(ranked.softmax(-1).cumsum(-1)[:, :-1], (1, 0))
    left_out = torch.zeros_like(before, dtype=torch.bool).scatter(1, tokens, before > top_p)
    return logits.masked_fill(left_out, -torch.inf)


def tower_of(path: Path, config: EchoXConfig) -> str:
    """Return the audio tower's name for `AudioTower.load`.

    A published `config.json` holds a path on its authors' machine, or one of the release's README. If there is no such
    directory, its last part is looked up in the checkpoint's directory, then in the parent directory.

    Raises:
        ModelError: the directory is in none of these places.
    """
    named = config.audio_tower
    if named == EMBEDDED:
        return named
    last = Path(named).name
    places = [path / named, path / last, path.parent / last]
    for place in places:
        if place.is_dir():
            return str(place)
    raise ModelError(
        f"{path}/config.json: audio_tower {named!r} is not a directory; download the Whisper that it names "
        f"(openai/whisper-large-v3 in the release) to {places[1]}, or set audio_tower to its directory"
    )


def tower_digest(path: Path, config: EchoXConfig) -> str:
    """Return the audio tower's digest, for the fingerprint."""
    tower = tower_of(path, config)
    return weights_of(tower) if tower == EMBEDDED else digest(Path(tower))


def load_network(
    path: Path, config: EchoXConfig, tensors: dict[str, Tensor], audio_width: int, dtype: torch.dtype
) -> EchoXNetwork:
    """Return the network with a checkpoint's tensors, without copying them.

    Raises:
        ModelError: a tensor is missing, unexpected, or has another shape.
    """
    import torch
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    from echo_targets.transforms.models.echox.network import EchoXNetwork

    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(".rotary_emb.inv_freq")}
    embeddings = tensors.get("model.embed_tokens.weight")
    if config.tie_word_embeddings and embeddings is not None:
        output = tensors.setdefault("lm_head.weight", embeddings)
        if not torch.equal(output, embeddings):
            raise ModelError(
                f"{path}/config.json: tie_word_embeddings is true, but the weights have an lm_head.weight that is not "
                "model.embed_tokens.weight; set it to false if the output layer was trained"
            )
    with torch.device("meta"):  # skips initialization, since the checkpoint replaces all weights
        network = EchoXNetwork(config, audio_width)
    try:
        check_tensors(path, network.state_dict(), tensors)
    except ModelError as error:
        decoder = config.unit_decoder
        raise ModelError(
            f"{error}. config.json describes {config.num_hidden_layers} layers of width {config.hidden_size}, and "
            f"unit_model ({_name(config)}) a unit decoder of {decoder.num_layers} layers of width "
            f"{decoder.hidden_size}: copy config.json and all weight files of one checkpoint"
        ) from error
    network.load_state_dict({name: tensor.to(dtype) for name, tensor in tensors.items()}, assign=True)
    for llama in (network.model, network.unit_translator.model):  # its frequencies are not weights
        with network.lm_head.weight.device:  # transformers 5 has no argument for it
            llama.rotary_emb = LlamaRotaryEmbedding(llama.config)
    return network


def _name(config: EchoXConfig) -> str:
    if isinstance(config.unit_model, dict):
        return "its sizes"
    return "unset" if config.unit_model is None else repr(config.unit_model)
