"""Inference engines: they compute a student's embeddings when it serves, and behind one protocol they are interchangeable.

- `load.load_engine`: a model version with the engine that a deployment names, or with the fastest one (`auto`)
- `protocol`: what callers may use of an engine, and the report on how it was chosen
- `torch_engine`, `openvino_engine`: the implementations; the latter also converts and quantises models
- `builder`: build one by name; `cache`: converted models on this machine's disk
- `calibration`: a version's images that int8 is calibrated on and engines are compared on
- `choice`: time and compare the candidates; `batch_size`: the largest batch that still raises the rate
"""
