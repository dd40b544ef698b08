"""Plans: what a spec would do, computed by the same code that will train, or everything that is wrong with it.

- `specs`: plans of whole specs, and checks of requests for evaluations; `tinyclip_workers.planner` is the process that answers
- `diagnostics`: the errors and warnings that all checks add to
- `shards`: samples of the shards; `data`: checks of the training data and of images and captions;
  `dataset`: of a registered data set; `reinforcement`: of stored embeddings
- `tasks`: checks of evaluation tasks; `objective`: of objectives and of several teachers
- `samples`: samples of a data set for the control plane
- `stages`: each stage's student; `cost`: its device-hours; `prune`: checks and estimates of automatic stages
"""
