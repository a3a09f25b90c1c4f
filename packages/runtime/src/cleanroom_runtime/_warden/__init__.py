"""The warden: a small process that owns what a run starts, and ends it when the run ends.

Standard library only, and nothing of the rest of this distribution: it starts in milliseconds
and has nothing to fail on. `_children` starts and ends processes, `_clean` removes what is not a
process, `_journal` remembers both on disk, `_server` answers the run's clients.
"""
