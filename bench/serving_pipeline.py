"""A peer of `serving.py`, the plain way to serve a CLIP model: Hugging Face's zero-shot pipeline behind FastAPI.

    FOLDER=… uvicorn serving_pipeline:app
"""

import base64
import io
import os

import torch
from fastapi import FastAPI
from PIL import Image
from pydantic import BaseModel
from transformers import pipeline

torch.set_num_threads(1)
classify = pipeline("zero-shot-image-classification", model=os.environ["FOLDER"], device="cpu")
app = FastAPI()


class Query(BaseModel):
    image: str
    """A data URI."""
    labels: list[str]


@app.post("/zero-shot")
def zero_shot(query: Query) -> list[dict[str, float | str]]:
    image = Image.open(io.BytesIO(base64.b64decode(query.image.partition(",")[2])))
    scores: list[dict[str, float | str]] = classify(image, candidate_labels=query.labels)
    return scores


@app.get("/healthz")
def healthz() -> dict[str, str]:
    return {"status": "ok"}
