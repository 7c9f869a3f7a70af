"""The line: how many connections there are, and whose they are. Arithmetic only, no I/O."""

from penstock.budget.formula import Plan, extra_instances, plan

__all__ = ["Plan", "extra_instances", "plan"]
