"""opd_lib: on-policy distillation experiments that can be read, rerun and checked. Start at `opd_lib.engine.train`."""

__version__ = "0.1.0"
