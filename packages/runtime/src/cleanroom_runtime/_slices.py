"""The slices of stores that one worker's tests, and the services it runs for itself, share.

A service that depends on a store is given the address of the worker's own slice of it, and a test
that asks for a slice gets that very one: both see the same data. Before every test that uses
services the slices are made clean, whether or not the test itself looks into the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING

from cleanroom import InternalError, SupportsIsolation

if TYPE_CHECKING:
    from cleanroom import CleanroomEnvironment, ServiceHandle

Source = Mapping[str, str]
"""The metadata of the handle a slice is leased by: what the slice will hold when it is clean."""


class Slices:
    """The slices this worker has leased from the services of an environment.

    Args:
        environment: The worker's services.
        source: Returns, for the handle of a store, the one to lease its slices by: the same one,
            or that of a migrated template.
    """

    def __init__(
        self,
        environment: CleanroomEnvironment,
        source: Callable[[ServiceHandle], ServiceHandle],
    ) -> None:
        self._environment = environment
        self._source = source
        self._bound: dict[str, ServiceHandle] = {}
        self._leased: dict[str, tuple[Source, ServiceHandle]] = {}
        self._of_test = ExitStack()

    def bind(self, handles: Mapping[str, ServiceHandle]) -> dict[str, ServiceHandle]:
        """Return what a service that depends on these is to be given: slices, where there are any.

        Their names and addresses stay; what is in them is made clean for every test.
        """
        return {name: self._bind(name, handle) for name, handle in handles.items()}

    def _bind(self, name: str, handle: ServiceHandle) -> ServiceHandle:
        if not isinstance(self._environment.plugin(name), SupportsIsolation):
            return handle
        source = self._bound.setdefault(name, self._source(handle))
        with self.lease(source) as leased:
            return leased

    @contextmanager
    def lease(self, source: ServiceHandle) -> Iterator[ServiceHandle]:
        """Lease a clean slice, or share the one that was leased for the same test already.

        Args:
            source: The handle to lease by.

        Raises:
            InternalError: The service's plugin has no slices to give.
        """
        name = source.service_name
        shared = self._leased.get(name)
        if shared is not None and shared[0] == source.metadata:
            yield shared[1]
            return
        with self._plugin(name)(source) as leased:
            if shared is None:
                self._leased[name] = (source.metadata, leased)
            try:
                yield leased
            finally:
                if shared is None:
                    del self._leased[name]

    @contextmanager
    def lease_beside(self, source: ServiceHandle) -> Iterator[ServiceHandle]:
        """Lease a clean slice for longer than one test, beside the one that tests share.

        That one keeps its address. Args and errors are those of `lease`.
        """
        with ExitStack() as held:
            with self.lease(source):
                leased = held.enter_context(self._plugin(source.service_name)(source))
            yield leased

    def begin_test(self) -> None:
        """Make the slices clean that services of this worker are bound to, and hold them."""
        for source in self._bound.values():
            self._of_test.enter_context(self.lease(source))

    def end_test(self) -> None:
        """Let go of what `begin_test` holds."""
        self._of_test.close()

    def _plugin(
        self, name: str
    ) -> Callable[[ServiceHandle], AbstractContextManager[ServiceHandle]]:
        plugin = self._environment.plugin(name)
        if not isinstance(plugin, SupportsIsolation):
            raise InternalError("its plugin cannot isolate", service=name)
        return plugin.isolate
