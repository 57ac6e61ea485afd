"""Encoders of what an environment shows: a sequence of tokens becomes vectors.

Dimension letters: M observations, K features, E embedding, H hidden units a direction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .base import require_count


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of a `TokenEncoder`; the defaults are those of EAS (Cai et al. 2018).

    Attributes:
        embedding: numbers E that stand for a token.
        hidden: units H of the LSTM in each direction.
    """

    embedding: int = 16
    hidden: int = 50

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidArgument: a value outside its range.
        """
        require_count("embedding", self.embedding)
        require_count("hidden", self.hidden)

    @property
    def width(self) -> int:
        """Numbers of an encoding, both directions: 2 H."""
        return 2 * self.hidden


class TokenEncoder(nn.Module):
    """A bidirectional LSTM over observed features, each of which is a token.

    Features with equally many values share a table of embeddings, as the layers of a network do. Zeros at the end mean
    that nothing is there yet: they are not read.
    """

    offsets: Tensor

    def __init__(self, values: Sequence[int], config: EncoderConfig, generator: torch.Generator) -> None:
        """Create the network.

        Args:
            values: number of values of each of the K features.
            config: sizes.
            generator: of the initial weights: embeddings uniform with unit variance, all others uniform within
                1 / sqrt(H).
        """
        super().__init__()
        sizes = sorted(set(values))
        first = dict(zip(sizes, [sum(sizes[:number]) for number in range(len(sizes))], strict=True))
        self.register_buffer("offsets", torch.tensor([first[one] for one in values]), persistent=False)
        self.embedding = nn.Embedding(sum(sizes), config.embedding)
        self.lstm = nn.LSTM(config.embedding, config.hidden, batch_first=True, bidirectional=True)
        bound = 1 / math.sqrt(config.hidden)
        with torch.no_grad():
            self.embedding.weight.uniform_(-math.sqrt(3), math.sqrt(3), generator=generator)
            for parameter in self.lstm.parameters():
                parameter.uniform_(-bound, bound, generator=generator)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Encode.

        Args:
            observations: int64 [M, K].

        Returns:
            Encodings of all features [M, K, 2 H], 0 where nothing was read, and of the whole [M, 2 H]: the last states
            of both directions.
        """
        features = observations.shape[1]
        read = (observations != 0) * torch.arange(1, features + 1)
        lengths = read.amax(1).clamp(min=1)
        embedded = self.embedding(observations + self.offsets)
        packed = nn.utils.rnn.pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        hidden, (last, _) = self.lstm(packed)
        encodings, _ = nn.utils.rnn.pad_packed_sequence(hidden, batch_first=True, total_length=features)
        return encodings, torch.cat([last[0], last[1]], dim=1)
