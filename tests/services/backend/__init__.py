"""A stand-in for the application's backend: the same API, quirks included, on SQLite.

One uvicorn process instead of four gunicorn workers on PostgreSQL. So there is no race of the
workers at the first start (CRASH_FIRST_STARTS plays it), an overlapping bulk run blocks every
other write instead of the rows it holds, and four blocking requests cannot starve it.
"""
