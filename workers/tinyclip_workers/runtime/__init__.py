"""The basis of every process of the engine: storage, addresses, events, commands.

filesystems, addresses  opening paths and URIs, after checking where they lead
user_files, http_limits reading files that users name: regular ones, with limits of size and time
committed               folders of several files that count once their manifest is written
attempt                 one attempt at a training job: its document, its folders, its outcome
control                 the control file: which attempt may write, and whether to pause or cancel
events                  numbered event segments, and log records as events
ray_job                 the frame of all Ray jobs other than training
json_lines              answers of a helper process, one JSON document a line
"""
