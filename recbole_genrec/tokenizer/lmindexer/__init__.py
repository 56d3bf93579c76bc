"""LMIndexer's self-supervised tokenizer (arXiv 2310.07815): a file for each part of the paper."""
