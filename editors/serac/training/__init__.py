"""How SERAC's parts are trained."""
