"""The tokenizer in a folder that a job names for its students."""

from tinyclip_workers.model.tokenizers import (
    MAX_TOKENIZER_BYTES,
    SETTINGS_FILE,
    STUDENT_OPTIONS,
    TOKENIZER_FILES,
    VOCABULARY_FILES,
    TokenizerError,
    TokenizerSource,
    missing_files,
)
from tinyclip_workers.runtime.addresses import address_in
from tinyclip_workers.runtime.filesystems import open_store
from tinyclip_workers.runtime.user_files import SMALL_FILE_SECONDS, read_file


def read_tokenizer(uri: str) -> TokenizerSource:
    """Read the tokenizer of a folder at a path or URI: one of a model folder, or of a tokenizer alone. Raises TokenizerError."""
    try:
        store = open_store(uri, limit_s=SMALL_FILE_SECONDS)
        names = [name for name in (*TOKENIZER_FILES, SETTINGS_FILE) if store.exists(name)]
        files = {name: read_file(address_in(uri, name), MAX_TOKENIZER_BYTES) for name in names}
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{uri} cannot be read ({error})") from error
    if not any(name in files for name in VOCABULARY_FILES):
        raise TokenizerError(missing_files(uri, uri.rstrip("/").rsplit("/", 1)[-1]))
    return TokenizerSource.from_files(files) or TokenizerSource(files, STUDENT_OPTIONS)
