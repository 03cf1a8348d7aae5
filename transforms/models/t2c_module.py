"""The text-to-codec network and its greedy decoding. Imports torch: load it where a model is set up.

Tensor names are those of EchoX's unit decoder (`unit_translator.*`, arXiv 2509.09174): a Llama decoder reads text
embeddings, then unit embeddings, both through one linear `adapter`, and predicts the next unit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaModel

from transforms.models.t2c import Greedy, StopReason, T2CConfig, looping_tail


class T2CModule(nn.Module):
    """Ids below `text_vocab_size` are text, those above it units."""

    def __init__(self, config: T2CConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        vocab = config.text_vocab_size + config.unit_vocab_size
        llama = LlamaConfig(
            vocab_size=1,
            hidden_size=config.hidden_size,
            intermediate_size=config.ffn_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            max_position_embeddings=config.max_positions,
            rope_theta=config.rope_theta,
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

    def forward(
        self,
        embeddings: Tensor,
        positions: Tensor,
        attention_mask: Tensor | None = None,
        past: DynamicCache | None = None,
    ) -> Tensor:
        """(B, T, text_embedding_size) and (B, T) positions to logits (B, T, text and unit vocabulary)."""
        if attention_mask is None:  # said outright, or transformers takes stretched positions for packed sequences
            attention_mask = torch.ones(embeddings.shape[:2], dtype=torch.long, device=embeddings.device)
        hidden = self.model(
            inputs_embeds=self.dropout(self.adapter(embeddings)),
            position_ids=positions,
            attention_mask=attention_mask,
            past_key_values=past,
            use_cache=past is not None,
        )
        return self.lm_head(hidden.last_hidden_state)

    def positions(self, prompt_length: int, count: int, start: int = 0) -> Tensor:
        """Positions `start` to `start + count` of a sequence whose prompt is `prompt_length` long; (count,) float32.

        With `units_per_text_token` both text and units count in units from zero, so that a unit stands about where its
        text does, however long the text; else units go on where the prompt ends, as in EchoX.
        """
        index = torch.arange(start, start + count, dtype=torch.float32, device=self.lm_head.weight.device)
        stretch = self.config.units_per_text_token
        return index if stretch is None else torch.where(index < prompt_length, index * stretch, index - prompt_length)

    @torch.inference_mode()
    def greedy(self, prompts: list[Tensor], limits: list[int], *, constrained: bool = True) -> list[Greedy]:
        """The likeliest next id, again and again, until `end_id`, a row's limit, or a loop.

        Args:
            prompts: one (length, text_embedding_size) tensor a row, before `adapter`.
            limits: the most ids to emit, one a row.
            constrained: units and the end alone, and never the unit just emitted; else any id of the vocabulary.

        Returns:
            Ids of the whole vocabulary, one `Greedy` a row; a row's result does not depend on the others.
        """
        config, device = self.config, self.lm_head.weight.device
        lengths = [len(prompt) for prompt in prompts]
        longest = max(lengths)
        width = config.text_embedding_size
        embeddings = torch.zeros(len(prompts), longest, width, device=device)
        mask = torch.zeros(len(prompts), longest, dtype=torch.long, device=device)
        positions = torch.zeros(len(prompts), longest, device=device)
        for row, prompt in enumerate(prompts):  # padded on the left, so that all rows go on at one place
            embeddings[row, longest - len(prompt) :] = prompt
            mask[row, longest - len(prompt) :] = 1
            positions[row, longest - len(prompt) :] = self.positions(len(prompt), len(prompt))
        banned = torch.zeros(config.text_vocab_size + config.unit_vocab_size, dtype=torch.bool, device=device)
        if constrained:
            banned[: config.text_vocab_size] = True
            banned[config.end_id] = False

        rows = list(range(len(prompts)))
        ids: list[list[int]] = [[] for _ in rows]
        logprobs: list[list[float]] = [[] for _ in rows]
        reasons: list[StopReason] = ["length"] * len(rows)
        past = DynamicCache()
        for emitted in range(max(limits)):
            logits = self(embeddings, positions, mask, past)[:, -1].float().masked_fill(banned, -torch.inf)
            if constrained and emitted:
                logits.scatter_(1, torch.tensor([[ids[row][-1]] for row in rows], device=device), -torch.inf)
            best = logits.log_softmax(-1).max(-1)
            going = []
            for place, (row, token, logprob) in enumerate(
                zip(rows, best.indices.tolist(), best.values.tolist(), strict=True)
            ):
                logprobs[row].append(logprob)
                if token == config.end_id:
                    reasons[row] = "end"
                    continue
                ids[row].append(token)
                if constrained and (tail := looping_tail(ids[row])):
                    reasons[row] = "repetition"
                    del ids[row][-tail:]
                elif len(ids[row]) < limits[row]:
                    going.append(place)
            if not going:
                break
            if len(going) < len(rows):
                keep = torch.tensor(going, device=device)
                past.batch_select_indices(keep)
                mask = mask[keep]
                rows = [rows[place] for place in going]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            embeddings = self.embed(torch.tensor([[ids[row][-1]] for row in rows], device=device))
            positions = torch.stack([self.positions(lengths[row], 1, lengths[row] + emitted) for row in rows])
        return [Greedy(*row) for row in zip(ids, logprobs, reasons, strict=True)]
