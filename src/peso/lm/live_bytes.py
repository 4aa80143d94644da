"""How many bytes of tensors are alive, and how many were at most: counted at every operation."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Inside, storages that operations allocate are counted until they are freed.

    What an operation holds while it runs is not seen. What was there before counts once an operation returns it or a
    view of it. Fake tensors count as real ones.
    """

    def __init__(self, standing: Iterable[torch.Tensor] = ()) -> None:
        """Starts with nothing.

        Args:
            standing: there before and behind, and never counted.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        # Held, so that no other storage gets the address of one that is given up meanwhile, and passes for it.
        self._standing = [tensor.untyped_storage() for tensor in standing]
        self._alive = {storage._cdata for storage in self._standing}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs an operation and counts the storages of its results that are new."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._alive:
            return
        self._alive.add(key)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size
