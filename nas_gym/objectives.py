"""From metrics to reward: small pure functions, the only place that knows both.

Every objective takes the columns of `Evaluations` and returns float64 [N]; failed rows get `failure_reward`, which
lies below every attainable reward. Accuracies come in as fractions and are rescaled where a paper uses percent.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidArgument
from nas_gym.evaluators.core import Evaluation, Evaluations, Evaluator, Status, check_metric
from nas_gym.registry import Entry, Registry

Columns = Mapping[str, npt.NDArray[np.float64]]


class Objective(ABC):
    """A reward function. Frozen; its fields are its constants.

    Attributes:
        failure_reward: reward of every failed query, below every attainable reward.
    """

    failure_reward: float = -1.0

    @property
    @abstractmethod
    def requires(self) -> tuple[str, ...]:
        """Names of the metrics it reads."""

    @abstractmethod
    def reward(self, metrics: Columns) -> npt.NDArray[np.float64]:
        """Return the rewards of successful rows, shape [N]."""

    def __call__(self, evaluations: Evaluations) -> npt.NDArray[np.float64]:
        """Return the reward of every row, shape [N]."""
        ok = evaluations.status == Status.OK
        if ok.all():
            return self.reward(evaluations.metrics)
        rewards = np.full(len(evaluations), self.failure_reward)
        rewards[ok] = self.reward({name: evaluations.metrics[name][ok] for name in self.requires})
        return rewards

    def one(self, evaluation: Evaluation) -> float:
        """Return the reward of one evaluation."""
        if evaluation.status is not Status.OK:
            return self.failure_reward
        return float(self.reward({name: np.array([evaluation.metrics[name]]) for name in self.requires})[0])

    def check(self, evaluator: Evaluator) -> None:
        """Check that `evaluator` measures what this objective reads.

        Raises:
            UnknownName: it does not measure a required metric.
            InvalidArgument: a required metric is held out, or is an accuracy here and no fraction there.
        """
        for name in self.requires:
            check_metric(evaluator, name)


@dataclass(frozen=True)
class _OnAccuracy(Objective):
    """Common part of objectives of one accuracy-like metric.

    Attributes:
        metric: a fraction to maximise.
    """

    metric: str = "valid_accuracy"

    @property
    def requires(self) -> tuple[str, ...]:
        """The metric."""
        return (self.metric,)

    def check(self, evaluator: Evaluator) -> None:
        """Check that the metric is a search-time fraction to maximise."""
        super().check(evaluator)
        found = evaluator.metrics[self.metric]
        if (found.direction, found.unit) != ("maximize", "fraction"):
            allowed = [
                name
                for name in evaluator.search_metrics
                if (evaluator.metrics[name].direction, evaluator.metrics[name].unit) == ("maximize", "fraction")
            ]
            raise InvalidArgument(
                f"the metric {self.metric!r} is a {found.unit} to {found.direction}; this objective needs a fraction "
                f"to maximize: {', '.join(allowed) or 'none is measured'}."
            )


@dataclass(frozen=True)
class Accuracy(_OnAccuracy):
    """The accuracy itself, a fraction in [0, 1]."""

    def reward(self, metrics: Columns) -> npt.NDArray[np.float64]:
        """Return the accuracy."""
        return metrics[self.metric]

    def one(self, evaluation: Evaluation) -> float:
        """Return the accuracy of one evaluation, without arrays."""
        return evaluation.metrics[self.metric] if evaluation.status is Status.OK else self.failure_reward


@dataclass(frozen=True)
class AccuracyCubed(_OnAccuracy):
    """Accuracy to the third power, which stresses the best (Zoph & Le 2017, section 4.1)."""

    def reward(self, metrics: Columns) -> npt.NDArray[np.float64]:
        """Return accuracy ** 3."""
        return metrics[self.metric] ** 3


@dataclass(frozen=True)
class TangentAccuracy(_OnAccuracy):
    """tan(accuracy x pi / 2), which stresses the best still more (EAS, Cai et al. 2018, section 4).

    Attributes:
        ceiling: the accuracy is cut here, since the tangent of a perfect one is infinite.
    """

    ceiling: float = 1 - 1e-4

    def reward(self, metrics: Columns) -> npt.NDArray[np.float64]:
        """Return tan(accuracy x pi / 2)."""
        return np.tan(np.minimum(metrics[self.metric], self.ceiling) * (math.pi / 2))


@dataclass(frozen=True)
class Perplexity(Objective):
    """c / perplexity squared (Zoph & Le 2017, section 4.2).

    Attributes:
        metric: the perplexity.
        scale: the constant c, "usually 80".
    """

    metric: str = "valid_perplexity"
    scale: float = 80.0

    @property
    def requires(self) -> tuple[str, ...]:
        """The perplexity."""
        return (self.metric,)

    def check(self, evaluator: Evaluator) -> None:
        """Check that the metric is a perplexity."""
        super().check(evaluator)
        if evaluator.metrics[self.metric].unit != "perplexity":
            unit = evaluator.metrics[self.metric].unit
            raise InvalidArgument(f"the metric {self.metric!r} is a {unit}; this objective needs a perplexity.")

    def reward(self, metrics: Columns) -> npt.NDArray[np.float64]:
        """Return c / perplexity ** 2."""
        return self.scale / metrics[self.metric] ** 2


@dataclass(frozen=True)
class _AccuracyAndCost(_OnAccuracy):
    """Common part of objectives that trade accuracy against a cost.

    Attributes:
        cost: name of the cost metric.
        target: the cost that is aimed at, in the metric's unit.
    """

    cost: str = "multiply_adds"
    target: float = 1e6

    def __post_init__(self) -> None:
        """Check the target.

        Raises:
            InvalidArgument: it is not positive.
        """
        if not self.target > 0:
            raise InvalidArgument(f"target must be positive, got {self.target}.")

    @property
    def requires(self) -> tuple[str, ...]:
        """Accuracy and cost."""
        return (self.metric, self.cost)


@dataclass(frozen=True)
class MnasNet(_AccuracyAndCost):
    """accuracy x (cost / target) ** w, w = alpha up to the target and beta beyond (Tan et al. 2019, section 3).

    The published cost is a latency of 75 ms on one phone; the defaults alpha = beta = -0.07 are the published soft
    constraint, alpha = 0 and beta = -1 the hard one.

    Attributes:
        alpha: exponent up to the target.
        beta: exponent beyond it.
    """

    alpha: float = -0.07
    beta: float = -0.07

    def reward(self, metrics: Columns) -> npt.NDArray[np.float64]:
        """Return the weighted product."""
        ratio = metrics[self.cost] / self.target
        return metrics[self.metric] * ratio ** np.where(ratio <= 1, self.alpha, self.beta)


@dataclass(frozen=True)
class MONAS(_AccuracyAndCost):
    """alpha x accuracy - (1 - alpha) x cost / target, the mixed reward of MONAS (Hsu et al. 2018).

    The cost is scaled to [0, 1] by `target`, its largest value, and cut there.

    Attributes:
        alpha: weight of the accuracy, between 0 and 1.
    """

    alpha: float = 0.5
    failure_reward = -2.0

    def __post_init__(self) -> None:
        """Check the target and the weight.

        Raises:
            InvalidArgument: the target is not positive, or the weight lies outside [0, 1].
        """
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise InvalidArgument(f"alpha must be between 0 and 1, got {self.alpha}.")

    def reward(self, metrics: Columns) -> npt.NDArray[np.float64]:
        """Return the weighted sum."""
        return self.alpha * metrics[self.metric] - (1 - self.alpha) * np.minimum(metrics[self.cost] / self.target, 1)


@dataclass(frozen=True)
class RENA(_AccuracyAndCost):
    """accuracy x penalty ** violation, in the style of RENA (Zhou et al. 2018; the formula is from memory).

    The violation is max(0, cost / target - 1).

    Attributes:
        penalty: between 0 (hard) and 1 (lenient).
    """

    penalty: float = 0.5

    def __post_init__(self) -> None:
        """Check the target and the penalty.

        Raises:
            InvalidArgument: the target is not positive, or the penalty lies outside [0, 1].
        """
        super().__post_init__()
        if not 0 <= self.penalty <= 1:
            raise InvalidArgument(f"penalty must be between 0 and 1, got {self.penalty}.")

    def reward(self, metrics: Columns) -> npt.NDArray[np.float64]:
        """Return the penalised accuracy."""
        violation = np.maximum(metrics[self.cost] / self.target - 1, 0)
        return metrics[self.metric] * self.penalty**violation


@dataclass(frozen=True)
class BlockQNN(_OnAccuracy):
    """accuracy in percent - mu x ln(FLOPs) - rho x ln(edges / nodes) (Zhong et al. 2018, section 3.3).

    The scale of the accuracy and the base of the logarithm are from memory.

    Attributes:
        mu: weight of the computation.
        rho: weight of the density.
    """

    mu: float = 1.0
    rho: float = 8.0
    failure_reward = -1000.0

    @property
    def requires(self) -> tuple[str, ...]:
        """Accuracy, computation and size of the graph."""
        return (self.metric, "multiply_adds", "nodes", "edges")

    def reward(self, metrics: Columns) -> npt.NDArray[np.float64]:
        """Return the penalised percentage."""
        flops = np.maximum(2 * metrics["multiply_adds"], 1)
        density = metrics["edges"] / metrics["nodes"]
        return 100 * metrics[self.metric] - self.mu * np.log(flops) - self.rho * np.log(density)


_HERE = "nas_gym.objectives"

OBJECTIVES = Registry(
    "objective",
    {
        "accuracy": Entry(f"{_HERE}:Accuracy", "accuracy, a fraction"),
        "accuracy_cubed": Entry(f"{_HERE}:AccuracyCubed", "accuracy cubed (Zoph & Le 2017)"),
        "tangent_accuracy": Entry(f"{_HERE}:TangentAccuracy", "tan(accuracy x pi / 2) (EAS)"),
        "perplexity": Entry(f"{_HERE}:Perplexity", "80 / perplexity squared (Zoph & Le 2017)"),
        "mnasnet": Entry(f"{_HERE}:MnasNet", "accuracy x (cost / target) ** w (MnasNet)"),
        "monas": Entry(f"{_HERE}:MONAS", "alpha x accuracy - (1 - alpha) x cost (MONAS)"),
        "rena": Entry(f"{_HERE}:RENA", "accuracy x penalty ** violation (RENA-style)"),
        "blockqnn": Entry(f"{_HERE}:BlockQNN", "accuracy - mu log FLOPs - rho log density (BlockQNN)"),
    },
)
"""Objectives by name; an entry is a frozen dataclass whose fields are keyword arguments."""
