"""What a run ends with when something does not hold."""


class Violation(Exception):
    """`rule`: the name of the invariant that does not hold; `why`: how."""

    def __init__(self, rule: str, why: str) -> None:
        super().__init__(f"{rule}: {why}")
        self.rule = rule
        self.why = why
