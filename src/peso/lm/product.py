"""One matrix whose rows belong to several linear layers, adapters included: its gradients and those of every A and B.

Shapes: T tokens, O and I output and input features, P rows of one part, r rank of its adapter.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_THIN_IS_SLOWER = 1.2
"""Thin products reach about this much less of a CPU's rate than whole ones."""

NeedsOfPart = tuple[bool, bool]
"""Whether A and B of a part ask for a gradient."""


@dataclass(frozen=True, eq=False)
class AdaptedRows:
    """Rows of a matrix that hold an adapter: W[rows] = W_0[rows] + s B' A', where B' is B reordered and A' = A * norm.

    Attributes:
        rows: which rows of the matrix.
        a: A [r, I], as the adapter has it; gradients flow to it if it asks for them.
        b: B [P, r], likewise.
        scale: s.
        norm: weights [I] of the norm in front, which do not train; None without one.
        pairs_of: head width whose halves become neighbouring pairs of rows; 0 leaves the rows in order.
        folded_a: A', no part of any graph.
        folded_b: B', likewise.
    """

    rows: slice
    a: Tensor
    b: Tensor
    scale: float
    norm: Tensor | None
    pairs_of: int
    folded_a: Tensor
    folded_b: Tensor

    @classmethod
    def fold(
        cls, first_row: int, a: Tensor, b: Tensor, scale: float = 1.0, norm: Tensor | None = None, pairs_of: int = 0
    ) -> "AdaptedRows":
        """Computes A' and B'; arguments as the attributes, rows from `first_row` on."""
        folded_a = a.detach() if norm is None else a.detach() * norm
        folded_b = in_pairs(b.detach(), pairs_of)
        return cls(slice(first_row, first_row + len(b)), a, b, scale, norm, pairs_of, folded_a, folded_b)

    def of_a(self, d_a: Tensor) -> Tensor:
        """The gradient of A from that of s A', which is used up."""
        d_a.mul_(self.scale)
        return d_a if self.norm is None else d_a.mul_(self.norm)

    def of_b(self, d_b: Tensor) -> Tensor:
        """The gradient of B from that of s B', which is used up."""
        return in_halves(d_b.mul_(self.scale), self.pairs_of)


@dataclass(frozen=True, eq=False)
class Product:
    """y = x W^T.

    Attributes:
        weight: W [O, I], everything included; it has a gradient where the layers' own weights train.
        adapted: the rows that hold an adapter, in order; none where weights train themselves.
    """

    weight: Tensor
    adapted: Sequence[AdaptedRows] = ()

    def parameters(self) -> Iterator[Tensor]:
        """A and B of every adapted part."""
        for part in self.adapted:
            yield from (part.a, part.b)


def in_pairs(matrix: Tensor, head_width: int) -> Tensor:
    """Rows of a matrix with the halves of every head as neighbouring pairs; unchanged for a width of 0."""
    if not head_width:
        return matrix
    return matrix.unflatten(0, (-1, 2, head_width // 2)).transpose(1, 2).flatten(0, 2)


def in_halves(matrix: Tensor, head_width: int) -> Tensor:
    """The inverse of `in_pairs`."""
    if not head_width:
        return matrix
    return matrix.unflatten(0, (-1, head_width // 2, 2)).transpose(1, 2).flatten(0, 2)


def with_adapters(base: Tensor, adapted: Sequence[AdaptedRows]) -> Tensor:
    """W from W_0 [O, I]: a copy with every s B' A' added."""
    first = adapted[0]
    if first.rows == slice(0, len(base)):
        return torch.addmm(base, first.folded_b, first.folded_a, alpha=first.scale)
    merged = base.clone()
    for part in adapted:
        merged[part.rows].addmm_(part.folded_b, part.folded_a, alpha=part.scale)
    return merged


def gradients_of_product(
    product: Product, inputs_TI: Tensor, outer_TO: Tensor, weight_needs: bool, parts_need: Sequence[NeedsOfPart]
) -> tuple[Tensor | None, list[Tensor | None]]:
    """Gradients of W and of every A and B of y = x W^T.

    Those of A and B come from that of W, or without it by thin products, whichever is less work.

    Args:
        product: what was computed.
        inputs_TI: x.
        outer_TO: the gradient of y.
        weight_needs: whether W asks for one.
        parts_need: the same of A and B of every adapted part.

    Returns:
        Of W, [O, I] or None; of A and B in the order of `Product.parameters`, None where not asked for.
    """
    adapts = any(of_a or of_b for of_a, of_b in parts_need)
    is_whole = weight_needs or (adapts and _is_less_as_a_whole(product, len(inputs_TI)))
    d_whole = outer_TO.T @ inputs_TI if is_whole else None
    if adapts and d_whole is None and _are_alike(product.adapted) and all(map(all, parts_need)):
        return None, _by_thin_products_at_once(product.adapted, inputs_TI, outer_TO)
    found: list[Tensor | None] = []
    for part, needs in zip(product.adapted, parts_need, strict=True):
        if not any(needs):
            found += [None, None]
        elif d_whole is not None:
            found += _from_whole(part, d_whole[part.rows], needs)
        else:
            found += _by_thin_products(part, inputs_TI, outer_TO[:, part.rows], needs)
    return (d_whole if weight_needs else None), found


def _are_alike(parts: Sequence[AdaptedRows]) -> bool:
    """Whether several parts have adapters of one shape and lie one below the other."""
    first, last = parts[0], parts[-1]
    shapes = {(part.folded_a.shape, part.folded_b.shape) for part in parts}
    return len(parts) > 1 and len(shapes) == 1 and last.rows.stop - first.rows.start == len(parts) * len(first.b)


def _is_less_as_a_whole(product: Product, num_tokens: int) -> bool:
    """Multiplications: O I per token and then 2 r P I of every part, or 2 r (P + I) of every part per token."""
    num_out, num_in = product.weight.shape
    ranks = [(len(part.folded_b), len(part.folded_a)) for part in product.adapted]
    whole = num_tokens * num_out * num_in + 2 * num_in * sum(rows * rank for rows, rank in ranks)
    thin = 2 * num_tokens * sum(rank * (rows + num_in) for rows, rank in ranks)
    return whole <= thin * _THIN_IS_SLOWER


def _from_whole(part: AdaptedRows, d_rows_PI: Tensor, needs: NeedsOfPart) -> list[Tensor | None]:
    of_a, of_b = needs
    return [
        part.of_a(part.folded_b.T @ d_rows_PI) if of_a else None,
        part.of_b(d_rows_PI @ part.folded_a.T) if of_b else None,
    ]


def _by_thin_products(
    part: AdaptedRows, inputs_TI: Tensor, outer_TP: Tensor, needs: NeedsOfPart
) -> list[Tensor | None]:
    of_a, of_b = needs
    return [
        part.of_a(thin_gradient_of_a(inputs_TI, outer_TP, part.folded_b)) if of_a else None,
        part.of_b(thin_gradient_of_b(inputs_TI, outer_TP, part.folded_a)) if of_b else None,
    ]


def thin_gradient_of_a(inputs_TI: Tensor, outer_TP: Tensor, b_PR: Tensor) -> Tensor:
    """DA = (dy B)^T x of y = x (B A)^T; several times faster on a CPU with the thin matrix's rows contiguous."""
    return functional.linear(outer_TP, b_PR.T.contiguous()).T @ inputs_TI


def thin_gradient_of_b(inputs_TI: Tensor, outer_TP: Tensor, a_RI: Tensor) -> Tensor:
    """DB = dy^T (x A^T), likewise."""
    return (functional.linear(inputs_TI, a_RI).T @ outer_TP).T


def _by_thin_products_at_once(parts: Sequence[AdaptedRows], inputs_TI: Tensor, outer_TO: Tensor) -> list[Tensor | None]:
    """Of k parts that are alike, as batches of k products, which more threads share better."""
    num_parts, rank = len(parts), len(parts[0].a)
    a = torch.stack([part.folded_a for part in parts])  # [k, r, I]
    b = torch.stack([part.folded_b for part in parts])  # [k, P, r]
    outer_kTP = outer_TO[:, parts[0].rows.start : parts[-1].rows.stop].unflatten(1, (num_parts, -1)).transpose(0, 1)
    along_krT = functional.linear(inputs_TI, a.flatten(0, 1)).view(-1, num_parts, rank).permute(1, 2, 0)
    across_krT = torch.bmm(outer_kTP, b).transpose(1, 2)
    d_a = torch.bmm(across_krT, inputs_TI.expand(num_parts, -1, -1))
    d_b = torch.bmm(along_krT, outer_kTP).transpose(1, 2)
    found: list[Tensor | None] = []
    for part, of_a, of_b in zip(parts, d_a.unbind(), d_b.unbind(), strict=True):
        found += [part.of_a(of_a), part.of_b(of_b)]
    return found
