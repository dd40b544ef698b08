"""The training input: an endless, repeatable stream of batches, split over workers and loader processes.

- `order`: the pairs of each batch of an epoch; `languages`: their languages; `positions`: where a stream continues
- `fetching`: reading of the blocks that the pairs lie in
- `pairs`: a worker's pairs, decoded; `batches`: batches and parts of them; `loader`: full batches, prepared ahead

Global batch number b of epoch e is the same for any number of workers and loader processes (`order`); the view of an image and
the caption of a pair are drawn for the sample. So a position is two numbers, and a stream that continues from it, with whatever
workers there are by then, yields the batches that an uninterrupted one would.

A worker takes its share of the slots of each batch. Its loader processes divide these slots by readers; each yields its part of
every batch, and the loader joins the parts.
"""
