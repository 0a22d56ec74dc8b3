class Failing:
    failed: int
    def __init__(
        self,
        module: str,
        function: str,
        error: int,
        *,
        after: int = 0,
        times: int | None = None,
        result: int | None = None,
    ) -> None: ...
    def __enter__(self) -> Failing: ...
    def __exit__(self, *exception: object) -> None: ...
