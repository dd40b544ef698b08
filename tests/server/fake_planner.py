"""A fake of `python -m tinyclip_workers.planner` without the engine. A spec's name selects its behaviour."""

import base64
import json
import os
import sys
import time


def plan(spec: dict, dataset: dict | None) -> dict:
    student = json.loads(os.environ["FAKE_PLANNER_STUDENT"])
    stages = [
        {
            "index": index, "name": stage["name"], "inherit": stage["inherit"], "steps": stage["train"]["steps"],
            "samples": 100, "student": student, "device_hours": 0.1,
        }
        for index, stage in enumerate(spec["stages"])
    ]
    steps = sum(stage["steps"] for stage in stages)
    pairs = dataset["pairs"] if dataset else 100
    return {
        "spec": spec, "teacher": student, "stages": stages, "steps": steps, "samples_per_epoch": pairs, "device": "cpu",
        "device_hours": 0.2,
    }


def evaluation(request: dict) -> dict:
    errors = [
        {"pointer": f"/tasks/{index}/shards", "value": task["shards"], "message": "is not there; check the path"}
        for index, task in enumerate(request["tasks"])
        if "nowhere" in task["shards"]
    ]
    return {"errors": errors, "warnings": ["task odd reads shards oddly"] if request["tasks"][0]["name"] == "odd" else []}


def cost(request: dict) -> dict:
    post = request["request"]
    if post["teacher"]["model"] == "ViT-B-23":
        error = {"pointer": "/teacher/model", "value": "ViT-B-23", "message": "is no open_clip architecture"}
        return {"errors": [error]}
    views = 100 * post["augmentations"]
    return {"cost": {"views": views, "texts": 80, "bytes": 9000, "seconds": 7.5, "teacher_share": 0.6, "epochs_to_pay": 2.5}}


def samples(question: dict) -> dict:
    """Ten samples, of which the last is unusable."""
    every = [
        {
            "number": number, "key": f"a/{number}", "shard": "/data/00.tar", "offset": 1000 * number, "length": 1000,
            "captions": [f"caption {number}"], "width": 64, "height": 64, "use": "unusable" if number == 9 else "training",
        }
        for number in range(10)
    ]
    wanted = [each for each in every if question["use"] in (None, each["use"])]
    shown = [each for each in wanted if each["number"] >= question["start"]][: question["limit"]]
    last = shown[-1]["number"] if shown else 9
    return {"items": shown, "next": last + 1 if last < wanted[-1]["number"] else None}


def thumbnail(question: dict) -> dict:
    if question["key"] == "slow":
        return {"unavailable": "the store does not answer"}
    if question["key"] != "a/3" or question["number"] not in (None, 3):
        return {"missing": f"there is no sample {question['key']}"}
    return {"jpeg": base64.b64encode(f"jpeg of {question['size']}".encode()).decode()}


def item(question: dict) -> dict:
    if question["id"] in ("a/3", "drawn"):
        has_thumbnail = question["id"] == "a/3"
        return {"item": {"id": question["id"], "metadata": {}, "shard": None, "has_thumbnail": has_thumbnail}}
    return {"missing": f"there is no item {question['id']}", "code": "no_such_item"}


def item_thumbnail(question: dict) -> dict:
    if question["id"] == "drawn":
        return {"missing": "item drawn was added without an image", "code": "no_thumbnail"}
    if "missing" in item(question):
        return item(question)
    return {"jpeg": base64.b64encode(f"jpeg of {question['size']}".encode()).decode()}


def image(question: dict) -> dict:
    if question["key"] == "gone":
        return {"missing": "sample gone cannot be read"}
    return {"jpeg": base64.b64encode(json.dumps(question).encode()).decode()}


def advice(record: dict) -> dict:
    """Try the values of the first varied field one after another; measure the best trials if there are constraints."""
    if record["post"]["spec"]["name"] == "unadvisable":
        return {"errors": [{"pointer": "/constraints", "value": None, "message": "no layout is that fast"}]}
    if record["post"]["spec"]["name"] == "idle":
        return {"advice": {"message": "no idea"}}
    trials, (path, values) = record["trials"], next(iter(record["post"]["vary"].items()))
    values = values if isinstance(values, list) else [values["min"], values["max"]]
    active = [trial for trial in trials if trial["state"] not in ("succeeded", "failed", "cancelled")]
    free = max(0, record["post"]["budget"]["at_once"] - len(active))
    spec = record["post"]["spec"]
    begin = [
        {"number": number, "rung": 0, "settings": {path: value}, "spec": changed(spec, path, value)}
        for number, value in enumerate(values)
    ][len(trials) : len(trials) + free]
    done = [trial for trial in trials if trial["model"] is not None]
    if begin or active:
        return {"advice": {"begin": begin, "message": f"{len(done)} of {len(values)} trials are done"}}
    if record["post"]["constraints"] and not record["measured"]:
        return {"advice": {"measure": [trial["number"] for trial in done]}}
    front = [
        {
            "model": trial["model"], "trial": trial["number"], "params": trial["params"], "macs": trial["macs"],
            "measurements": trial["measurements"], "is_feasible": True,
        }
        for trial in done
    ]
    recommended = front[0] if front else None
    result = {"front": front, "recommended": recommended, "reason": "it is the smallest", "importance": {path: 1.0}}
    return {"advice": {"finished": result}}


def foresee(record: dict) -> dict:
    """No student has fewer than 100 bytes; all trials are as long as the spec."""
    post = record["post"]
    bounds = [
        {
            "pointer": f"/constraints/{index}/bytes/max", "limit": each["bytes"]["max"], "smallest": 100,
            "is_possible": each["bytes"]["max"] >= 100, "message": "the smallest student has 100; raise the limit",
        }
        for index, each in enumerate(post["constraints"])
        if each["bytes"] is not None
    ]
    counts = [len(values) if isinstance(values, list) else 5 for values in post["vary"].values()]
    trials = min(post["budget"]["trials"], *counts) if counts else post["budget"]["trials"]
    hours = min(trials * record["device_hours"], post["budget"]["device_hours"] or 1e9)
    estimate = {"trials": trials, "trials_by_rung": [trials], "steps": 20, "device_hours": hours}
    return {"bounds": bounds, "estimate": estimate}


def changed(spec: dict, path: str, value: object) -> dict:
    head, _, rest = path.partition(".")
    return {**spec, head: changed(spec.get(head) or {}, rest, value) if rest else value}


def answer(question: dict) -> dict:
    if "item" in question:
        return {"id": question["id"], **item(question["item"])}
    if "item_thumbnail" in question:
        return {"id": question["id"], **item_thumbnail(question["item_thumbnail"])}
    if "image" in question:
        return {"id": question["id"], **image(question["image"])}
    if "evaluation" in question:
        return {"id": question["id"], **evaluation(question["evaluation"])}
    if "samples" in question:
        return {"id": question["id"], **samples(question["samples"])}
    if "thumbnail" in question:
        return {"id": question["id"], **thumbnail(question["thumbnail"])}
    if "reinforcement" in question:
        return {"id": question["id"], **cost(question["reinforcement"])}
    if "search_plan" in question:
        return {"id": question["id"], **foresee(question["search_plan"])}
    if "search" in question:
        return {"id": question["id"], **advice(question["search"])}
    name = question["spec"]["name"]
    if name == "dies":
        os._exit(3)
    if name.startswith("dies-once-"):
        marker = os.path.join(os.environ["FAKE_PLANNER_DIR"], name)
        if not os.path.exists(marker):
            open(marker, "w").close()
            os._exit(3)
    if name in ("hangs", "fails"):
        shards = question["spec"]["data"]["train"]["shards"]
        doing = {"pointer": "/data/train/shards", "value": shards, "what": "reading the shards"}
        print(json.dumps({"id": question["id"], "doing": doing}), flush=True)
    if name == "hangs":
        time.sleep(60)
    if name == "exhausts":
        return {"id": question["id"], "exhausted": True}
    if name == "fails":
        return {"id": question["id"], "failed": True}
    if name == "mumbles":
        return {"something": "else"}
    if name == "impossible":
        error = {"pointer": "/stages/0/student/image/layers", "value": 2, "message": "the teacher has 1 layer; give at most 1"}
        return {"id": question["id"], "errors": [error]}
    return {"id": question["id"], "plan": plan(question["spec"], question.get("dataset"))}


if __name__ == "__main__":
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
