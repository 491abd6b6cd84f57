"""What a batch of texts cost the champion, as numbers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Surprise:
    """Bits per byte of a batch beside held-out texts.

    Args:
        lower, upper: 95 % together, blocks (or texts, of few blocks) drawn anew; None for a single text.
        block: column whose values are drawn whole. num_blocks: of the batch.
        held_bits_per_byte, num_held_blocks: of the texts that the package was held against when it was made.
        limit: what a batch of so many blocks may cost more than those by chance; None where too few were held out.
    """

    bits_per_byte: float
    lower: float | None
    upper: float | None
    block: str
    num_blocks: int
    held_bits_per_byte: float
    num_held_blocks: int
    limit: float | None

    @property
    def excess(self) -> float:
        """Beyond held-out texts, bits per byte; below 0 for cheaper ones."""
        return self.bits_per_byte - self.held_bits_per_byte

    @property
    def over(self) -> float | None:
        """The excess in units of its limit, which the decision reads."""
        return None if self.limit is None else self.excess / self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class SurprisePart:
    """The texts of a batch.

    Args:
        num_empty: texts without a byte, which nobody can be asked about. num_cut: of which only the beginning was sent.
        num_unanswered: other texts that the champion did not answer; num_judged, num_bytes: those it did.
        measured: None where nothing can be said, which `reason` then explains.
    """

    num_documents: int
    num_empty: int
    num_cut: int
    num_unanswered: int
    num_judged: int
    num_bytes: int
    measured: Surprise | None
    reason: str = ""

    @property
    def over(self) -> float | None:
        """What the decision reads."""
        return self.measured.over if self.measured else None


def surprise_words(part: SurprisePart) -> str:
    """One sentence: what the texts cost, beside what."""
    found = part.measured
    if found is None:
        return f"what the texts cost is unknown: {part.reason}"
    has_interval = found.lower is not None and found.upper is not None
    interval = f" ({found.lower:.3f} to {found.upper:.3f}, 95 %)" if has_interval else ""
    usual = (
        f"a batch of {found.num_blocks} like them may cost {found.limit:.3f} more by chance"
        if found.limit is not None
        else f"with {found.num_held_blocks} of them nobody knows what is usual"
    )
    return (
        f"{part.num_judged} texts cost {found.bits_per_byte:.3f} bits per byte{interval}, {found.excess:+.3f} beside "
        f"held-out ones of {found.num_held_blocks} values of {found.block}; {usual}"
    )
