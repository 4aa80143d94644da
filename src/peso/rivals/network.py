"""The network of SASRec: causal self-attention over a history of item numbers.

Shapes: B users, L positions, D hidden size.
"""

from torch import Tensor, nn

INITIAL_SPREAD = 0.02


class SasRecNetwork(nn.Module):
    """From a history to a state after each of its items; a state times the item table scores the next item.

    Source: Kang and McAuley, "Self-Attentive Sequential Recommendation", arXiv 1808.09781. Differs from it: the loss is
    a softmax over all items instead of one sampled negative, layers normalise before each part, positions count from
    the first item shown.
    """

    def __init__(
        self, num_items: int, max_history: int, hidden_size: int, num_blocks: int, num_heads: int, dropout: float
    ) -> None:
        """Draws the initial weights from torch's generator.

        Args:
            num_items: N.
            max_history: longest history, L.
            hidden_size: D, also of the feed-forward parts.
            num_blocks: self-attention blocks.
            num_heads: attention heads, a divisor of D.
            dropout: rate after the embedding and inside the blocks.
        """
        super().__init__()
        self.max_history = max_history
        self.items = nn.Embedding(num_items, hidden_size)
        self.positions = nn.Embedding(max_history, hidden_size)
        self.dropout = nn.Dropout(dropout)
        blocks = [
            nn.TransformerEncoderLayer(
                hidden_size, num_heads, hidden_size, dropout, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(num_blocks)
        ]
        norm = nn.LayerNorm(hidden_size)
        self.blocks = nn.TransformerEncoder(blocks[0], num_blocks, norm, enable_nested_tensor=False)
        self.blocks.layers = nn.ModuleList(blocks)  # the encoder's own are copies that all start alike
        nn.init.normal_(self.items.weight, std=INITIAL_SPREAD)
        nn.init.normal_(self.positions.weight, std=INITIAL_SPREAD)

    def forward(self, items_BL: Tensor) -> Tensor:
        """States after each item.

        Args:
            items_BL: int64 [B, L], oldest first from the left; what fills a row's end is seen by no earlier position.

        Returns:
            float32 [B, L, D].
        """
        length = items_BL.shape[1]
        hidden_BLD = self.items(items_BL) + self.positions.weight[:length]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=items_BL.device)
        states_BLD: Tensor = self.blocks(self.dropout(hidden_BLD), mask=mask, is_causal=True)
        return states_BLD
