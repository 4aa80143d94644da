"""What continual methods may look at before a block is trained: past adapters, inputs and gradients."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn

from peso.data.examples import targets_of_block
from peso.errors import ConfigError
from peso.lm.adapters import carried_of, stored_update, token_row_parameters
from peso.lm.backbone import body_of
from peso.lm.likelihood import hidden_states
from peso.lm.low_rank import LowRank, adapted_layers, fresh_low_rank, read_low_rank, write_low_rank
from peso.lm.parameters import FlatParameters
from peso.lm.past_adapters import freeze_past
from peso.lm.quick_stack import layer_by_layer
from peso.lm.rows import Rows
from peso.methods.base import Part
from peso.seeding import derive_seed
from peso.training.base import LORA, TOKEN_ROWS, training_rows
from peso.training.code_losses import evaluation_batches
from peso.training.curvature import layer_moments, squared_gradients
from peso.training.materials import Materials, Reader
from peso.training.processes import num_processes

MAX_FISHER_ROWS = 1024
"""Users whose gradients make up the Fisher matrix of an earlier block, at most."""
MAX_METRIC_ROWS = 256
"""The same of the block about to be trained on: a pass for each costs a quarter of a small update as it is."""


class RunView:
    """`peso.methods.base.BlockView` of a run; one object serves one block."""

    def __init__(
        self, materials: Materials, reader: Reader, model: PeftModel | None, adapters: Path, block: int
    ) -> None:
        """Keeps where to look.

        Args:
            materials: data and configuration.
            reader: how the backbone reads items.
            model: holds an adapter that may be overwritten; None where no adapter trains.
            adapters: folder of the run's adapters, with `block_0` to `block_<block - 1>`.
            block: about to be trained on.
        """
        self.dataset, self.block, self.seed = materials.dataset, block, materials.config.seed
        self._materials, self._reader, self._model, self._adapters = materials, reader, model, adapters
        self._parts: dict[str, FlatParameters] = {}
        self._squares: dict[tuple[int | Part, ...], Mapping[Part, Sequence[Tensor]]] = {}
        self._moments: dict[int, Mapping[str, tuple[Tensor, Tensor]]] = {}
        self._watching = ExitStack()

    def begin(self, parts: dict[str, FlatParameters]) -> None:
        """Tells what is about to train; its values are where training starts."""
        self._parts = parts
        # Measured where training starts, once for all strengths that are tried from there.
        self._squares.clear()
        self._moments.clear()

    def state_after(self, block: int) -> LowRank:
        """See `BlockView`."""
        stored = stored_update(carried_of(self._adapters / f"block_{block}"), self._materials.config.adapter.r)
        return stored.to(self._reader.model.device)

    def fresh_state(self) -> LowRank:
        """See `BlockView`."""
        return fresh_low_rank(self.state_after(self.block - 1), derive_seed(self.seed, "block", self.block))

    def group_names(self, part: Part = LORA) -> Sequence[tuple[str, ...]]:
        """See `BlockView`."""
        return [stack.names for stack in self._parts[part].stacks]

    def watch_inputs(self) -> dict[str, list[Tensor]]:
        """See `BlockView`; until `close`, every layer runs by itself."""
        assert self._model is not None, "inputs are those of adapted layers"
        if num_processes() > 1:
            raise ConfigError(
                "this method looks at the inputs of every pass, which several processes would share; start it with one."
            )
        body, pad_token_id = body_of(self._reader.model), self._reader.builder.vocabulary.pad_token_id
        is_real: list[Tensor] = []
        inputs: dict[str, list[Tensor]] = {name: [] for name in adapted_layers(self._model)}

        def note_tokens(_module: nn.Module, _arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            is_real[:] = [(named["input_ids"] != pad_token_id).flatten()]

        def keeping(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            def keep(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
                if module.training:
                    inputs[name].append(arguments[0].detach().flatten(0, -2)[is_real[0]].float())

            return keep

        self._watching.enter_context(layer_by_layer(self._reader.model))
        handles = [body.register_forward_pre_hook(note_tokens, with_kwargs=True)]
        handles += [
            layer.register_forward_pre_hook(keeping(name)) for name, layer in adapted_layers(self._model).items()
        ]
        for handle in handles:
            self._watching.callback(handle.remove)
        return inputs

    def close(self) -> None:
        """Ends what `watch_inputs` began; the model is as before."""
        self._watching.close()

    @torch.no_grad()
    def input_grams(self, frozen: Sequence[LowRank], blocks: Sequence[int]) -> dict[str, Tensor]:
        """See `BlockView`."""
        assert self._model is not None, "inputs are those of adapted layers"
        silent = read_low_rank(self._model).scaled(0.0)
        write_low_rank(self._model, silent)
        freeze_past(self._model, frozen, learns_magnitudes=False)
        model, builder = self._reader.model.eval(), self._reader.builder
        layers = adapted_layers(self._model)
        grams = {name: a.new_zeros(a.shape[1], a.shape[1]) for name, a in silent.a.items()}
        is_real: list[Tensor] = []

        def counting(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            def count(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
                real = inputs[0].flatten(0, -2)[is_real[0]]
                grams[name].addmm_(real.T, real)

            return count

        handles = [layers[name].register_forward_pre_hook(counting(name)) for name in layers]
        num_tokens = 0
        with layer_by_layer(model):
            for block in blocks:
                rows = training_rows(self._materials, targets_of_block(self.dataset, block, "train"))
                for chosen in evaluation_batches(builder, rows):
                    batch = builder.batch(rows.take(chosen)).to(model.device)
                    places = torch.arange(batch.input_ids.shape[1])
                    lengths = torch.from_numpy(builder.row_lengths(rows.take(chosen)))
                    is_real[:] = [(places < lengths[:, None]).flatten().to(model.device)]
                    num_tokens += int(is_real[0].sum())
                    hidden_states(model, batch)
        for handle in handles:
            handle.remove()
        return {name: gram / num_tokens for name, gram in grams.items()}

    def squared_gradients(self, block: int, parts: Sequence[Part] = (LORA,)) -> Mapping[Part, Sequence[Tensor]]:
        """See `BlockView`; a sample of rows if there are too many."""
        key = (block, *parts)
        if key not in self._squares:
            self._squares[key] = squared_gradients(self._reader, self._parts, self._sampled_rows(block), parts)
        return self._squares[key]

    def layer_moments(self, block: int) -> Mapping[str, tuple[Tensor, Tensor]]:
        """See `BlockView`; of the same sample."""
        assert self._model is not None, "moments are those of adapted layers"
        if block not in self._moments:
            self._moments[block] = layer_moments(self._reader, self._model, self._parts, self._sampled_rows(block))
        return self._moments[block]

    def row_counts(self, block: int) -> Sequence[Tensor]:
        """See `BlockView`."""
        assert self._model is not None, "token rows train beside an adapter"
        vocabulary = self._reader.builder.vocabulary
        items = self.dataset.event_item[targets_of_block(self.dataset, block, "train")]
        tables = dict(token_row_parameters(self._model))
        codes = vocabulary.all_token_ids
        num_tokens = max(codes[-1] + 1, *map(len, tables.values()))
        of_tokens = np.bincount(vocabulary.item_token_ids[items].ravel(), minlength=num_tokens)

        def of_table(name: str) -> Tensor:
            rows = tables[name]
            counts = of_tokens[codes] if len(rows) == len(codes) else of_tokens[: len(rows)]
            return torch.from_numpy(counts).to(rows)

        return [torch.stack([of_table(name) for name in names]) for names in self.group_names(TOKEN_ROWS)]

    def _sampled_rows(self, block: int) -> Rows:
        rows = training_rows(self._materials, targets_of_block(self.dataset, block, "train"))
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "fisher", block))
        most = MAX_FISHER_ROWS if block < self.block else MAX_METRIC_ROWS
        return rows.take(torch.randperm(len(rows), generator=generator)[:most].sort().values.numpy())
