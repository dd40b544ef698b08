"""The loop of searches: lease, take in what has ended, ask the engine for advice, obey it.

Each step is a short transaction under the lease; planning and advice, which are slow, hold none. Advice counts only if nothing
has changed since the record that it is about. Killed at any point, the next round sees the same record, gets the same advice
and does the same.
"""

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import load_only
from tinyclip.artifacts.paths import search_folder
from tinyclip.artifacts.searches import Advice, SearchResult
from tinyclip.schemas import JobState

from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import MeasurementRow, SearchRow
from tinyclip_server.http.services import Services
from tinyclip_server.orchestration.searches.advice import PlannedTrials, obey, plan_trials
from tinyclip_server.orchestration.searches.intake import needs_intake, take_in
from tinyclip_server.problems import ApiError, InvalidInput, TooManyRequests, Unavailable
from tinyclip_server.searches import repository, service
from tinyclip_server.searches.lifecycle import ACTIVE
from tinyclip_server.searches.service import WORKING, etag
from tinyclip_server.searches.trials import known_trials, record_of

logger = logging.getLogger(__name__)

S = JobState


@dataclass(frozen=True)
class Claim:
    """A search as it was when this server took or renewed its lease."""

    search_id: str
    lease_token: int


async def reconcile(services: Services) -> None:
    """Run one round over all searches."""
    claims = await _claim(services)
    done = await asyncio.gather(*(_follow(services, claim) for claim in claims), return_exceptions=True)
    for claim, failure in zip(claims, done, strict=True):
        if isinstance(failure, TooManyRequests | Unavailable):
            logger.info("search %s waits: %s", claim.search_id, failure)
        elif isinstance(failure, Exception):
            logger.error("search %s: this round failed", claim.search_id, exc_info=failure)
    await _remove_deleted(services)


async def release(services: Services) -> None:
    """Give up all leases, so that another server need not wait until they expire."""
    async with services.db.write() as session:
        leased = update(SearchRow).where(SearchRow.lease_owner == services.owner)
        await session.execute(leased.values(lease_owner="", lease_until=now()))


async def _claim(services: Services) -> list[Claim]:
    """Take or renew the leases of this server's searches, and of those whose lease has expired."""
    owner, at, seconds = services.owner, now(), services.settings.lease_seconds
    free = (SearchRow.lease_owner == owner) | SearchRow.lease_until.is_(None) | (SearchRow.lease_until < at)
    due = (SearchRow.state.in_(ACTIVE), SearchRow.deleted_at.is_(None), free)
    async with services.db.read() as session:
        if await session.scalar(select(SearchRow.id).where(*due).limit(1)) is None:
            return []
    columns = load_only(SearchRow.id, SearchRow.lease_owner, SearchRow.lease_token, SearchRow.lease_until)
    async with services.db.write() as session:
        query = select(SearchRow).where(*due).options(columns).with_for_update(skip_locked=True)
        claims = []
        for search in await session.scalars(query):
            if search.lease_owner != owner:
                search.lease_owner, search.lease_token = owner, search.lease_token + 1
            if search.lease_until is None or search.lease_until < at + timedelta(seconds=seconds / 2):
                search.lease_until = at + timedelta(seconds=seconds)
            claims.append(Claim(search.id, search.lease_token))
        return claims


async def _follow(services: Services, claim: Claim) -> None:
    async with services.db.read() as session:
        search = await session.get(SearchRow, claim.search_id)
        due = search is not None and await needs_intake(session, search)
    if search is None:
        return
    if due:
        async with services.db.write() as session:
            search = await _held(session, claim)
            if search is None:
                return
            await take_in(session, search)
    if search.state in (S.PAUSING, S.CANCELLING):
        async with services.db.write() as session:
            if (held := await _held(session, claim)) is not None and held.state in (S.PAUSING, S.CANCELLING):
                await service.stop(session, held)
    elif search.state == S.RUNNING and services.advised.get(search.id) != etag(search):
        await _ask(services, claim)


async def _ask(services: Services, claim: Claim) -> None:
    """Ask for advice, and obey it. Raises TooManyRequests, Unavailable."""
    async with services.db.read() as session:
        search = await session.get(SearchRow, claim.search_id)
        if search is None or any(row.state in WORKING for row in await repository.measurements(session, claim.search_id)):
            return
        trials = await known_trials(session, search.id)
    seen = etag(search)
    record = await asyncio.to_thread(record_of, search, trials)
    try:
        advice = await services.planner.advise(search.project, record)
        planned = await plan_trials(services, search.project, advice)
    except (TooManyRequests, Unavailable):
        raise
    except InvalidInput as error:
        await _fail(services, claim, seen, "; ".join(each.message for each in error.errors) or error.detail)
        return
    except ApiError as error:
        await _fail(services, claim, seen, f"there is no advice what to do next: {error.detail}")
        return
    is_idle = not (advice.begin or advice.measure or advice.finished)
    if is_idle and all(trial.outcome.state.terminal for trial in trials):
        await _fail(services, claim, seen, f"the engine has no advice what to do next: {advice.message or 'nothing to begin'}")
        return
    await _obey(services, claim, seen, advice, planned)


async def _obey(services: Services, claim: Claim, seen: str, advice: Advice, planned: PlannedTrials) -> None:
    async with services.db.write() as session:
        search = await _held(session, claim)
        if search is None or etag(search) != seen or search.state != S.RUNNING:
            return  # the advice is about another record by now
        await obey(session, search, advice, planned)
        after = etag(search)
    if after == seen:
        services.advised[claim.search_id] = after  # asked again once something has changed


async def _fail(services: Services, claim: Claim, seen: str, message: str) -> None:
    async with services.db.write() as session:
        search = await _held(session, claim)
        if search is not None and etag(search) == seen and search.state == S.RUNNING:
            search.result = SearchResult(front=[], reason=message).model_dump(mode="json")
            await service.end(session, search, S.FAILED, message)


async def _held(session: AsyncSession, claim: Claim) -> SearchRow | None:
    """Lock the search; None if another server has taken the lease."""
    query = select(SearchRow).where(SearchRow.id == claim.search_id).with_for_update()
    search = await session.scalar(query)
    return search if search is not None and search.lease_token == claim.lease_token else None


async def _remove_deleted(services: Services) -> None:
    """Remove the files and then the rows of deleted searches whose measurements have ended. An interrupted round is repeated."""
    async with services.db.read() as session:
        works = select(MeasurementRow.kind).where(MeasurementRow.search_id == SearchRow.id).exists()
        found = (await session.scalars(select(SearchRow.id).where(SearchRow.deleted_at.is_not(None), ~works))).all()
    for id in found:
        await services.store.remove(search_folder(id))
        async with services.db.write() as session:
            search = await session.get(SearchRow, id)
            if search is not None:  # unless another server has deleted it
                await session.delete(search)
        services.advised.pop(id, None)
