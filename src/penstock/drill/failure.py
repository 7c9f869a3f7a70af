"""Why a drill cannot go on, in a sentence for whoever asked for it."""


class CannotStart(Exception):
    """A drill, its server or its load cannot start or go on. The message says why and what to do."""
