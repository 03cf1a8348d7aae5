"""EchoX's two decoders run by transformers' `generate`, as a baseline: batched, greedy, with the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LlamaForCausalLM, LogitsProcessor, LogitsProcessorList

from echo_targets.transforms.models.echox.model import EchoX, Prompt
from echo_targets.transforms.models.t2c.llama_decoding import padded_left
from echo_targets.transforms.models.t2c.network import T2CModule

Ids = list[list[int]]


class Generating:
    """Generates replies to prompts, and units of texts, with `generate`."""

    def __init__(self, echox: EchoX) -> None:
        self._end_ids, self._t2c = sorted(echox.config.end_ids), echox.t2c
        self._language_model = LlamaForCausalLM(echox.network.model.config).eval()
        self._language_model.model, self._language_model.lm_head = echox.network.model, echox.network.lm_head
        self._units = _Units(echox.t2c.module).eval()

    def replies(self, prompts: Sequence[Prompt], max_new_tokens: int) -> Ids:
        """Do the same as `EchoX.respond`, except that a looping reply is not stopped."""
        embeddings, _ = padded_left([prompt.embeddings for prompt in prompts])
        seen, _ = padded_left([prompt.seen for prompt in prompts])
        settings = _greedy(max_new_tokens, self._end_ids)
        with torch.inference_mode():
            said = self._language_model.generate(
                inputs_embeds=embeddings, attention_mask=seen, generation_config=settings
            )
        return _until(said, self._end_ids)

    def speak(self, texts: Ids, max_units: int) -> Ids:
        """Do the same as `T2C.generate`, except that loops are not stopped and all rows have the longest limit."""
        module, config = self._t2c.module, self._t2c.config
        prompts = [module.adapter(module.embed(torch.tensor(config.prompt(text)))) for text in texts]
        embeddings, mask = padded_left(prompts)
        self._units.lengths = torch.tensor([len(prompt) for prompt in prompts])
        limit = max(self._t2c.limit(len(text), max_units) for text in texts)
        with torch.inference_mode():
            said = self._units.generate(
                inputs_embeds=embeddings,
                attention_mask=mask,
                generation_config=_greedy(limit, [config.end_id]),
                logits_processor=LogitsProcessorList([_UnitsOnly(module)]),
            )
        return [[token - config.text_vocab_size for token in ids] for ids in _until(said, [config.end_id])]


class _Units(LlamaForCausalLM):
    """The unit decoder: ids pass through its embeddings and adapter, at the stretched positions of its training."""

    def __init__(self, module: T2CModule) -> None:
        super().__init__(module.model.config)
        self._module = [module]  # in a list, so that it is not registered as a submodule
        self.model, self.lm_head = module.model, module.lm_head
        self.lengths = torch.zeros(0, dtype=torch.long)

    def prepare_inputs_for_generation(  # type: ignore[override]
        self, input_ids: Any, inputs_embeds: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        (module,) = self._module
        inputs = super().prepare_inputs_for_generation(input_ids, inputs_embeds=inputs_embeds, **kwargs)
        longest = int(self.lengths.max())
        places = inputs["cache_position"][None] - (longest - self.lengths)[:, None]
        inputs["position_ids"] = torch.stack(
            [
                module.positions(int(length), 1 + int(row[-1]))[row.clamp_min(0)]
                for length, row in zip(self.lengths, places, strict=True)
            ]
        )
        if inputs.get("inputs_embeds") is None:
            inputs["inputs_embeds"] = module.adapter(module.embed(inputs.pop("input_ids")))
        return inputs


class _UnitsOnly(LogitsProcessor):
    """Allows only units and the end token, and never the unit just emitted."""

    def __init__(self, module: T2CModule) -> None:
        config = module.config
        self._barred = torch.ones(len(module.lm_head.weight), dtype=torch.bool)
        self._barred[config.decodable] = False
        self._barred[config.end_id] = False

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores.masked_fill(self._barred, -torch.inf)
        return scores.scatter(1, input_ids[:, -1:], -torch.inf) if input_ids.shape[1] else scores


def _greedy(max_new_tokens: int, end_ids: list[int]) -> GenerationConfig:
    return GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, eos_token_id=end_ids, pad_token_id=end_ids[0]
    )


def _until(said: Tensor, end_ids: list[int]) -> Ids:
    rows = []
    for ids in said.tolist():
        ends = [place for place, token in enumerate(ids) if token in end_ids]
        rows.append(ids[: ends[0]] if ends else ids)
    return rows
