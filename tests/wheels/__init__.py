"""Whether the distributions stand alone, each with what it declares and no more."""
