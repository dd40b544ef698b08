"""The database: SQLite or PostgreSQL.

engine   transactions, and the column types that both databases share
tables   the rows
migrate  bringing a database to a revision, one server at a time
"""
