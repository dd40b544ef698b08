"""`searches watch`: shows a search until it ends, as bars on a terminal and as a line for each event elsewhere."""

import functools
import time

from rich.console import Console

from tinyclip._client import Client
from tinyclip._resources import jobs, searches
from tinyclip.cli.display.search_bars import SearchBars
from tinyclip.cli.display.searches import show_event
from tinyclip.cli.history import EVENTS_PER_PAGE, NewItems
from tinyclip.errors import ProblemError
from tinyclip.schemas import Job, Search

_BETWEEN_LOOKS_SECONDS = 2.0
_JOBS = 8
"""Trials whose progress is asked for."""


def watch_search(client: Client, search_id: str, out: Console, patience: float) -> None:
    """Show a search until it ends. Raises the client's errors."""
    if out.is_terminal:
        _watch_bars(client, search_id, out, patience)
        return
    for event in client.searches.events(search_id, patience=patience):
        show_event(event, out)


def _watch_bars(client: Client, search_id: str, out: Console, patience: float) -> None:
    retries = client.retries.lasting(patience)
    search = client.searches.get(search_id)
    history = NewItems(client, functools.partial(searches.events_page, search_id, page_size=EVENTS_PER_PAGE), patience)
    view = SearchBars(out)
    try:
        while True:
            for event in history.new():
                view.note(f"{event.created_at.astimezone():%H:%M:%S} {event.message or event.type}")
            view.show(search, _running_jobs(client, search))
            if search.state.terminal:
                return
            time.sleep(_BETWEEN_LOOKS_SECONDS)
            search = client.send(searches.get(search_id), retries=retries)
    finally:
        view.close()


def _running_jobs(client: Client, search: Search) -> dict[int, Job]:
    """Return the jobs of the trials that have not ended, by the trial's number."""
    running = [(trial.number, trial.job) for trial in search.trials if trial.job is not None and not trial.state.terminal]
    found = {}
    for number, job in running[:_JOBS]:
        try:
            found[number] = client.send(jobs.get(job))
        except ProblemError:
            continue  # its bar is shown without progress
    return found
