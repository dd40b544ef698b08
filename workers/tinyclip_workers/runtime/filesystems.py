"""Where a path or URI leads: fsspec's drivers, by scheme."""

from typing import Any

import fsspec

from tinyclip_workers.runtime.addresses import expect_address


def open_filesystem(root: str) -> tuple[Any, str]:
    """The filesystem of a path or URI and the path in it, without listings kept from earlier: others write there too.

    Raises AddressRefused, an OSError, and ValueError naming what to install where the URI's kind has no driver.
    """
    expect_address(root)
    scheme = root.partition("://")[0] if "://" in root else "file"
    try:
        fs, base = fsspec.core.url_to_fs(root, **({} if scheme == "file" else {"use_listings_cache": False}))
    except ImportError as error:
        raise ValueError(f"{root} needs a driver for {scheme}:// ({error}); for s3:// pip install 'tinyclip[s3]'") from error
    return fs, base
