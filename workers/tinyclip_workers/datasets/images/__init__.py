"""The images of a data set, and of the evaluation tasks that are looked for among them.

`checks` has the checks of one image and the marks that identify it; `task_images` makes those of the tasks' images.
"""
