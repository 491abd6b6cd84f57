"""How fast, and what the device did meanwhile: samples per second, utilization, share of the time spent waiting."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from clearway.engine.plan import Precision

# Dense peak of one device in FLOP/s with float32 accumulation, by a part of its name. Source: NVIDIA's data sheets
# (H100 SXM and H200, A100, L40S, L4), without sparsity.
_PEAK_16_BIT = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
_PEAK_FLOAT32 = {"H200": 67e12, "H100": 67e12, "A100": 19.5e12, "L40S": 91.6e12, "L4": 30.3e12}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """One epoch, or what this process saw of it.

    Args:
        num_samples: over all ranks.
        wait_share: share of the time in which this rank waited for its batch, 0-1; slicing resident rows counts too.
        utilization: floating-point operations done, as a share of the peak of all devices; None if the peak is unknown.
    """

    epoch: int
    num_samples: int
    seconds: float
    samples_per_s: float
    wait_share: float
    utilization: float | None


def peak_flops(device: torch.device, precision: Precision) -> float | None:
    """Peak of this device in FLOP/s; None where nobody published one (CPUs)."""
    if device.type != "cuda":
        return None
    table = _PEAK_FLOAT32 if precision is Precision.FLOAT32 else _PEAK_16_BIT
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in table.items() if part in name), None)


class Meter:
    """Counts what happens between two readings."""

    def __init__(
        self,
        *,
        flops_per_sample: float,
        peak: float | None,
        num_devices: int,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._flops, self._peak, self._num_devices, self._clock_s = flops_per_sample, peak, num_devices, clock_s
        self._start_s, self._wait_s, self._num_samples = clock_s(), 0.0, 0
        self._asked_s = 0.0

    def before_batch(self) -> None:
        self._asked_s = self._clock_s()

    def after_batch(self) -> None:
        self._wait_s += self._clock_s() - self._asked_s

    def count(self, num_samples: int) -> None:
        self._num_samples += num_samples

    def read(self, epoch: int) -> Pace:
        """Since the last reading, which this one replaces."""
        now_s = self._clock_s()
        seconds, samples, wait_s = max(now_s - self._start_s, 1e-9), self._num_samples, self._wait_s
        self._start_s, self._wait_s, self._num_samples = now_s, 0.0, 0
        done = samples * self._flops / seconds
        return Pace(
            epoch=epoch,
            num_samples=samples,
            seconds=seconds,
            samples_per_s=samples / seconds,
            wait_share=wait_s / seconds,
            utilization=done / (self._peak * self._num_devices) if self._peak else None,
        )
