"""The database: SQLite or PostgreSQL.

engine      transactions, and the column types that both databases share
postgresql  time limits of connections and statements
tables      the rows
locks       locks that all servers of a database see
migrate     bringing a database to a revision, one server at a time
"""
