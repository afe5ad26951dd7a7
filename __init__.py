"""epsbench: declarative benchmarks of adversarial robustness and of generative models.

Importing this package imports no torch. What needs torch is imported where it is used.
"""

__version__ = "0.1.0"
