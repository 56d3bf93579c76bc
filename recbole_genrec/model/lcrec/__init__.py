"""LC-Rec: a causal language model tuned on a mixture of instruction tasks."""
