"""The text-to-codec network and its decoding. Imports torch, so import this only where a model is set up.

Tensor names are those of EchoX's unit decoder (`unit_translator.*`, arXiv 2509.09174): a Llama decoder processes text
embeddings, then unit embeddings, both through one linear `adapter`, and predicts the next unit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from transformers import LlamaModel

from echo_targets.transforms.models.t2c.config import Chosen, StopReason, T2CConfig, looping_frames, looping_tail
from echo_targets.transforms.models.t2c.llama_decoding import RunningBatch, llama_config


class T2CModule(nn.Module):
    """Llama decoder of units. Ids below `text_vocab_size` are text, ids above are units.

    With `max_duration`, a unit's state also predicts how many frames it lasts.
    """

    def __init__(self, config: T2CConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        vocab = config.text_vocab_size + config.unit_vocab_size
        llama = llama_config(
            vocab_size=1,
            hidden_size=config.hidden_size,
            intermediate_size=config.ffn_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            hidden_act=config.hidden_act,
            attention_bias=config.attention_bias,
            mlp_bias=config.mlp_bias,
            max_position_embeddings=config.max_positions,
            rope_theta=config.rope_theta,
            rope_scaling=config.rope_scaling,
            rms_norm_eps=config.rms_norm_eps,
        )
        llama._attn_implementation = "sdpa"
        self.model = LlamaModel(llama)
        self.model.embed_tokens = nn.Embedding(config.text_vocab_size, config.text_embedding_size)
        self.unit_embedding = nn.Embedding(config.unit_vocab_size, config.text_embedding_size)
        self.adapter = nn.Linear(config.text_embedding_size, config.hidden_size)
        self.lm_head = nn.Linear(config.hidden_size, vocab, bias=False)
        self.duration_head = nn.Linear(config.hidden_size, config.max_duration) if config.max_duration else None
        self.dropout = nn.Dropout(dropout)

    def embed(self, ids: Tensor) -> Tensor:
        """Return embeddings of text and unit ids of any shape, before `adapter`."""
        units = ids >= self.config.text_vocab_size
        text = self.model.embed_tokens(ids.masked_fill(units, 0))
        unit = self.unit_embedding((ids - self.config.text_vocab_size).clamp_min(0))
        return torch.where(units.unsqueeze(-1), unit, text)

    def forward(self, embeddings: Tensor, positions: Tensor) -> Tensor:
        """Map right-padded (B, T, text_embedding_size) and (B, T) positions to (B, T, whole vocabulary) logits."""
        return self.lm_head(self.states(embeddings, positions))

    def states(self, embeddings: Tensor, positions: Tensor) -> Tensor:
        """Map right-padded (B, T, text_embedding_size) and (B, T) positions to (B, T, hidden_size) states."""
        hidden = self.model(
            inputs_embeds=self.dropout(self.adapter(embeddings)),
            position_ids=positions,
            # Explicit, since transformers would take stretched positions for packed sequences.
            attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long, device=embeddings.device),
            use_cache=False,
        )
        return hidden.last_hidden_state

    def positions(self, prompt_length: int, count: int, start: int = 0) -> Tensor:
        """Return (count,) float32 positions from `start` on, for a sequence whose prompt has `prompt_length` ids.

        With `units_per_text_token`, text and units both count from zero in units, so that a unit's position is close to
        its text's, however long the text. Otherwise units continue where the prompt ends, as in EchoX.
        """
        index = torch.arange(start, start + count, dtype=torch.float32, device=self.lm_head.weight.device)
        stretch = self.config.units_per_text_token
        return index if stretch is None else torch.where(index < prompt_length, index * stretch, index - prompt_length)

    def unit_position(self, prompt_length: int, number: int) -> int:
        """Return the position of unit `number` after a prompt of `prompt_length` ids, as counted by `positions`."""
        return prompt_length + number if self.config.units_per_text_token is None else number

    @torch.inference_mode()
    def decode(
        self, prompts: list[Tensor], limits: list[int], beams: int = 1, *, constrained: bool = True
    ) -> list[Chosen]:
        """Decode the likeliest ids up to `end_id`, a row's limit, or a loop, by greedy or beam search.

        Args:
            prompts: one (length, text_embedding_size) tensor per row, before `adapter`.
            limits: maximum number of ids, per row.
            beams: hypotheses per row; 1 is greedy. The one with the best mean log-probability is returned.
            constrained: True allows only units and the end, and an id that repeats the previous one only if the config
                does. False allows any id of the vocabulary.

        Returns:
            Ids of the whole vocabulary, one `Chosen` per row. A row's result does not depend on the others.
        """
        config, device = self.config, self.lm_head.weight.device
        choices = torch.arange(len(self.lm_head.weight), device=device)
        if constrained:
            choices = torch.tensor([config.end_id, *config.decodable], device=device)
        output = self.lm_head.weight[choices]
        tail_of = (looping_frames if config.frames else looping_tail) if constrained else None
        place_of = {token: place for place, token in enumerate(choices.tolist())} if constrained else {}
        lengths = [len(prompt) for prompt in prompts]
        running = RunningBatch(
            self.model,
            [self.adapter(prompt) for prompt in prompts],
            [self.positions(length, length) for length in lengths],
        )
        beams_of_rows = [_Beams([], []) for _ in prompts]
        durations: list[int] | None = None if self.duration_head is None else []
        hypotheses = [_Hypothesis(row, [], [], durations) for row in range(len(prompts))]
        for emitted in range(max(limits)):
            if self.duration_head is not None and emitted:
                lasting = (self.duration_head(running.states).argmax(-1) + 1).tolist()
                hypotheses = [each.with_duration(frames) for each, frames in zip(hypotheses, lasting, strict=True)]
            logits = functional.linear(running.states, output).float()
            if constrained and emitted and not config.repeats:
                previous = [[place_of[hypothesis.ids[-1]]] for hypothesis in hypotheses]
                logits.scatter_(1, torch.tensor(previous, device=device), -torch.inf)
            best = logits.log_softmax(-1).topk(min(beams + 1, len(choices)))
            tokens, logprobs = choices[best.indices].tolist(), best.values.tolist()
            for place, hypothesis in enumerate(hypotheses):
                candidates = [(place, *pair) for pair in zip(tokens[place], logprobs[place], strict=True)]
                beams_of_rows[hypothesis.row].going += candidates
            going, places = [], []
            for row, kept in enumerate(beams_of_rows):
                for place, hypothesis in kept.advance(hypotheses, beams, config.end_id, limits[row], tail_of):
                    going.append(hypothesis)
                    places.append(place)
            hypotheses = going
            if not hypotheses:
                break
            ids = torch.tensor([hypothesis.ids[-1] for hypothesis in hypotheses], device=device)
            positions = [self.unit_position(lengths[hypothesis.row], emitted) for hypothesis in hypotheses]
            placed = torch.tensor(positions, dtype=torch.float32, device=device)
            running.step(places, self.adapter(self.embed(ids)), placed)
        return [row.best() for row in beams_of_rows]


class _Hypothesis(NamedTuple):
    row: int
    ids: list[int]
    logprobs: list[float]
    durations: list[int] | None

    def with_duration(self, frames: int) -> _Hypothesis:
        """Return the hypothesis with the duration of its last id."""
        return self._replace(durations=[*(self.durations or []), frames])

    def ended(self, ids: list[int], logprobs: list[float], reason: StopReason) -> Chosen:
        """Return the finished row. The last id of a row that was cut off has no duration yet; it lasts one frame."""
        durations = None if self.durations is None else [*self.durations, 1][: len(ids)]
        return Chosen(ids, logprobs, reason, durations)


@dataclass
class _Beams:
    """A row's candidates for the next token, as (place, token, log-probability), and its finished hypotheses."""

    going: list[tuple[int, int, float]]
    finished: list[Chosen]

    def advance(
        self,
        hypotheses: list[_Hypothesis],
        beams: int,
        end_id: int,
        limit: int,
        tail_of: Callable[[list[int]], int] | None,
    ) -> list[tuple[int, _Hypothesis]]:
        """Return the hypotheses to continue, each with its predecessor's place; none once `beams` are finished.

        Args:
            tail_of: returns how many ids at the end only repeat earlier ones; None ends no row for that.
        """
        ranked = sorted(self.going, key=lambda one: -sum(hypotheses[one[0]].logprobs) - one[2])
        self.going = []
        going: list[tuple[int, _Hypothesis]] = []
        for rank, (place, token, logprob) in enumerate(ranked):
            if len(going) == beams:
                break
            before = hypotheses[place]
            ids, logprobs = before.ids, [*before.logprobs, logprob]
            if token == end_id:
                if rank < beams:
                    self.finished.append(before.ended(ids, logprobs, "end"))
                continue
            ids = [*ids, token]
            tail = tail_of(ids) if tail_of else 0
            if tail:
                self.finished.append(before.ended(ids[:-tail], logprobs, "repetition"))
            elif len(ids) == limit:
                self.finished.append(before.ended(ids, logprobs, "length"))
            else:
                going.append((place, _Hypothesis(before.row, ids, logprobs, before.durations)))
        return [] if len(self.finished) >= beams else going

    def best(self) -> Chosen:
        return max(self.finished, key=lambda one: sum(one.logprobs) / len(one.logprobs))
