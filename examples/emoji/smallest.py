"""The smallest student that keeps 95% of its teacher: `make smallest`, about a quarter of an hour on two cores.

It starts the embedded service in a temporary folder and runs the search of smallest.yaml, to the table and the chart of its
students. With --keep (`make smallest KEEP=1`) the service runs until Ctrl-C, for its console.
"""

import argparse
import sys
from pathlib import Path

from session import call, run_with_service

SEARCH = Path(__file__).parent / "smallest.yaml"


def main() -> int:
    parser = argparse.ArgumentParser(description="Search the smallest student that keeps 95% of its teacher.")
    parser.add_argument("--keep", action="store_true", help="keep the service running until Ctrl-C")
    return run_with_service("smallest", run, keep=parser.parse_args().keep)


def run(url: str) -> None:
    """Estimate how long the search takes, then run it."""
    call(url, "searches", "create", SEARCH, "--dry-run")
    call(url, "searches", "create", SEARCH, "--watch")


if __name__ == "__main__":
    sys.exit(main())
