"""cortexd: one budgeted endpoint in front of a fleet of language-model neurons."""

__version__ = "0.1.0"
