"""What the shop refuses, and the HTTP status that says so."""


class ShopError(Exception):
    """What was asked for is not possible."""

    status = 409

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.headers: dict[str, str] = {}


class NotFoundError(ShopError):
    """There is no such thing."""

    status = 404


class TooManyRequestsError(ShopError):
    """A customer asks for too much at a time."""

    status = 429

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.headers["Retry-After"] = str(retry_after)
