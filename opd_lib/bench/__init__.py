"""How fast, and in how much memory, beside its peers: `opd bench`, in an environment of its own."""
