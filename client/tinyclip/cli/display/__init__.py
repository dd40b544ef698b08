"""Output of the command line: tables, lines and progress bars."""
