"""Heads: from a backbone's features to logits, by one head or by the vote of several."""

from collections.abc import Sequence

import torch
from torch import nn


class SignedRoot(nn.Module):
    """The square root of each feature's size, with its sign: large values count for less."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features [shape=(batch, d)] -> [shape=(batch, d)]."""
        return x * (x.abs() + 1e-6).rsqrt()  # with a finite gradient at 0


class Columns(nn.Module):
    """Some of the features: those of one backbone of an ensemble."""

    def __init__(self, start: int, stop: int):
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features [shape=(batch, d)] -> [shape=(batch, stop - start)]."""
        return x[:, self.start : self.stop]


class MemberHeads(nn.ModuleList):
    """The heads of an ensemble, each without its last layer."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features [shape=(batch, d)] -> the embeddings of all heads [shape=(batch, d')]."""
        return torch.cat([head(features) for head in self], dim=1)

    def with_ood_score(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The embeddings, and the out-of-distribution scores [shape=(batch,)]."""
        outputs = [head_with_ood_score(head, features) for head in self]
        embeddings, scores = zip(*outputs, strict=True)
        return torch.cat(embeddings, dim=1), torch.stack(scores).square().mean(dim=0).sqrt()


class SoftVote(nn.ModuleList):
    """The last layers of an ensemble's heads, and the mean of their probabilities."""

    multi_label = False  # of the class: learners of earlier versions were saved without it

    def __init__(self, layers: Sequence[nn.Linear], *, multi_label: bool = False):
        super().__init__(layers)
        self.multi_label = multi_label
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Embeddings of all heads [shape=(batch, d)] -> logits [shape=(batch, n_genres)].

        The softmax of these logits, or their sigmoid where songs have several genres, is the mean
        of the members' probabilities, as long as the temperature is 1.
        """
        parts = embeddings.split([layer.in_features for layer in self], dim=1)
        logits = [layer(part) for layer, part in zip(self, parts, strict=True)]
        if self.multi_label:
            mean = torch.stack(logits).sigmoid().mean(dim=0)
            return mean.logit(eps=1e-6) / self.temperature
        votes = [one.softmax(dim=1) for one in logits]
        return torch.stack(votes).mean(dim=0).clamp(min=1e-12).log() / self.temperature


def join_heads(heads: Sequence[nn.Sequential], *, multi_label: bool = False) -> nn.Sequential:
    """One head that gives the mean of the probabilities of several.

    Parameters
    ----------
    heads
        Each on all features; the last layer of each gives its logits.
    multi_label
        Whether a song can have several genres.
    """
    return nn.Sequential(
        MemberHeads([head[:-1] for head in heads]),
        SoftVote([head[-1] for head in heads], multi_label=multi_label),
    )


def member_heads(head: nn.Sequential) -> list[nn.Sequential]:
    """The heads that `join_heads` has joined, which share their weights; or the head alone."""
    if not isinstance(head[0], MemberHeads):
        return [head]
    return [nn.Sequential(*layers, last) for layers, last in zip(*head, strict=True)]


def head_with_ood_score(
    head: nn.Sequential, features: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output of a fastai head or of its first layers, and the out-of-distribution score.

    The score is the root mean square of the features, standardised by the statistics of the head's
    first batch norm: a Mahalanobis distance with a diagonal covariance (Lee et al., "A simple
    unified framework for detecting out-of-distribution samples", 2018).

    Parameters
    ----------
    head
        In evaluation mode. Its first batch norm has the statistics of the training features. The
        score of several heads is the root mean square of theirs.
    features : torch.Tensor [shape=(batch, ...)]
        The body's features.

    Returns
    -------
    output : torch.Tensor [shape=(batch, n)]
        Of the last of these layers: the logits, for a whole head.
    ood_score : torch.Tensor [shape=(batch,)]
        About 1 for images like those of the training, more for others.
    """
    ood_score, x = None, features
    for layer in head:
        if isinstance(layer, MemberHeads):
            x, ood_score = layer.with_ood_score(x)
            continue
        if ood_score is None and isinstance(layer, nn.BatchNorm1d):
            standardised = (x - layer.running_mean) / (layer.running_var + layer.eps).sqrt()
            ood_score = standardised.square().mean(dim=1).sqrt()
        x = layer(x)
    return x, ood_score
