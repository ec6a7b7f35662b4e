"""The only room that holds the model: engine, live memory, follower, and the runtime that answers with them."""
