"""What can go wrong with the store."""


class StoreError(Exception):
    """The store cannot be used as it is; the text says what to mend."""


class Away(StoreError):
    """The store cannot be reached, or takes nothing now. Nothing is wrong with what was asked: ask again."""


class Fenced(StoreError):
    """A newer owner has opened these partitions; what was put for them was refused."""

    def __init__(self, partitions: list[int]) -> None:
        super().__init__(f"partitions {partitions} have a newer owner")
        self.partitions = partitions


class VersionMismatch(StoreError):
    """The document was changed meanwhile: `current` is its version now (0: it does not exist)."""

    def __init__(self, current: int) -> None:
        super().__init__(f"the document is at version {current}")
        self.current = current


class Behind(StoreError):
    """The changes asked for are no longer kept: load everything again."""
