"""Compare the echo stage's Llama in transformers and in fairseq2, with the same weights, prompts and resulting ids.

python -m benchmarks.llama [--rows 16] [--rounds 5] [--threads 2]

A row is a prompt of 150 embeddings and a reply of 48 tokens, like an echo turn. *Given* replies take one forward pass,
with rows of different lengths in one batch; *generated* replies are decoded greedily with a key-value cache. fairseq2's
cache has one step count for all rows, so its prompts must have equal lengths; ours may differ (padded on the left).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.common import compare
from echo_targets.transforms.assets import asset
from echo_targets.transforms.models.checkpoints.fairseq2 import start_fairseq2
from echo_targets.transforms.models.t2c.decoding import RunningBatch, padded_left, positions_of

PROMPT, REPLY = 150, 48
EPSILON = 1e-5
"""Epsilon of fairseq2's norms and of Llama 3's."""


class Ours:
    """transformers' Llama, used as in `echo_targets.transforms.models.echox`."""

    def __init__(self, llama: LlamaForCausalLM) -> None:
        self.llama = llama

    def given(self, rows: Sequence[Tensor]) -> list[list[int]]:
        batch, mask = padded_left(rows)
        states = self.llama.model(
            inputs_embeds=batch, attention_mask=mask, position_ids=positions_of(mask), use_cache=False
        ).last_hidden_state
        return [self.llama.lm_head(row[-REPLY:]).argmax(-1).tolist() for row in states]

    def generated(self, prompts: Sequence[Tensor]) -> list[list[int]]:
        running, places = RunningBatch(self.llama.model, prompts), range(len(prompts))
        ids = [self.llama.lm_head(running.states).argmax(-1)]
        for emitted in range(REPLY - 1):
            positions = torch.full((len(prompts),), PROMPT + emitted)
            running.step(places, self.llama.model.embed_tokens(ids[-1]), positions)
            ids.append(self.llama.lm_head(running.states).argmax(-1))
        return torch.stack(ids, 1).tolist()


class Fairseq2:
    """fairseq2's Llama with its incremental state."""

    def __init__(self, llama: LlamaForCausalLM) -> None:
        start_fairseq2()
        from fairseq2.models.llama import LLaMAConfig, convert_llama_state_dict, create_llama_model
        from fairseq2.nn import BatchLayout, IncrementalStateBag

        self.layout, self.new_state = BatchLayout.of, partial(IncrementalStateBag, capacity_increment=None)
        sizes = llama.config
        config = LLaMAConfig(
            model_dim=sizes.hidden_size,
            max_seq_len=sizes.max_position_embeddings,
            vocab_size=sizes.vocab_size,
            num_layers=sizes.num_hidden_layers,
            num_attn_heads=sizes.num_attention_heads,
            num_key_value_heads=sizes.num_key_value_heads,
            ffn_inner_dim=sizes.intermediate_size,
            ffn_inner_dim_scale=1.0,
            ffn_inner_dim_multiple_of=1,
            rope_theta=sizes.rope_theta,
        )
        self.llama: Any = create_llama_model(config).eval()
        self.llama.load_state_dict(convert_llama_state_dict(dict(llama.state_dict()), config))

    def given(self, rows: Sequence[Tensor]) -> list[list[int]]:
        lengths = [len(row) for row in rows]
        batch = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
        states = self.llama.decoder(batch, self.layout(batch, lengths))
        said = [state[length - REPLY : length] for state, length in zip(states, lengths, strict=True)]
        return [self.llama.final_proj(row).argmax(-1).tolist() for row in said]

    def generated(self, prompts: Sequence[Tensor]) -> list[list[int]]:
        state, read, ids = self.new_state(PROMPT + REPLY), torch.stack(list(prompts)), []
        for _ in range(REPLY):
            states = self.llama.decoder(read, self.layout(read), state_bag=state)
            state.increment_step_nr(read.shape[1])
            ids.append(self.llama.final_proj(states[:, -1]).argmax(-1))
            read = self.llama.decoder_frontend.embed(ids[-1])[:, None]
        return torch.stack(ids, 1).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for name, default in (("rows", 16), ("rounds", 5), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default: {default}")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    nano = json.loads((asset("embedded:echox-nano") / "config.json").read_text())
    names = "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads"
    sizes = {name: nano[name] for name in names.split()}
    wide = {"vocab_size": 32_000, "hidden_size": 512, "intermediate_size": 2_048, "num_hidden_layers": 8}
    wide |= {"num_attention_heads": 8, "num_key_value_heads": 8}
    for model, of in (("echox-nano", sizes), ("512 wide, 8 layers, 32,000 tokens", wide)):
        llama = LlamaForCausalLM(LlamaConfig(**of, max_position_embeddings=1_024, rms_norm_eps=EPSILON)).eval()
        prompts = [torch.randn(PROMPT, of["hidden_size"]) * 0.02 for _ in range(chosen.rows)]
        rows = [torch.cat([prompt[n % 50 :], prompt[:REPLY]]) for n, prompt in enumerate(prompts)]
        both = {"echo-targets: transformers": Ours(llama), "fairseq2": Fairseq2(llama)}
        for work, given in (("given", rows), ("generated", prompts)):
            with torch.inference_mode():
                ids = [getattr(each, work)(given) for each in both.values()]
                assert ids[0] == ids[1], f"{model}, {work}: the ids differ"
                print(f"\n{model}, {work}: {chosen.rows} rows of {REPLY} tokens; the same ids\n")
                works = {name: partial(getattr(each, work), given) for name, each in both.items()}
                compare(works, 0.0, chosen.rounds, rows=chosen.rows)


if __name__ == "__main__":
    main()
