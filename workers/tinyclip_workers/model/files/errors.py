"""Errors of teachers, apart from `sources`: who only reports them need not import open_clip."""


class HubError(RuntimeError):
    """A file that the hub does not have, or a hub that cannot be reached."""


class TeacherError(ValueError):
    """A teacher that cannot be used: a `pointer` into the spec, its value, and the remedy."""

    def __init__(self, pointer: str, value: object, message: str) -> None:
        super().__init__(f"{pointer}: {message}")
        self.pointer, self.value, self.message = pointer, value, message
