"""The report on a data set: findings from the statistics of its parts, and from comparisons of its samples."""
