"""The parts of the report's page: tables, charts, words and facts, made ready for its template."""
