"""The warden: a small process that owns what a run starts, and ends it when the run ends.

Standard library only, and little of that, because a run waits for it: what takes long to import is
imported when it is needed. It is started as a package of its own, without the rest of this
distribution, hence the relative imports.

- `main`: entry of the process.
- `_server`: the loop, and what clients may ask for.
- `_clients`: who is connected, and who has died.
- `_claims`: what one client does or holds for itself alone.
- `_children`: server processes, started and ended.
- `_processes`: what the system knows about processes.
- `_journal`: what a run owns, on disk.
- `_clean`: removing that, also for a run whose warden was killed.
- `_engine_api`: asking a container engine.
- `_relay`: a program of its own, which leads containers to what listens on this machine.
"""
