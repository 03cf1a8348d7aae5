"""The text-to-codec network and its decoding. Imports torch: load it where a model is set up.

Tensor names are those of EchoX's unit decoder (`unit_translator.*`, arXiv 2509.09174): a Llama decoder reads text
embeddings, then unit embeddings, both through one linear `adapter`, and predicts the next unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from transformers import LlamaModel

from transforms.models.decoding import RunningBatch, llama_config
from transforms.models.t2c import Chosen, T2CConfig, looping_tail


class T2CModule(nn.Module):
    """Ids below `text_vocab_size` are text, those above it units."""

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
        self.dropout = nn.Dropout(dropout)

    def embed(self, ids: Tensor) -> Tensor:
        """Text and unit ids of any shape to their embeddings, before `adapter`."""
        units = ids >= self.config.text_vocab_size
        text = self.model.embed_tokens(ids.masked_fill(units, 0))
        unit = self.unit_embedding((ids - self.config.text_vocab_size).clamp_min(0))
        return torch.where(units.unsqueeze(-1), unit, text)

    def forward(self, embeddings: Tensor, positions: Tensor) -> Tensor:
        """(B, T, text_embedding_size), padded on the right, and (B, T) positions to logits (B, T, whole vocabulary)."""
        hidden = self.model(
            inputs_embeds=self.dropout(self.adapter(embeddings)),
            position_ids=positions,
            # Said outright, or transformers takes stretched positions for packed sequences.
            attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long, device=embeddings.device),
            use_cache=False,
        )
        logits: Tensor = self.lm_head(hidden.last_hidden_state)
        return logits

    def positions(self, prompt_length: int, count: int, start: int = 0) -> Tensor:
        """Positions `start` to `start + count` of a sequence whose prompt is `prompt_length` long; (count,) float32.

        With `units_per_text_token` both text and units count in units from zero, so that a unit stands about where its
        text does, however long the text; else units go on where the prompt ends, as in EchoX.
        """
        index = torch.arange(start, start + count, dtype=torch.float32, device=self.lm_head.weight.device)
        stretch = self.config.units_per_text_token
        return index if stretch is None else torch.where(index < prompt_length, index * stretch, index - prompt_length)

    def unit_position(self, prompt_length: int, number: int) -> int:
        """The position of unit `number` after a prompt `prompt_length` long, as `positions` counts."""
        return prompt_length + number if self.config.units_per_text_token is None else number

    @torch.inference_mode()
    def decode(
        self, prompts: list[Tensor], limits: list[int], beams: int = 1, *, constrained: bool = True
    ) -> list[Chosen]:
        """The likeliest ids up to `end_id`, a row's limit, or a loop: by greedy or beam search.

        Args:
            prompts: one (length, text_embedding_size) tensor a row, before `adapter`.
            limits: the most ids to emit, one a row.
            beams: hypotheses that each row keeps; 1 is greedy. The one of the best mean log-probability is chosen.
            constrained: only units and the end, and never the unit just emitted, which would be no new unit (words of
                units may follow themselves); else any id of the vocabulary.

        Returns:
            Ids of the whole vocabulary, one `Chosen` a row; a row's result does not depend on the others.
        """
        config, device = self.config, self.lm_head.weight.device
        choices = torch.arange(len(self.lm_head.weight), device=device)
        if constrained:
            choices = torch.tensor([config.end_id, *config.decodable], device=device)
        output = self.lm_head.weight[choices]
        place_of = {token: place for place, token in enumerate(choices.tolist())} if constrained else {}
        lengths = [len(prompt) for prompt in prompts]
        running = RunningBatch(
            self.model,
            [self.adapter(prompt) for prompt in prompts],
            [self.positions(length, length) for length in lengths],
        )
        beams_of_rows = [_Beams([], []) for _ in prompts]
        hypotheses = [_Hypothesis(row, [], []) for row in range(len(prompts))]
        for emitted in range(max(limits)):
            logits = functional.linear(running.states, output).float()
            if constrained and emitted and config.spellings is None:
                said = [[place_of[hypothesis.ids[-1]]] for hypothesis in hypotheses]
                logits.scatter_(1, torch.tensor(said, device=device), -torch.inf)
            best = logits.log_softmax(-1).topk(min(beams + 1, len(choices)))
            tokens, logprobs = choices[best.indices].tolist(), best.values.tolist()
            for place, hypothesis in enumerate(hypotheses):
                candidates = [(place, *pair) for pair in zip(tokens[place], logprobs[place], strict=True)]
                beams_of_rows[hypothesis.row].going += candidates
            going, places = [], []
            for row, kept in enumerate(beams_of_rows):
                for place, hypothesis in kept.advance(hypotheses, beams, config.end_id, limits[row], constrained):
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


@dataclass
class _Beams:
    """A row's candidates for the next token, as (place, token, log-probability), and what it has finished."""

    going: list[tuple[int, int, float]]
    finished: list[Chosen]

    def advance(
        self, hypotheses: list[_Hypothesis], beams: int, end_id: int, limit: int, constrained: bool
    ) -> list[tuple[int, _Hypothesis]]:
        """The hypotheses that go on, each with the place of the one it continues; none once `beams` have finished."""
        ranked = sorted(self.going, key=lambda one: -sum(hypotheses[one[0]].logprobs) - one[2])
        self.going = []
        going: list[tuple[int, _Hypothesis]] = []
        for rank, (place, token, logprob) in enumerate(ranked):
            if len(going) == beams:
                break
            row, ids, before = hypotheses[place]
            logprobs = [*before, logprob]
            if token == end_id:
                if rank < beams:
                    self.finished.append(Chosen(ids, logprobs, "end"))
                continue
            ids = [*ids, token]
            tail = looping_tail(ids) if constrained else 0
            if tail:
                self.finished.append(Chosen(ids[:-tail], logprobs, "repetition"))
            elif len(ids) == limit:
                self.finished.append(Chosen(ids, logprobs, "length"))
            else:
                going.append((place, _Hypothesis(row, ids, logprobs)))
        return [] if len(self.finished) >= beams else going

    def best(self) -> Chosen:
        return max(self.finished, key=lambda one: sum(one.logprobs) / len(one.logprobs))
