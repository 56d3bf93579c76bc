"""The process that a run lives in: signals, several processes, random states, memory.

Repairs of RecBole live here too.
"""
