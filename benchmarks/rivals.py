"""The stock libraries, used well: the Trainer of transformers with one example per target, and its `generate`."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from transformers import GenerationConfig, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from peso.config import RunConfig
from peso.lm.backbone import build_backbone
from peso.lm.rows import Rows
from peso.lm.sequences import SequenceBuilder
from peso.lm.vocabulary import Vocabulary
from peso.training.materials import Materials

IGNORED = -100


def stock_model(materials: Materials, token_ids: Sequence[int]) -> PeftModel:
    """The configured backbone with the configured adapter, both exactly as the libraries make them."""
    config: RunConfig = materials.config
    model, _ = build_backbone(config.backbone, materials.semantic_ids.level_sizes, config.seed)
    rows = {"embed_tokens": list(token_ids), "lm_head": list(token_ids)}
    lora = LoraConfig(
        r=config.adapter.r,
        lora_alpha=config.adapter.lora_alpha,
        target_modules=list(config.adapter.target_modules),
        trainable_token_indices=rows,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, lora)
    assert isinstance(adapted, PeftModel)
    return adapted


class Examples(Dataset[dict[str, Tensor]]):
    """One example per target: the prompt, then the target's tokens, which alone are labelled."""

    def __init__(self, builder: SequenceBuilder, rows: Rows) -> None:
        """Writes every example once, before the clock starts.

        Args:
            builder: writes prompts.
            rows: one target each.
        """
        items = builder.dataset.event_item
        self._examples = []
        for start, target in zip(rows.start, rows.first_target, strict=True):
            prompt, answer = builder.prompt(items[start:target]), builder.vocabulary.item_token_ids[items[target]]
            labels = np.concatenate([np.full_like(prompt, IGNORED), answer])
            tokens = torch.from_numpy(np.concatenate([prompt, answer]))
            self._examples.append({"input_ids": tokens, "labels": torch.from_numpy(labels)})

    def __len__(self) -> int:
        """Number of examples."""
        return len(self._examples)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """One example."""
        return self._examples[number]


def _collate(examples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    lengths = torch.tensor([len(example["input_ids"]) for example in examples])
    columns = {
        key: pad_sequence([example[key] for example in examples], batch_first=True, padding_value=filler)
        for key, filler in (("input_ids", 0), ("labels", IGNORED))
    }
    return columns | {"attention_mask": (torch.arange(int(lengths.max())) < lengths[:, None]).long()}


class _Clock(TrainerCallback):
    """Times every step but the first, which pays for the set-up."""

    def __init__(self) -> None:
        self.started = self.ended = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ended = time.perf_counter()
        self.started = self.started or self.ended


def trainer_seconds_per_target(model: PeftModel, examples: Examples, batch: int, folder: str) -> float:
    """One epoch of Hugging Face's Trainer, with batches of similar length.

    Args:
        model: trained in place.
        examples: the data.
        batch: examples per step.
        folder: for what the Trainer insists on writing (nothing).
    """
    clock = _Clock()
    arguments = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=batch,
        num_train_epochs=1,
        learning_rate=1e-4,
        train_sampling_strategy="group_by_length",
        dataloader_drop_last=True,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    Trainer(model, arguments, data_collator=_collate, train_dataset=examples, callbacks=[clock]).train()
    return (clock.ended - clock.started) / (batch * (len(examples) // batch - 1))


class StockDecoder:
    """`generate` with a `prefix_allowed_tokens_fn` over a trie of Python dictionaries."""

    def __init__(self, model: PreTrainedModel, vocabulary: Vocabulary, allowed: NDArray[np.int64], width: int) -> None:
        """Builds the trie.

        Args:
            model: causal LM in eval mode.
            vocabulary: each item's tokens.
            allowed: int64, items that may be named.
            width: beams, all of which are returned.
        """
        self._model = model
        self._pad = vocabulary.pad_token_id
        self._num_levels = vocabulary.num_levels
        self._item_of = {tuple(vocabulary.item_token_ids[item].tolist()): int(item) for item in allowed}
        children: dict[tuple[int, ...], set[int]] = {}
        for tokens in self._item_of:
            for depth in range(self._num_levels):
                children.setdefault(tokens[:depth], set()).add(tokens[depth])
        self._children = {prefix: sorted(tokens) for prefix, tokens in children.items()}
        self._config = GenerationConfig(
            num_beams=width,
            num_return_sequences=width,
            max_new_tokens=self._num_levels,
            do_sample=False,
            length_penalty=0.0,
            pad_token_id=self._pad,
            return_dict_in_generate=True,
            output_scores=True,
        )

    @torch.inference_mode()
    def recommend(self, prompts: Sequence[NDArray[np.int64]]) -> tuple[list[list[int]], Tensor]:
        """Items of every prompt, best first, and their scores [B, width], in one left-padded batch."""
        longest = max(map(len, prompts))
        tokens = torch.full((len(prompts), longest), self._pad)
        mask = torch.zeros_like(tokens)
        for row, prompt in enumerate(prompts):
            tokens[row, longest - len(prompt) :] = torch.from_numpy(prompt)
            mask[row, longest - len(prompt) :] = 1

        def allowed_tokens(batch: int, sequence: Tensor) -> list[int]:
            return self._children[tuple(sequence[longest:].tolist())]

        output = self._model.generate(  # type: ignore[operator]
            tokens, attention_mask=mask, generation_config=self._config, prefix_allowed_tokens_fn=allowed_tokens
        )
        items = [self._item_of[tuple(row)] for row in output.sequences[:, longest:].tolist()]
        width = self._config.num_beams
        return [items[start : start + width] for start in range(0, len(items), width)], output.sequences_scores.view(
            -1, width
        )
