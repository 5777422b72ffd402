"""The engine: words, kernels, judgements, adapters and the shell that joins them."""
