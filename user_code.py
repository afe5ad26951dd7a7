"""The package that holds the code of users: each of their repositories is a package in it.

A process that a user's code starts, such as a data loader's worker, imports this module when it unpickles an object of
hers, and with it the finder of such packages (`epsbench.harness.plan.names.finders`).
"""

from epsbench.harness.plan.names import finders as finders

__path__: list[str] = []
