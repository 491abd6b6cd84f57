"""A request that cannot be answered as asked, with the status and the words the caller gets."""

MAX_SHOWN = 80
MAX_MESSAGE = 2_000  # characters; a text that names a caller's field must not grow with it


class Refusal(Exception):
    """What the caller did wrong, or why the server cannot answer now.

    Args:
        status: HTTP status, 4xx or 503.
        code: short stable name a program can match.
        message: what happened, the value, what is allowed. Never carries non-finite numbers or unbounded input.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def bad_value(words: str) -> Refusal:
    """A row or field that the model does not take."""
    return Refusal(422, "bad_value", words[:MAX_MESSAGE])


def no_finite_score() -> Refusal:
    """The model took the rows and has no answer for them."""
    text = "the model has no finite score for one of the rows; its values are too extreme"
    return Refusal(422, "no_finite_score", text)


def shown(value: object) -> str:
    """A caller's value, safe to send back: printable ASCII, bounded length."""
    text = ascii(value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
