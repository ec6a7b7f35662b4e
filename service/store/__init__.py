"""The store: PostgreSQL, embedded or external, behind the ports of `service.domain`. The only room that speaks SQL."""
