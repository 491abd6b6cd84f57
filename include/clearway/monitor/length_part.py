"""How long the texts of a batch are, as numbers."""

from dataclasses import dataclass

# Texts that end where the longest does, beyond the share of held-out ones that do, and how many at least: of 51
# quarters of descriptions none had more than 7 %, two texts of 28; cut at 200 bytes, 50 have more than 10 %.
CUT_SHARE, MIN_CUT = 0.1, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthPart:
    """Bytes per text beside held-out texts, empty ones apart; see clearway.measures.length.

    Args:
        doublings: distance from those. limit: what a batch of so many blocks reaches by chance; None where too few were
            held out.
        num_blocks: of the batch; num_held_blocks: of the texts held out.
        longest: bytes; num_longest: texts that end there; held_share_longest: share of held-out texts that do.
    """

    num_texts: int
    doublings: float
    limit: float | None
    num_blocks: int
    num_held_blocks: int
    longest: int
    num_longest: int
    held_share_longest: float

    @property
    def over(self) -> float | None:
        """The distance in units of its limit."""
        return None if self.limit is None else self.doublings / self.limit

    @property
    def is_cut(self) -> bool:
        """Whether so many texts end at one place that somebody cut them there."""
        beyond = self.num_longest / self.num_texts - self.held_share_longest
        return self.num_longest >= MIN_CUT and beyond > CUT_SHARE


def length_words(part: LengthPart) -> str:
    """One sentence: how far from what."""
    usual = (
        f"a batch of {part.num_blocks} like them may be {part.limit:.2f} away by chance"
        if part.limit is not None
        else f"with {part.num_held_blocks} of them nobody knows what is usual"
    )
    return (
        f"lengths are {part.doublings:.2f} doublings away from held-out texts of {part.num_held_blocks} blocks; {usual}"
    )
