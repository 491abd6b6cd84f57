"""One stream of yes and no: a confidence sequence for its rate.

Robbins (1970), "Statistical methods related to the law of the iterated logarithm", with a uniform mixture: for the true
rate p the ratio B(yes + 1, no + 1) / (p^yes (1 - p)^no) is a martingale that begins at 1, so the set of rates at which
it is below 1/alpha holds the true one at all times together with chance 1 - alpha at least (Ville 1939).
"""

import math

_NUM_BISECTIONS = 50  # beyond the resolution of a float between 0 and 1


def limits(num: int, num_yes: int, *, alpha: float) -> tuple[float, float, float] | None:
    """(lower, estimate, upper) of the rate; None for no observations."""
    if not num:
        return None
    estimate = num_yes / num
    low = _edge(num, num_yes, inside=estimate, outside=0.0, alpha=alpha) if num_yes else 0.0
    high = _edge(num, num_yes, inside=estimate, outside=1.0, alpha=alpha) if num_yes < num else 1.0
    return low, estimate, high


def _edge(num: int, num_yes: int, *, inside: float, outside: float, alpha: float) -> float:
    """Where the martingale reaches 1/alpha; it only rises on the way from the estimate to either end."""
    for _ in range(_NUM_BISECTIONS):
        middle = (inside + outside) / 2
        if _log_ratio(num, num_yes, middle) < -math.log(alpha):
            inside = middle
        else:
            outside = middle
    return outside


def _log_ratio(num: int, num_yes: int, rate: float) -> float:
    num_no = num - num_yes
    mixture = math.lgamma(num_yes + 1) + math.lgamma(num_no + 1) - math.lgamma(num + 2)
    return mixture - num_yes * math.log(rate) - num_no * math.log1p(-rate)
