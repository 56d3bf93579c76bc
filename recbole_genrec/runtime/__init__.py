"""The process that a run lives in: signals, several processes, random states, memory, repairs of RecBole."""
