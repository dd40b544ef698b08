"""The captions of a data set.

`checks` has the checks of one caption, `counts` adds them up over a shard, and `languages` determines the languages.
`joined_file` joins more captions from a file to the samples.
"""
