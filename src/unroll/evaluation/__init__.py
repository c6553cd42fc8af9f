"""One definition of perplexity for every model and every protocol."""
