"""Memory that runs out, in a helper process with a limit."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error reports that memory could not be allocated; torch has no exception of its own for that."""
    texts = ("can't allocate memory", "not enough memory", "std::bad_alloc")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(text in str(error) for text in texts))
