"""The database's migrations, run by `service.store.migrate`."""
