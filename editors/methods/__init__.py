"""Weight editors, one folder each with the same rooms; `editors.registry` lists them. None imports another."""
