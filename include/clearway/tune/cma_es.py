"""CMA-ES, as much as a short study needs: a Gaussian over the unit cube that follows the better half of its draws.

Source: Hansen 2016, "The CMA evolution strategy: a tutorial", figure 7 and table 1 (weights without negative ones).
The state is a function of the generations before and each draw one of (state, seed), so a study that was killed goes
on exactly. Letters as there: m mean, C covariance, p paths, d parameters.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
# Table 1 advises 0.3 of the range where the optimum is thought to lie inside it; the model as written is a good start.
FIRST_STEP = 0.25
# Draws outside the cube are repeated so often, then moved to its wall.
MAX_DRAWS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """mean [d], step > 0, covariance [d, d], both evolution paths [d], generations seen."""

    mean: Array
    step: float
    covariance: Array
    path: Array
    step_path: Array
    num_generations: int = 0

    @classmethod
    def start(cls, mean: Array) -> "State":
        """Before the first generation, around `mean`."""
        d = len(mean)
        return cls(mean=mean, step=FIRST_STEP, covariance=np.eye(d), path=np.zeros(d), step_path=np.zeros(d))


def draw(state: State, *, seed: int) -> Array:
    """One point of the cube. [d]"""
    rng = np.random.default_rng(seed)
    values, vectors = np.linalg.eigh(state.covariance)
    root = vectors * np.sqrt(np.maximum(values, 0))
    for _ in range(MAX_DRAWS):
        point = state.mean + state.step * (root @ rng.standard_normal(len(state.mean)))
        if ((point >= 0) & (point <= 1)).all():
            break
    return np.asarray(np.clip(point, 0, 1), dtype=np.float64)


def advanced(state: State, points: Sequence[Array], values: Sequence[float]) -> State:
    """After one generation: `points` with the `values` they got, smaller is better, infinity for none."""
    d, num_points = len(state.mean), len(points)
    weights = np.log((num_points + 1) / 2) - np.log(np.arange(1, num_points // 2 + 1))
    weights /= weights.sum()
    mass = 1 / (weights**2).sum()
    order = np.argsort(np.asarray(values), kind="stable")[: len(weights)]
    steps = (np.asarray(points)[order] - state.mean) / state.step  # [mu, d]
    mean_step = weights @ steps
    c_step, damping, c_path, c_one, c_mu = _rates(d, mass)

    eigenvalues, vectors = np.linalg.eigh(state.covariance)
    whitened = vectors @ ((vectors.T @ mean_step) / np.sqrt(np.maximum(eigenvalues, 1e-20)))
    step_path = (1 - c_step) * state.step_path + math.sqrt(c_step * (2 - c_step) * mass) * whitened
    generation = state.num_generations + 1
    typical = math.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d * d))  # length of a standard normal vector
    length = float(np.linalg.norm(step_path))
    is_calm = length / math.sqrt(1 - (1 - c_step) ** (2 * generation)) < (1.4 + 2 / (d + 1)) * typical
    path = (1 - c_path) * state.path + is_calm * math.sqrt(c_path * (2 - c_path) * mass) * mean_step
    lost = (1 - is_calm) * c_path * (2 - c_path)
    covariance = (
        (1 + c_one * lost - c_one - c_mu) * state.covariance
        + c_one * np.outer(path, path)
        + c_mu * (steps.T * weights) @ steps
    )
    return State(
        mean=np.clip(state.mean + state.step * mean_step, 0, 1),
        step=min(1.0, state.step * math.exp(c_step / damping * (length / typical - 1))),
        covariance=(covariance + covariance.T) / 2,
        path=path,
        step_path=step_path,
        num_generations=generation,
    )


def _rates(d: int, mass: float) -> tuple[float, float, float, float, float]:
    """Learning rates of table 1: of the step's path, its damping, of the path, of rank one and of rank mu."""
    c_step = (mass + 2) / (d + mass + 5)
    damping = 1 + 2 * max(0.0, math.sqrt((mass - 1) / (d + 1)) - 1) + c_step
    c_path = (4 + mass / d) / (d + 4 + 2 * mass / d)
    c_one = 2 / ((d + 1.3) ** 2 + mass)
    c_mu = min(1 - c_one, 2 * (mass - 2 + 1 / mass) / ((d + 2) ** 2 + mass))
    return c_step, damping, c_path, c_one, c_mu
