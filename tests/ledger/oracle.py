"""What the books should say, the slow and obvious way: every fact is kept for ever and added up."""

from typing import Generic, TypeVar

T = TypeVar("T")


class Oracle(Generic[T]):
    """`T`: whatever stands for a scope."""

    def __init__(self) -> None:
        self.open: dict[int, tuple[tuple[T, ...], int]] = {}
        self.closed: list[tuple[tuple[T, ...], int, int]] = []

    def reserve(self, number: int, scopes: tuple[T, ...], tokens: int) -> None:
        self.open[number] = (scopes, tokens)

    def settle(self, number: int, tokens: int, now_ms: int) -> None:
        self.closed.append((self.open.pop(number)[0], tokens, now_ms))

    def reserved(self, scope: T) -> int:
        return sum(tokens for scopes, tokens in self.open.values() if scope in scopes)

    def spent(self, scope: T, *, after_ms: int = -1, after_closings: int = 0) -> int:
        return sum(
            tokens
            for scopes, tokens, at_ms in self.closed[after_closings:]
            if scope in scopes and at_ms > after_ms
        )
