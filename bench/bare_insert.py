"""The baseline of a submit: FastAPI and SQLAlchemy, one row, one commit. Run it with `uvicorn bare_insert:app`.

BARE_DATABASE_URL has the database's URL.
"""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI
from sqlalchemy import DateTime, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from tinyclip.schemas import JobSpec

engine = create_async_engine(os.environ["BARE_DATABASE_URL"])
sessions = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSONB, datetime: DateTime(timezone=True), str: Text}


class BareRow(Base):
    __tablename__ = "bare_rows"

    id: Mapped[str] = mapped_column(primary_key=True)
    spec: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/livez")
async def live() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/v1/jobs", status_code=201)
async def create(body: JobSpec) -> dict[str, Any]:
    row = BareRow(id=uuid.uuid4().hex, spec=body.model_dump(mode="json"), created_at=datetime.now(UTC))
    async with sessions() as session:
        session.add(row)
        await session.commit()
    return {"id": row.id, "spec": row.spec, "created_at": row.created_at}
