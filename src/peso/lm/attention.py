"""Who sees whom in a line of tokens that several users, or several targets of one user, share.

A line holds one trunk per user (what stands before, and the items) and, where words stand between a history and its
target, one branch per target: those words and the target's codes. A branch sees the part of its user's trunk that is
its history, and itself; its positions go on where that part ends. So every answer has the very context that it would
have had alone. Nobody sees another user, and no trunk sees a branch.

Shapes: B lines, L tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from peso.lm.device import moved


@dataclass(frozen=True, eq=False)
class Visibility:
    """The rule of who sees whom, linear in the tokens; `dense_mask` spells it out.

    Token i sees token j <= i of the same user if both are of one branch, or if j is of the trunk and j < limit[i].

    Attributes:
        user: int64 [B, L], which user of the line; -1 for padding.
        branch: int64 [B, L], 0 in the trunk, else a number that no other branch of the line has.
        limit: int64 [B, L], where in the line the visible part of the trunk ends.
    """

    user: Tensor
    branch: Tensor
    limit: Tensor

    def allows(self, line: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Whether `query` sees `key`; works on index tensors that broadcast, as FlexAttention's `mask_mod` wants."""
        is_earlier = key <= query
        is_same_user = self.user[line, query] == self.user[line, key]
        is_trunk = (self.branch[line, key] == 0) & (key < self.limit[line, query])
        is_same_branch = self.branch[line, query] == self.branch[line, key]
        return is_earlier & is_same_user & (is_trunk | is_same_branch)

    def to(self, device: torch.device) -> "Visibility":
        """The same on another device."""
        return Visibility(*(moved(table, device) for table in (self.user, self.branch, self.limit)))

    def block_mask(self) -> BlockMask:
        """The same rule for FlexAttention, which skips blocks of keys that no query sees; the tables' device."""
        lines, length = self.user.shape

        def sees(line: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return self.allows(line, query, key)

        return create_block_mask(sees, lines, None, length, length, device=self.user.device)

    def dense_mask(self, dtype: torch.dtype) -> Tensor:
        """The additive mask [B, 1, L, L]: 0 where a token is seen, the least finite number elsewhere."""
        lines, length = self.user.shape
        line = torch.arange(lines, device=self.user.device)[:, None, None]
        place = torch.arange(length, device=self.user.device)
        query, key = place[None, :, None], place[None, None, :]
        hidden = ~self.allows(line, query, key)
        return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(
            hidden, torch.finfo(dtype).min
        )[:, None]
