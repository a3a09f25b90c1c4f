"""The same services in unittest: `python -m unittest`."""

import unittest

import psycopg
import redis

from cleanroom import CleanroomEnvironment

env = CleanroomEnvironment.from_config()


def setUpModule() -> None:
    env.start_all()
    unittest.addModuleCleanup(env.stop_all)


class VisitsTest(unittest.TestCase):
    def setUp(self) -> None:
        """Take a clean slice of each service: one that looks like new, for this test alone."""
        db, cache = (
            self.enterContext(env.plugin(name).isolate(env[name])) for name in ("db", "cache")
        )
        self.db = self.enterContext(psycopg.connect(db.url, autocommit=True))
        self.cache = self.enterContext(redis.Redis.from_url(cache.url))
        self.db.execute("CREATE TABLE visits (page text)")

    def visit(self, page: str) -> int:
        self.db.execute("INSERT INTO visits VALUES (%s)", [page])
        return int(self.cache.incr(f"visits:{page}"))

    def test_first_visit(self) -> None:
        self.assertEqual(self.visit("/"), 1)
        self.assertEqual(self.db.execute("SELECT * FROM visits").fetchall(), [("/",)])

    def test_visits_of_other_tests_do_not_count(self) -> None:
        self.assertEqual([self.visit("/"), self.visit("/")], [1, 2])
        self.assertEqual(self.cache.keys(), [b"visits:/"])


if __name__ == "__main__":
    unittest.main()
