"""The platform's memory: SQL, transactions and migrations. Nothing else imports the SQL library."""
