"""What tenant_q does, one idea a test, in the order in which one would learn it. Start reading here."""
