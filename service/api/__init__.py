"""The doors: parse a request, call one action, render its result. The only room that speaks HTTP."""
