"""Model versions: a version is a folder of the registry that holds a model, its evaluation and its lineage.

- `writer`: write the version of a finished student, or the files and document of any version
- `lineage`: what a version was made from
- `model_card`: its README.md
- `golden`: queries with the model's answers, which a replica checks itself against before it serves
- `texts`: every text that a version was trained and evaluated with; `reduction`: a vocabulary of only their tokens
- `compact`: make a small copy of a version, for a repository
"""
