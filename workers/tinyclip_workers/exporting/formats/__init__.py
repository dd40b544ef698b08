"""One module per export format: a function that writes an export, and a class that loads it as users of the format do.

`exporter` imports a format's module, and so its libraries, only when that format is requested.
"""
