"""Language models: recurrent and n-gram."""
